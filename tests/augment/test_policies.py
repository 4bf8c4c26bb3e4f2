"""Operations that apply others: how often, which, in what order, and what they refuse."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import numpy as np
import pytest
from scipy import stats

from loaderd.augment.canvas import Canvas
from loaderd.augment.draws import Draws
from loaderd.augment.pipeline import divide
from loaderd.augment.policies import AnyOperation
from loaderd.errors import InvalidArgument
from loaderd.render.augmented import KERNELS
from loaderd_client import augment as A
from tests.support.augmented import every_operation

RARE = 1e-4
ANY: Any = A
"""The same, for arguments that types refuse."""
FLIPS = [A.RandomFlip("horizontal"), A.RandomFlip("vertical"), A.RandomFlip()]


def drawn(operation: Any, count: int = 4000) -> list[Any]:
    draws = Draws(9)
    found = []
    for sample in range(count):
        draws.begin(0, sample, 0)
        found.append(operation.draw(draws, (20, 30)))
    return found


def test_random_apply_applies_all_or_nothing() -> None:
    counts = Counter(len(each) for each in drawn(A.RandomApply(FLIPS, 0.2)))
    assert sorted(counts) == [0, 3]
    assert stats.binomtest(counts[3], 4000, 0.2).pvalue > RARE


def test_random_choice_follows_its_probabilities() -> None:
    counts = Counter(each[0][0].mode for each in drawn(A.RandomChoice(FLIPS, (1, 2, 5))))
    expected = [500, 1000, 2500]
    assert stats.chisquare([counts[op.mode] for op in FLIPS], expected).pvalue > RARE
    even = Counter(each[0][0].mode for each in drawn(A.RandomChoice(FLIPS)))
    assert stats.chisquare(list(even.values())).pvalue > RARE


def test_random_mix_leaves_the_rest_as_it_is() -> None:
    found = drawn(A.RandomMix([A.MixUp(), A.CutMix()], (0.3, 0.5)))
    counts = Counter("none" if one is None else "cut" if one.box else "up" for one in found)
    expected = [1200, 2000, 800]
    assert stats.chisquare([counts[kind] for kind in ("up", "cut", "none")], expected).pvalue > RARE


def test_operations_in_a_group_follow_one_another_and_know_the_size_before_them() -> None:
    group = A.RandomChoice(
        [A.RandomChoice([A.RandomCrop(10, 12)]), A.RandomResizedCrop(10, 12), A.Resize(10, 12)]
    )
    assert group.sets_size == (10, 12)
    canvas = Canvas(KERNELS)
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    for parameters in drawn(group, 30):
        canvas.begin(image)
        group.apply(canvas, parameters)
        assert canvas.image.shape == (10, 12, 3)


@pytest.mark.parametrize("name", every_operation())
def test_every_operation_is_the_same_after_its_way_to_a_worker(name: str) -> None:
    operation = every_operation()[name]
    if isinstance(operation, A.Function):
        operation = operation.call(0)
    assert msgspec.json.decode(msgspec.json.encode(operation), type=AnyOperation) == operation
    assert A.RandomFlip() != operation or name == "RandomFlip"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ANY.RandomApply(A.RandomFlip()), "`ops` must be a list"),
        (lambda: ANY.RandomApply([]), "`ops` is empty"),
        (lambda: ANY.RandomApply(["flip"]), "`ops` cannot hold 'flip'"),
        (lambda: ANY.RandomApply([A.MixUp()]), "`ops` cannot hold MixUp"),
        (lambda: ANY.RandomApply([A.RandomCrop(2, 2)]), "must not change the size"),
        (lambda: ANY.RandomApply(FLIPS, 1.5), "`p` must be from 0 to 1"),
        (lambda: ANY.RandomChoice([A.RandomCrop(2, 2), A.RandomCrop(2, 3)]), "of the same size"),
        (lambda: ANY.RandomChoice(FLIPS, [1, 2]), "as many numbers"),
        (lambda: ANY.RandomChoice(FLIPS, [0, 0, 0]), "as many numbers"),
        (lambda: ANY.RandomMix([A.MixUp()], [1.1]), "must not have a sum above 1"),
        (lambda: ANY.RandomMix([A.RandomFlip()]), "`ops` cannot hold RandomFlip"),
        (lambda: ANY.RandomResizedCrop("224", 224), "`height` expected `int`, got `str`"),
        (lambda: ANY.Rescaling(float("inf")), "`scale` must be finite"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(make: Any, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_lists_and_numbers_of_numpy_become_plain_values() -> None:
    operation = ANY.RandomResizedCrop(np.int64(3), 4, scale=np.array([0.1, 0.2]))
    assert operation == A.RandomResizedCrop(3, 4, scale=(0.1, 0.2))


def test_a_list_is_divided_by_what_operations_work_on() -> None:
    pipeline = divide([A.RandomCrop(8, 9), A.RandomFlip(), A.MixUp(), A.Rescaling(2), A.CutMix()])
    assert [number for number, _ in pipeline.images] == [0, 1]
    assert pipeline.values == (A.Rescaling(2),)
    assert pipeline.mixes == ((2, A.MixUp()), (4, A.CutMix()))
    assert pipeline.size == (8, 9)
