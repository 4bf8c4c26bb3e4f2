"""The generator of operations: its counter, and its distributions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from loaderd.augment.draws import Draws

WORD = 2**64
COUNT = 4000


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x64-10 as in the paper (Salmon et al., 2011), section 3.3 and table 2."""
    (a, b, c, d), (k, m) = counter, key
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * a, 0xCA5A826395121157 * c
        a, b, c, d = second // WORD ^ b ^ k, second % WORD, first // WORD ^ d ^ m, first % WORD
        k, m = (k + 0x9E3779B97F4A7C15) % WORD, (m + 0xBB67AE8584CAA73B) % WORD
    return [a, b, c, d]


def begun(seed: int = 1, epoch: int = 0, sample: int = 0, operation: int = 0) -> Draws:
    draws = Draws(seed)
    draws.begin(epoch, sample, operation)
    return draws


def over_samples(draw: Callable[[Draws], float], count: int = COUNT) -> NDArray[np.float64]:
    """The first draw of each sample."""
    draws = Draws(11)
    found = []
    for sample in range(count):
        draws.begin(2, sample, 1)
        found.append(draw(draws))
    return np.array(found)


@pytest.mark.parametrize(
    ("seed", "epoch", "sample", "operation"), [(0, 0, 0, 0), (42, 3, 1000, 2), (2**63 - 1, 9, 7, 0)]
)
def test_numbers_are_those_of_the_documented_counter(
    seed: int, epoch: int, sample: int, operation: int
) -> None:
    draws = begun(seed, epoch, sample, operation)
    blocks = [philox([block, sample, operation + 1, 0], [seed, epoch]) for block in (1, 2, 3)]
    expected = [(word >> 11) * 2.0**-53 for block in blocks for word in block]
    assert [draws.uniform() for _ in expected] == expected


def test_numbers_stay_as_they_are() -> None:
    """Of the first operation for sample 5 in epoch 2 of seed 1: a stream's bytes hang on them."""
    draws = begun(1, 2, 5, 0)
    found = [
        draws.uniform(10, 20),
        draws.integer(1000),
        draws.happens(0.5),
        draws.normal(),
        draws.gamma(0.2),
        draws.gamma(3),
        draws.beta(0.2, 0.2),
        draws.beta(1, 1),
        *draws.dirichlet(1, 3),
        *draws.normals((2, 3)).ravel().tolist(),
    ]
    assert found == pytest.approx(PINNED, rel=1e-9)


PINNED = [
    *(13.78334276597574, 911, False, -0.0890951327854216, 0.00025315661290256587),
    *(3.7299947469308297, 0.8652456695606981, 0.5417167539387716),
    *(0.6321198663919811, 0.16757766877735486, 0.20030246483066397),
    *(-0.05569891259074211, -0.6578486561775208, 2.1116819381713867),
    *(-0.2955242991447449, -0.042563874274492264, -0.25358012318611145),
]


def test_the_same_numbers_come_again_in_any_order() -> None:
    draws = Draws(1)

    def first(epoch: int, sample: int, operation: int) -> float:
        draws.begin(epoch, sample, operation)
        return draws.uniform()

    places = [(e, s, o) for e in range(3) for s in range(20) for o in range(4)]
    there = [first(*place) for place in places]
    back = [first(*place) for place in reversed(places)]
    assert there == back[::-1]
    assert len(set(there)) == len(places)


@pytest.mark.parametrize("shape", [(1,), (3,), (5,), (4, 4, 3)])
def test_numbers_drawn_before_do_not_show_in_the_next_sample(shape: tuple[int, ...]) -> None:
    draws = begun(sample=1)
    draws.uniform()
    draws.normals(shape)
    draws.begin(0, 2, 0)
    assert draws.uniform() == begun(sample=2).uniform()


@pytest.mark.parametrize("other", ["seed", "epoch", "sample", "operation"])
def test_neighbours_are_independent(other: str) -> None:
    def numbers(step: int) -> list[float]:
        places = [{"seed": 5, "epoch": 5, "sample": 5, "operation": 5} for _ in range(2000)]
        along = "epoch" if other == "sample" else "sample"
        for index, place in enumerate(places):
            place[along] = index
            place[other] += step
        return [begun(**place).uniform() for place in places]

    one, next_one = numbers(0), numbers(1)
    assert stats.pearsonr(one, next_one).pvalue > 0.01
    table, *_ = np.histogram2d(one, next_one, 5, ((0, 1), (0, 1)))
    assert stats.chisquare(table.ravel()).pvalue > 0.01


def test_successive_numbers_of_a_sample_are_independent() -> None:
    draws = begun()
    numbers = [draws.uniform() for _ in range(COUNT)]
    assert stats.kstest(numbers, stats.uniform.cdf).pvalue > 0.01
    assert stats.pearsonr(numbers[:-1], numbers[1:]).pvalue > 0.01


@pytest.mark.parametrize(
    ("draw", "cdf"),
    [
        (lambda draws: draws.uniform(), stats.uniform.cdf),
        (lambda draws: draws.uniform(-3, 2), stats.uniform(-3, 5).cdf),
        (lambda draws: draws.normal(), stats.norm.cdf),
        *(
            (lambda draws, shape=shape: draws.gamma(shape), stats.gamma(shape).cdf)
            for shape in (0.1, 0.5, 1.0, 1.2, 7.0)
        ),
        *(
            (lambda draws, a=a, b=b: draws.beta(a, b), stats.beta(a, b).cdf)
            for a, b in ((0.2, 0.2), (0.8, 0.8), (1.0, 1.0), (2.0, 5.0), (1.0, 3.0))
        ),
        # Each part of a symmetric Dirichlet distribution is beta distributed.
        (lambda draws: draws.dirichlet(0.7, 3)[1], stats.beta(0.7, 1.4).cdf),
    ],
)
def test_distributions(draw: Callable[[Draws], float], cdf: Callable[[Any], Any]) -> None:
    assert stats.kstest(over_samples(draw), cdf).pvalue > 0.01


def test_whole_numbers_are_equally_likely() -> None:
    numbers, counts = np.unique(
        over_samples(lambda draws: draws.integer(7)).astype(int), return_counts=True
    )
    assert list(numbers) == list(range(7))
    assert stats.chisquare(counts).pvalue > 0.01


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_events_have_their_probability(probability: float) -> None:
    happened = int(over_samples(lambda draws: draws.happens(probability)).sum())
    assert stats.binomtest(happened, COUNT, probability).pvalue > 0.01


@pytest.mark.parametrize("shape", [(0, 3), (1,), (7,), (50, 40, 3)])
def test_normals_have_any_shape(shape: tuple[int, ...]) -> None:
    found = begun().normals(shape)
    assert found.shape == shape
    assert found.dtype == np.float32


def test_normals_are_those_of_the_documented_words() -> None:
    words = np.array(philox([1, 0, 1, 0], [1, 0]), "<u8").view("<u2")
    expected = stats.norm.ppf((words + 0.5) / 65536)
    assert begun().normals((16,)) == pytest.approx(expected, rel=1e-6)


def test_normals_are_normal_and_independent() -> None:
    found = begun().normals((100, 100, 3)).astype(float)
    assert stats.kstest(found.ravel(), stats.norm.cdf).pvalue > 0.01
    assert abs(found).max() < 4.33
    for axis in range(3):
        one, next_one = np.delete(found, 0, axis), np.delete(found, -1, axis)
        assert stats.pearsonr(one.ravel(), next_one.ravel()).pvalue > 0.01
    other = begun(sample=1).normals((100, 100, 3))
    assert stats.pearsonr(found.ravel(), other.ravel()).pvalue > 0.01


@pytest.mark.parametrize("alpha", [1e-300, 1e-3, 1e6])
def test_extreme_parameters_give_numbers_from_0_to_1(alpha: float) -> None:
    found = over_samples(lambda draws: draws.beta(alpha, alpha), 1000)
    assert ((found >= 0) & (found <= 1)).all()
    assert found.mean() == pytest.approx(0.5, abs=0.1)
    parts = begun().dirichlet(alpha, 4)
    assert sum(parts) == pytest.approx(1)
