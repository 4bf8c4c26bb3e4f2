"""Sharpness, blur, noise and compression against Keras's layers and PIL."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from scipy import stats

from loaderd.augment.canvas import Canvas
from loaderd.augment.draws import Draws
from loaderd.augment.filters import (
    JPEG,
    GaussianNoise,
    RandomGaussianBlur,
    RandomSharpness,
    sharpened,
)
from loaderd.augment.operation import ImageOperation
from loaderd.errors import InvalidArgument, RenderError
from loaderd.render.augmented import KERNELS

Pixels = NDArray[Any]

SIZE = (37, 53)
CHANNELS = pytest.mark.parametrize("channels", [1, 3, 4])
DEFAULTS = [RandomSharpness(1.0), RandomGaussianBlur(), GaussianNoise(20), JPEG(50)]


def noisy(channels: int, size: tuple[int, int] = SIZE) -> Pixels:
    """Values of all levels, and many of 0 and 255, where filters overshoot."""
    values = np.random.default_rng(channels).integers(-100, 356, (*size, channels))
    return values.clip(0, 255).astype(np.uint8)


def changed(image: Pixels, change: Callable[[Canvas], None]) -> Pixels:
    canvas = Canvas(KERNELS)
    canvas.begin(image)
    change(canvas)
    return canvas.image


def applied(operation: ImageOperation, image: Pixels, parameters: Any) -> Pixels:
    return changed(image, lambda canvas: operation.apply(canvas, parameters))


def drawn(operation: ImageOperation, count: int, size: tuple[int, int] = SIZE) -> list[Any]:
    draws = Draws(7)
    found = []
    for sample in range(count):
        draws.begin(0, sample, 0)
        found.append(operation.draw(draws, size))
    return found


def assert_near(found: Pixels, image: Pixels, expected: Any, tolerance: float = 1) -> None:
    """The colours are as expected, and alpha is that of the image."""
    assert found.dtype == np.uint8
    assert found.shape == image.shape
    difference = found[:, :, :3].astype(float) - np.asarray(expected, float)
    assert abs(difference).max() <= tolerance
    if image.shape[2] == 4:
        assert (found[:, :, 3] == image[:, :, 3]).all()


@CHANNELS
@pytest.mark.parametrize("factor", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_sharpness_is_that_of_keras(factor: float, channels: int) -> None:
    image = noisy(channels)
    layer = keras.layers.RandomSharpness(factor)
    transformation = {"factor": np.array([factor], np.float32)}
    expected = layer.transform_images(image[np.newaxis, :, :, :3], transformation)[0]
    found = applied(RandomSharpness(factor), image, 2 * factor)
    assert_near(found, image, expected)


@CHANNELS
@pytest.mark.parametrize("factor", [0.0, 0.1, 1.0, 1.9])
@pytest.mark.parametrize("size", [SIZE, (1, 1), (2, 9), (3, 3)])
def test_sharpened_is_that_of_pil(size: tuple[int, int], factor: float, channels: int) -> None:
    image = noisy(channels, size)
    picture = Image.fromarray(image[:, :, 0] if channels == 1 else image[:, :, :3])
    enhanced = np.asarray(ImageEnhance.Sharpness(picture).enhance(factor))
    found = changed(image, lambda canvas: sharpened(canvas, factor))
    assert_near(found, image, enhanced.reshape(*size, -1))


def test_sharpness_is_uniform() -> None:
    factors = drawn(RandomSharpness((0.25, 0.75)), 2000)
    assert stats.kstest(factors, stats.uniform(0.5, 1.0).cdf).pvalue > 0.01
    assert max(drawn(RandomSharpness(0.25), 100)) <= 0.5


@CHANNELS
@pytest.mark.parametrize("kernel_size", [1, 3, 9, 23])
@pytest.mark.parametrize("sigmas", [(1e-6, 1e-6), (0.3, 0.9), (1.0, 1e-6), (2.0, 1.3)])
def test_blur_is_that_of_keras(
    sigmas: tuple[float, float], kernel_size: int, channels: int
) -> None:
    image = noisy(channels)
    layer = keras.layers.RandomGaussianBlur(kernel_size=kernel_size)
    transformation = {
        "should_apply_blur": np.array([True]),
        "blur_factor": np.array(sigmas, np.float32),
    }
    expected = layer.transform_images(image[np.newaxis, :, :, :3], transformation)[0]
    found = applied(RandomGaussianBlur(kernel_size=kernel_size), image, sigmas)
    assert_near(found, image, expected)


def test_kernels_have_a_width_and_a_height() -> None:
    image = np.zeros((9, 9, 3), np.uint8)
    image[4, 4] = 255
    blurred = applied(RandomGaussianBlur(kernel_size=(5, 3)), image, (9.0, 9.0))
    rows, columns = np.nonzero(blurred[:, :, 0])
    assert set(rows.tolist()) == {3, 4, 5}
    assert set(columns.tolist()) == {2, 3, 4, 5, 6}


def test_sigmas_are_uniform_and_independent() -> None:
    sigmas = np.array(drawn(RandomGaussianBlur((1.0, 1.0), sigma=(0.1, 2.0)), 2000))
    for column in sigmas.T:
        assert stats.kstest(column, stats.uniform(0.1, 1.9).cdf).pvalue > 0.01
    assert stats.pearsonr(*sigmas.T).pvalue > 0.01


@pytest.mark.parametrize(("factor", "share"), [(1.0, 0.5), (0.4, 0.2), ((0.5, 0.7), 0.6)])
def test_a_share_of_images_is_blurred(factor: Any, share: float) -> None:
    kept = drawn(RandomGaussianBlur(factor), 4000).count(None)
    assert stats.binomtest(4000 - kept, 4000, share).pvalue > 0.01


def test_images_that_are_not_blurred_are_kept() -> None:
    image = noisy(3)
    assert applied(RandomGaussianBlur(), image, None) is image


@CHANNELS
def test_noise_is_added_rounded_and_clipped(channels: int) -> None:
    image = noisy(channels)
    operation = GaussianNoise(40)
    (noise,) = drawn(operation, 1)
    expected = np.clip(image[:, :, :3] + 40 * noise[:, :, : min(channels, 3)], 0, 255)
    assert_near(applied(operation, image, noise), image, expected, 0.501)


def test_noise_is_normal_in_every_channel() -> None:
    grey = np.full((64, 64, 3), 128, np.uint8)
    operation = GaussianNoise(12)
    (noise,) = drawn(operation, 1, (64, 64))
    added = applied(operation, grey, noise).astype(float) - 128
    for channel in range(3):
        assert stats.kstest(noise[:, :, channel].ravel(), stats.norm.cdf).pvalue > 0.01
        assert added[:, :, channel].std() == pytest.approx(12, rel=0.05)
    assert abs(np.corrcoef(noise.reshape(-1, 3).T) - np.eye(3)).max() < 0.05


@CHANNELS
@pytest.mark.parametrize("quality", [1, 30, 75, 95, 100])
@pytest.mark.parametrize("size", [SIZE, (1, 1), (16, 17)])
def test_compression_gives_the_pixels_of_pil(
    size: tuple[int, int], quality: int, channels: int
) -> None:
    image = noisy(channels, size)
    file = io.BytesIO()
    picture = Image.fromarray(image[:, :, 0] if channels == 1 else image[:, :, :3])
    picture.save(file, "jpeg", quality=quality)
    expected = np.asarray(Image.open(file)).reshape(*size, -1)
    # Other versions of libjpeg may round another way.
    assert_near(applied(JPEG(quality), image, quality), image, expected)


def test_qualities_are_equally_likely_and_include_both_ends() -> None:
    qualities, counts = np.unique(drawn(JPEG((20, 29)), 3000), return_counts=True)
    assert list(qualities) == list(range(20, 30))
    assert stats.chisquare(counts).pvalue > 0.01
    assert set(drawn(JPEG(75), 10)) == {75}


@CHANNELS
@pytest.mark.parametrize("operation", DEFAULTS, ids=lambda one: type(one).__name__)
def test_every_filter_changes_images_but_not_those_that_it_was_given(
    operation: ImageOperation, channels: int
) -> None:
    image = noisy(channels)
    before = image.copy()
    parameters = next(one for one in drawn(operation, 20) if one is not None)
    found = applied(operation, image, parameters)
    assert found.flags.c_contiguous
    assert (found[:, :, 0] != before[:, :, 0]).mean() > 0.5
    assert (image == before).all()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: RandomSharpness(1.5), "RandomSharpness: `factor` must be .* from 0 to 1"),
        (lambda: RandomSharpness((0.8, 0.2)), "RandomSharpness: `factor` must be"),
        (lambda: RandomSharpness(float("nan")), "RandomSharpness: `factor` must be"),
        (lambda: RandomSharpness("much"), "RandomSharpness: `factor` expected"),  # type: ignore[arg-type]
        (lambda: RandomGaussianBlur(-0.1), "RandomGaussianBlur: `factor` must be"),
        (lambda: RandomGaussianBlur(kernel_size=4), "`kernel_size` must be odd"),
        (lambda: RandomGaussianBlur(kernel_size=(3, -1)), "`kernel_size` must be odd"),
        (lambda: RandomGaussianBlur(sigma=(2.0, 1.0)), "`sigma` must be"),
        (lambda: RandomGaussianBlur(sigma=float("inf")), "`sigma` must be"),
        (lambda: GaussianNoise(-1), "GaussianNoise: `stddev` must be from 0 to 255"),
        (lambda: JPEG(0), "JPEG: `quality` must be .* from 1 to 100"),
        (lambda: JPEG((90, 50)), "JPEG: `quality` must be"),
        (lambda: JPEG(50.5), "JPEG: `quality` expected"),  # type: ignore[arg-type]
    ],
)
def test_wrong_arguments_are_refused(make: Callable[[], Any], text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        make()


def test_a_side_beyond_libjpegs_is_refused_in_one_line() -> None:
    with pytest.raises(RenderError, match="JPEG takes up to 65500 pixels each way") as caught:
        applied(JPEG(80), np.zeros((2, 65_501, 3), np.uint8), 80)
    assert "\n" not in str(caught.value)


def test_a_kernel_of_any_size_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="`kernel_size` must be odd, and from 1 to 255"):
        RandomGaussianBlur(kernel_size=10**9 + 1)
