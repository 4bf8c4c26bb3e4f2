"""RandAugment, TrivialAugment and AugMix: their operations against PIL's, what they draw, mixing.

Torchvision applies these operations to PIL images by the functions that are the oracles here
(``torchvision/transforms/_functional_pil.py``).
"""

from __future__ import annotations

from collections import Counter
from math import atan, degrees
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats

from loaderd.augment import auto
from loaderd.augment.auto import AugMix, Chain, Drawn, RandAugment, TrivialAugment
from loaderd.augment.canvas import Canvas
from loaderd.augment.draws import Draws
from loaderd.errors import InvalidArgument
from loaderd.render.augmented import KERNELS

SIZE = (37, 52)
RARE = 1e-4
"""Probability below which a test of a distribution fails."""
Pixels = NDArray[np.uint8]
ANY: Any = auto
"""The module, for arguments that types refuse."""


@pytest.fixture(scope="module")
def photo() -> Pixels:
    """A smooth picture with edges, of all values."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    planes = [128 + 120 * np.sin(x / 9 + y / 7 + phase) for phase in (0, 1, 2)]
    picture = np.stack(planes, axis=-1)
    picture[8:20, 10:30] = (250, 20, 90)
    return picture.astype(np.uint8)


def applied(image: Pixels, name: str, strength: float) -> Pixels:
    canvas = Canvas(KERNELS)
    canvas.begin(image)
    RandAugment().apply(canvas, [Drawn(name, strength)])
    return canvas.image.copy()


ENHANCING: dict[str, Any] = {
    "Brightness": ImageEnhance.Brightness,
    "Color": ImageEnhance.Color,
    "Contrast": ImageEnhance.Contrast,
    "Sharpness": ImageEnhance.Sharpness,
}


@pytest.mark.parametrize("strength", [-0.9, -0.27, 0.27, 0.9])
@pytest.mark.parametrize("name", ENHANCING)
def test_enhancing_is_pils(photo: Pixels, name: str, strength: float) -> None:
    expected = ENHANCING[name](Image.fromarray(photo)).enhance(1 + strength)
    difference = np.abs(applied(photo, name, strength) - np.asarray(expected).astype(int))
    assert difference.max() <= 1


LEVELS: list[tuple[str, float, Any]] = [
    ("Identity", 0, lambda picture: picture),
    ("Posterize", 7, lambda picture: ImageOps.posterize(picture, 7)),
    ("Posterize", 2, lambda picture: ImageOps.posterize(picture, 2)),
    ("Posterize", 8, lambda picture: picture),
    ("Solarize", 178, lambda picture: ImageOps.solarize(picture, 178)),
    ("Solarize", 0, lambda picture: ImageOps.solarize(picture, 0)),
    ("AutoContrast", 0, ImageOps.autocontrast),
    ("Equalize", 0, ImageOps.equalize),
]


@pytest.mark.parametrize(("name", "strength", "oracle"), LEVELS)
def test_levels_are_pils(photo: Pixels, name: str, strength: float, oracle: Any) -> None:
    dull = photo // 2 + 40
    expected = np.asarray(oracle(Image.fromarray(dull))).astype(int)
    assert np.abs(applied(dull, name, strength) - expected).max() <= 1


def by_matrix(picture: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    return picture.transform(picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST)


MOVING: list[tuple[str, float, Any]] = [
    ("ShearX", 0.3, lambda picture: by_matrix(picture, (1, 0.3, 0, 0, 1, 0))),
    ("ShearX", -0.99, lambda picture: by_matrix(picture, (1, -0.99, 0, 0, 1, 0))),
    ("ShearY", 0.3, lambda picture: by_matrix(picture, (1, 0, 0, 0.3, 1, 0))),
    ("TranslateX", 9.7, lambda picture: by_matrix(picture, (1, 0, -9, 0, 1, 0))),
    ("TranslateY", -9.7, lambda picture: by_matrix(picture, (1, 0, 0, 0, 1, 9))),
    ("Rotate", 30, lambda picture: picture.rotate(30)),
    ("Rotate", -135, lambda picture: picture.rotate(-135)),
]


@pytest.mark.parametrize(("name", "strength", "oracle"), MOVING)
def test_moved_pixels_are_pils(photo: Pixels, name: str, strength: float, oracle: Any) -> None:
    """But for ties, which rounding decides."""
    expected = np.asarray(oracle(Image.fromarray(photo)))
    same = (applied(photo, name, strength) == expected).all(axis=-1)
    assert same.mean() > 0.99


def test_strengths_are_those_of_torchvision() -> None:
    size = (331, 662)
    at = {kind.name: kind.strength(9 / 30, size) for kind in auto._RAND_AUGMENT}
    assert at["ShearX"] == at["ShearY"] == pytest.approx(0.09)
    assert degrees(atan(at["ShearX"])) == pytest.approx(5.1428, abs=1e-3)
    assert (at["TranslateX"], at["TranslateY"]) == pytest.approx((90, 45))
    assert at["Rotate"] == pytest.approx(9)
    assert at["Brightness"] == at["Sharpness"] == pytest.approx(0.27)
    assert (at["Posterize"], at["Solarize"]) == pytest.approx((7, 178.5))
    most = {kind.name: kind.strength(1.0, size) for kind in auto._TRIVIAL_AUGMENT}
    assert (most["ShearY"], most["TranslateX"], most["Rotate"]) == (0.99, 32, 135)
    assert (most["Color"], most["Posterize"], most["Solarize"]) == (0.99, 2, 0)


def test_posterize_keeps_the_bits_of_every_bin_of_torchvision() -> None:
    kinds = {"rand": (auto._RAND_AUGMENT, 4), "trivial": (auto._TRIVIAL_AUGMENT, 6)}
    for all_kinds, lost in kinds.values():
        (kind,) = [one for one in all_kinds if one.name == "Posterize"]
        expected = 8 - np.round(np.arange(31) / (30 / lost)).astype(int)
        assert [kind.strength(bin / 30, SIZE) for bin in range(31)] == expected.tolist()


def drawn(operation: Any, count: int) -> list[Any]:
    draws = Draws(5)
    found = []
    for sample in range(count):
        draws.begin(0, sample, 2)
        found.append(operation.draw(draws, SIZE))
    return found


def test_rand_augment_draws_each_operation_as_often() -> None:
    lists = drawn(RandAugment(num_ops=3), 3000)
    assert {len(each) for each in lists} == {3}
    counts = Counter(one.name for each in lists for one in each)
    assert len(counts) == 14
    assert stats.chisquare(list(counts.values())).pvalue > RARE
    signs = Counter(one.strength > 0 for each in lists for one in each if one.name == "Rotate")
    assert stats.chisquare(list(signs.values())).pvalue > RARE


def test_trivial_augment_draws_each_operation_and_each_strength_as_often() -> None:
    lists = drawn(TrivialAugment(), 20000)
    assert {len(each) for each in lists} == {1}
    counts = Counter(each[0].name for each in lists)
    assert len(counts) == 14
    assert stats.chisquare(list(counts.values())).pvalue > RARE
    strengths = [abs(each[0].strength) for each in lists if each[0].name == "Rotate"]
    bins = Counter(round(one / 135 * 30) for one in strengths)
    assert len(bins) == 31
    assert stats.chisquare(list(bins.values())).pvalue > RARE


def test_aug_mix_draws_weights_depths_and_operations() -> None:
    lists = drawn(AugMix(), 3000)
    own = [1 - sum(chain.weight for chain in chains) for chains in lists]
    assert stats.kstest(own, "uniform").pvalue > RARE  # beta(1, 1)
    first = [chains[0].weight / sum(chain.weight for chain in chains) for chains in lists]
    assert stats.kstest(first, stats.beta(1, 2).cdf).pvalue > RARE  # of a Dirichlet of three
    depths = Counter(len(chain.operations) for chains in lists for chain in chains)
    assert sorted(depths) == [1, 2, 3]
    assert stats.chisquare(list(depths.values())).pvalue > RARE
    names = {one.name for chains in lists for chain in chains for one in chain.operations}
    assert names == {kind.name for kind in auto._RAND_AUGMENT} - {"Identity"}
    few = {one.name for [chain] in drawn(AugMix(3, 1, 2, 1.0, False), 500) for one in chain[1]}
    assert few == names - set(ENHANCING)


def test_aug_mix_is_the_weighted_mean(photo: Pixels) -> None:
    canvas = Canvas(KERNELS)
    canvas.begin(photo)
    chains = [Chain(0.5, [Drawn("Solarize", 0)]), Chain(0.2, [Drawn("Identity", 0)])]
    AugMix().apply(canvas, chains)
    expected = 0.5 * (255 - photo.astype(float)) + 0.5 * photo
    assert np.abs(canvas.image - expected).max() <= 0.51


@pytest.mark.parametrize("operation", [RandAugment(), TrivialAugment(), AugMix()])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_of_any_channels_are_taken(photo: Pixels, operation: Any, channels: int) -> None:
    image = np.ascontiguousarray(np.dstack([photo, photo[..., :1]])[..., :channels])
    canvas = Canvas(KERNELS)
    for parameters in drawn(operation, 60):
        canvas.begin(image)
        operation.apply(canvas, parameters)
        assert canvas.image.shape == image.shape


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: RandAugment(magnitude=31), "`magnitude` must be from 0 to"),
        (lambda: RandAugment(num_ops=-1), "`num_ops` must be from 0 to 100"),
        (lambda: RandAugment(num_magnitude_bins=1), "`num_magnitude_bins` must be at least 2"),
        (lambda: ANY.RandAugment(interpolation="cubic"), "`interpolation` invalid"),
        (lambda: TrivialAugment(1), "`num_magnitude_bins` must be at least 2"),
        (lambda: AugMix(severity=11), "`severity` must be from 1 to 10"),
        (lambda: AugMix(mixture_width=0), "`mixture_width` must be from 1 to 100"),
        (lambda: AugMix(chain_depth=10**9), "`chain_depth` must be at most 100"),
        (lambda: RandAugment(fill_value=-1), "`fill_value` must be from 0 to 255"),
        (lambda: AugMix(alpha=0), "`alpha` must be positive"),
        (lambda: AugMix(alpha=float("nan")), "`alpha` must be finite"),
    ],
)
def test_wrong_arguments_are_refused(make: Any, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        make()
