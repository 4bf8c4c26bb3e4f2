"""Batches, compared."""

from __future__ import annotations

from typing import Any

import numpy as np


def batches_of(sequence: Any, epochs: int = 2) -> list[Any]:
    """Copies of all batches."""
    found = []
    for _ in range(epochs):
        for batch in sequence:
            parts = batch if isinstance(batch, tuple) else (batch,)
            found.append([np.array(part) for part in parts])
    return found


def check_equal(found: list[Any], expected: list[Any]) -> None:
    """Makes sure that all batches are equal."""
    assert len(found) == len(expected)
    for batch, other in zip(found, expected, strict=True):
        for part, same in zip(batch, other, strict=True):
            np.testing.assert_array_equal(part, same)
