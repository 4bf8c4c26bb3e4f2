"""Who takes part in a comparison delivers what is asked for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from scripts.benchmarks import compare, results
from scripts.benchmarks.contest import Contestant, Failed
from scripts.benchmarks.peers.protocol import describe
from scripts.benchmarks.results import Entry, Results

SHADES = np.linspace(0, 1, 4 * 8 * 8 * 3, dtype=np.float32).reshape(4, 8, 8, 3)


def enter(batches: Any) -> Entry:
    """An entrant with such batches, beside a loaderd that delivers shades."""
    found = Results(machine=results.machine(), entries={})
    ours, entry = (Entry(date="2030-01-01", command="bench") for _ in range(2))
    ours.looks = describe([SHADES])
    entrant = cast(Contestant, SimpleNamespace(looks=describe(batches), packages={}))
    compare._note(found, "dali", entry, entrant, ours)
    return entry


def test_batches_of_the_same_kind_are_let_in() -> None:
    assert enter([SHADES[::-1], SHADES]).looks["shape"] == [4, 8, 8, 3]


@pytest.mark.parametrize("other", [SHADES[:2], SHADES.astype(np.float64)])
def test_batches_of_another_kind_are_refused(other: Any) -> None:
    with pytest.raises(Failed, match="its batches have another"):
        enter([other])


def test_pictures_that_were_not_decoded_are_refused() -> None:
    black = SHADES.copy()
    black[2] = 0
    with pytest.raises(Failed, match="1 images of its first two batches have one colour"):
        enter([SHADES, black])
