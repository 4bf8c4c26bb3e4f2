"""Which weights there may be, and where those of classes come from."""

from __future__ import annotations

from math import inf, nan

import numpy as np
import pytest

from loaderd.errors import InvalidArgument
from loaderd.sampling.weights import checked, sample_weights, systematic
from loaderd.spec.output import Order

LABELS = np.array([0, 0, 0, 2, 2, 0], np.int32)
NAMES = ("a", "b", "c")


def test_balanced_weights_give_each_class_the_same_sum() -> None:
    weights = sample_weights(Order(class_weights="balanced"), LABELS, NAMES)
    assert weights is not None
    assert weights[LABELS == 0].sum() == weights[LABELS == 2].sum()
    odd = sample_weights(Order(class_weights="balanced"), np.array([7, -1, 7]), ())
    assert odd is not None
    assert odd.tolist() == [0.5, 1.0, 0.5]


def test_a_table_gives_each_sample_its_classs_weight_and_others_one() -> None:
    weights = sample_weights(Order(class_weights=(("b", 9.0), ("c", 2.0))), LABELS, NAMES)
    assert weights is not None
    assert weights.tolist() == [0.5, 0.5, 0.5, 1.0, 1.0, 0.5]


def test_without_weights_there_are_none() -> None:
    assert sample_weights(Order(), LABELS, NAMES) is None


def test_given_weights_are_taken_as_they_are() -> None:
    given = np.array([1, 2, 4, 0, 0, 0], np.float32)
    weights = sample_weights(Order(weighted=True), LABELS, NAMES, given)
    assert weights is not None
    assert weights.tolist() == [0.25, 0.5, 1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("wrong", [[1.0, -0.5], [1.0, nan], [1.0, inf], [0.0, 0.0]])
def test_wrong_weights_are_refused_in_one_line(wrong: list[float]) -> None:
    with pytest.raises(InvalidArgument, match="weights of samples must") as caught:
        checked(np.array(wrong))
    assert "\n" not in str(caught.value)


def test_the_largest_numbers_have_a_sum_too() -> None:
    assert checked(np.array([1.7e308, 1.7e308])).tolist() == [1.0, 1.0]


def test_a_name_that_is_no_class_is_refused_with_those_that_are() -> None:
    with pytest.raises(InvalidArgument, match="'d' is no class: there are 'a', 'b', 'c'"):
        sample_weights(Order(class_weights=(("d", 1.0),)), LABELS, NAMES)


@pytest.mark.parametrize("start", [0.0, 0.5, 1 - 2**-53])
def test_an_index_of_weight_0_is_never_taken(start: float) -> None:
    assert set(systematic(np.array([0, 1, 0, 1, 0.0]), start).tolist()) == {1, 3}
