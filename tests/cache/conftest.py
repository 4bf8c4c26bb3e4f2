"""Caches of these tests are closed, and their locks are free, as soon as nobody has them."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

from loaderd import storage


@pytest.fixture(autouse=True)
def closed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers close them in a thread, as a disk may make them wait."""

    def close(descriptors: Sequence[int]) -> None:
        for descriptor in descriptors:
            os.close(descriptor)

    monkeypatch.setattr(storage, "close", close)
