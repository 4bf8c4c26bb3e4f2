"""The base class: indices in batches, and the names that the module has."""

from __future__ import annotations

import numpy as np
import pytest

from tests.keras.surface.module import NAMES, image


@pytest.mark.parametrize("name", NAMES)
def test_the_module_has_the_name(name: str) -> None:
    assert callable(getattr(image, name))


@pytest.mark.parametrize("batch_size", [0, 32])
def test_a_batch_of_nothing_has_no_indices(batch_size: int) -> None:
    nothing = image.Iterator(0, batch_size, False, 0)
    assert next(nothing.index_generator).size == 0


def test_the_last_batch_holds_what_is_left() -> None:
    five = image.Iterator(5, 2, False, 0)
    assert len(five) == 3
    batches = [next(five.index_generator).tolist() for _ in range(4)]
    assert batches == [[0, 1], [2, 3], [4], [0, 1]]


def test_shuffled_indices_are_all_there() -> None:
    many = image.Iterator(50, 50, True, 3)
    first, second = (next(many.index_generator) for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(50))
    assert not np.array_equal(first, second)
