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
    assert list(ahead(counted(7, []), count)) == list(range(7))


def test_the_first_is_not_waited_for_and_later_ones_are_taken_ahead() -> None:
    made: list[int] = []
    items = ahead(counted(10, made), 2)
    seen = []
    for _ in range(4):
        next(items)
        seen.append(len(made))
    assert seen == [1, 4, 5, 6]


def test_an_error_is_raised_in_its_turn() -> None:
    def failing() -> Iterator[int]:
        yield from range(3)
        raise OSError("of the fourth")

    items = ahead(failing(), 5)
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="of the fourth"):
        next(items)


def test_a_batch_keeps_its_structure() -> None:
    batch = ({"boxes": np.ones(2), "more": [np.zeros(1)]}, (np.ones(3),), np.ones(4))
    found = mapped(len, batch)
    assert found == ({"boxes": 2, "more": [1]}, (3,), 4)


def test_nothing_that_was_handed_out_is_held() -> None:
    arrays = (np.zeros(3) for _ in range(5))
    items = ahead(all_mapped(lambda array: array, arrays), 1)
    for array in items:
        gone = weakref.ref(array)
        del array
        gc.collect()
        assert gone() is None
