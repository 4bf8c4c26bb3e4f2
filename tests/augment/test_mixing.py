"""MixUp and CutMix against torchvision's and Keras's formulas."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from loaderd.augment.draws import Draws
from loaderd.augment.mixing import CutMix, Mix, MixOperation, MixUp
from loaderd.errors import InvalidArgument

SIZE = (40, 60)
ALPHAS = pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])


def drawn(operation: MixOperation, count: int = 4000, size: tuple[int, int] = SIZE) -> list[Mix]:
    draws = Draws(13)
    found = []
    for sample in range(count):
        draws.begin(0, sample, 2)
        mix = operation.draw(draws, size)
        assert mix is not None
        found.append(mix)
    return found


def boxes(mixes: list[Mix]) -> NDArray[np.int64]:
    """(count, 4): left, top, right, bottom."""
    return np.array([mix.box for mix in mixes])


def torchvision_cutmix(
    random: np.random.Generator, alpha: float, size: tuple[int, int]
) -> tuple[float, tuple[int, int, int, int]]:
    """(weight, box): ``CutMix.make_params`` of torchvision."""
    height, width = size
    weight = random.beta(alpha, alpha)
    r_x, r_y = int(random.integers(width)), int(random.integers(height))
    r = 0.5 * math.sqrt(1.0 - weight)
    r_w_half, r_h_half = int(r * width), int(r * height)
    x1, y1 = max(r_x - r_w_half, 0), max(r_y - r_h_half, 0)
    x2, y2 = min(r_x + r_w_half, width), min(r_y + r_h_half, height)
    return 1.0 - (x2 - x1) * (y2 - y1) / (width * height), (x1, y1, x2, y2)


@ALPHAS
def test_weights_of_mixup_have_the_beta_distribution(alpha: float) -> None:
    """As in ``keras.layers.MixUp`` and torchvision's ``MixUp``."""
    mixes = drawn(MixUp(alpha))
    assert {mix.box for mix in mixes} == {None}
    weights = [mix.weight for mix in mixes]
    assert stats.kstest(weights, stats.beta(alpha, alpha).cdf).pvalue > 0.01


@ALPHAS
def test_parts_of_cutmix_are_distributed_as_those_of_torchvision(alpha: float) -> None:
    mixes = drawn(CutMix(alpha))
    random = np.random.default_rng(4)
    theirs = [torchvision_cutmix(random, alpha, SIZE) for _ in mixes]
    weights = [mix.weight for mix in mixes]
    assert stats.ks_2samp(weights, [weight for weight, _ in theirs]).pvalue > 0.01
    for mine, other in zip(boxes(mixes).T, np.array([box for _, box in theirs]).T, strict=True):
        assert stats.ks_2samp(mine, other).pvalue > 0.01


@ALPHAS
def test_the_share_that_is_cut_has_the_beta_distribution(alpha: float) -> None:
    """Of parts from 0.01 to 0.25 around the middle: the image never clips them.

    Smaller ones are rounded to too few pixels.
    """
    height, width = 2000, 3000
    mixes = drawn(CutMix(alpha), 8000, (height, width))
    left, top, right, bottom = boxes(mixes).T
    whole = (left > 0) & (top > 0) & (right < width) & (bottom < height)
    x, y = (left + right) / 2, (top + bottom) / 2
    central = (abs(x / width - 0.5) < 0.25) & (abs(y / height - 0.5) < 0.25)
    shares = 1 - np.array([mix.weight for mix in mixes])
    found = shares[whole & central & (shares > 0.01) & (shares < 0.25)]
    assert len(found) > 150
    share = stats.beta(alpha, alpha)
    low, high = share.cdf([0.01, 0.25])
    assert stats.kstest(found, lambda one: (share.cdf(one) - low) / (high - low)).pvalue > 0.01


@pytest.mark.parametrize("size", [SIZE, (1, 1), (1, 30), (7, 5)])
def test_the_weight_is_the_share_that_is_left(size: tuple[int, int]) -> None:
    for mix in drawn(CutMix(), 500, size):
        assert mix.box is not None
        left, top, right, bottom = mix.box
        assert 0 <= left <= right <= size[1]
        assert 0 <= top <= bottom <= size[0]
        replaced = np.zeros(size, bool)
        replaced[top:bottom, left:right] = True
        assert mix.weight == pytest.approx(1 - replaced.mean())
        assert 0 <= mix.weight <= 1


def test_the_centre_lies_everywhere_as_likely() -> None:
    """Seen where parts are too narrow to be clipped often."""
    left, _, right, _ = boxes(drawn(CutMix(1.0), 6000)).T
    unclipped = (left > 0) & (right < 60)
    inner = (left + right)[unclipped & (right - left <= 20)] / 2
    inner = inner[(inner > 10) & (inner < 50)]
    assert stats.chisquare(np.bincount(inner.astype(int), minlength=50)[11:50]).pvalue > 0.01


def test_defaults_are_those_of_the_references() -> None:
    assert MixUp().alpha == 0.2  # Keras's
    assert CutMix().alpha == 1.0  # torchvision's, and Keras's factor


@pytest.mark.parametrize("kind", [MixUp, CutMix])
@pytest.mark.parametrize("alpha", [0, -1, math.nan, math.inf, "1"])
def test_wrong_alphas_are_refused(kind: Callable[[Any], Any], alpha: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"(MixUp|CutMix): `alpha`"):
        kind(alpha)
