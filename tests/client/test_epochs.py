"""Loops over epochs: how far they read ahead, and what they hold."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import numpy as np
import pytest

from loaderd_client.core.epochs import ahead, all_mapped, mapped


def counted(count: int, made: list[int]) -> Iterator[int]:
    for number in range(count):
        made.append(number)
        yield number


@pytest.mark.parametrize("count", [0, 1, 2, 20])
def test_items_come_in_order_and_once(count: int) -> None:
    assert list(ahead(counted(7, []), count, lambda: True)) == list(range(7))


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        (10, [1, 4, 5, 6]),  # up to two more than were handed out, after the first
        (3, [1, 3, 3, 4]),  # the third is handed out while the fourth is not there
        (0, [1, 2, 3, 4]),
    ],
)
def test_those_that_are_there_are_taken_ahead_and_no_other_is_waited_for(
    there: int, expected: list[int]
) -> None:
    made: list[int] = []
    items = ahead(counted(10, made), 2, lambda: len(made) < there)
    seen = []
    for _ in range(4):
        next(items)
        seen.append(len(made))
    assert seen == expected


def test_an_error_is_raised_in_its_turn() -> None:
    def failing() -> Iterator[int]:
        yield from range(3)
        raise OSError("of the fourth")

    items = ahead(failing(), 5, lambda: True)
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="of the fourth"):
        next(items)


def test_a_batch_keeps_its_structure() -> None:
    batch = ({"boxes": np.ones(2), "more": [np.zeros(1)]}, (np.ones(3),), np.ones(4))
    found = mapped(len, batch)
    assert found == ({"boxes": 2, "more": [1]}, (3,), 4)


def test_nothing_that_was_handed_out_is_held() -> None:
    arrays = (np.zeros(3) for _ in range(5))
    items = ahead(all_mapped(lambda array: array, arrays), 1, lambda: True)
    for array in items:
        gone = weakref.ref(array)
        del array
        gc.collect()
        assert gone() is None
