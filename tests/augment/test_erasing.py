"""Erasing against Keras's layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from loaderd.augment.canvas import Canvas
from loaderd.augment.draws import Draws
from loaderd.augment.erasing import Erased, RandomErasing
from loaderd.errors import InvalidArgument
from loaderd.render.augmented import KERNELS

Pixels = NDArray[Any]

SIZE = (40, 60)
COLOR: Any = (1, 2)
TEXT: Any = "random"
CHANNELS = pytest.mark.parametrize("channels", [1, 3, 4])


def noisy(channels: int) -> Pixels:
    values = np.random.default_rng(channels).integers(0, 256, (*SIZE, channels))
    return values.astype(np.uint8)


def applied(operation: RandomErasing, image: Pixels, parameters: Erased | None) -> Pixels:
    canvas = Canvas(KERNELS)
    canvas.begin(image)
    operation.apply(canvas, parameters)
    return canvas.image


def drawn(
    operation: RandomErasing, count: int, size: tuple[int, int] = SIZE
) -> list[Erased | None]:
    draws = Draws(3)
    found = []
    for sample in range(count):
        draws.begin(0, sample, 0)
        found.append(operation.draw(draws, size))
    return found


def first(operation: RandomErasing, size: tuple[int, int] = SIZE) -> Erased:
    return next(one for one in drawn(operation, 50, size) if one is not None)


def erased_by_keras(image: Pixels, erased: Erased, fill_value: Any) -> Pixels:
    """The colours of the image, with Keras's fill value in the rectangle."""
    layer = keras.layers.RandomErasing(1.0, fill_value=fill_value)
    images = image[np.newaxis, :, :, :3].astype(np.float32)
    mask = np.zeros(images.shape, bool)
    mask[:, slice(*erased.rows), slice(*erased.columns)] = True
    transformation = {
        "apply_erasing": np.array([True]),
        "batch_masks": mask,
        "fill_value": layer._get_fill_value(images, images.shape, None),
    }
    return np.asarray(layer.transform_images(images, transformation)[0])


@pytest.mark.parametrize("fill_value", [0.0, 99.6, 300.0, (250.0, 3.0, -7.0)])
@CHANNELS
def test_the_rectangle_has_the_fill_value(fill_value: Any, channels: int) -> None:
    if channels == 1 and isinstance(fill_value, tuple):
        return  # Keras refuses it
    image = noisy(channels)
    operation = RandomErasing(fill_value=fill_value)
    erased = first(operation)
    found = applied(operation, image, erased)
    expected = erased_by_keras(image, erased, fill_value)
    assert found.shape == image.shape
    assert abs(found[:, :, :3] - expected).max() <= 0.5
    if channels == 4:
        assert (found[:, :, 3] == image[:, :, 3]).all()


def test_grey_images_have_the_first_of_three_fill_values() -> None:
    operation = RandomErasing(fill_value=(250, 3, 7))
    rows, columns, _ = erased = first(operation)
    found = applied(operation, noisy(1), erased)
    assert (found[slice(*rows), slice(*columns)] == 250).all()


@CHANNELS
def test_the_rectangle_has_noise_by_default(channels: int) -> None:
    image = noisy(channels)
    rows, columns, noise = erased = first(RandomErasing())
    assert noise is not None
    assert noise.shape == (rows[1] - rows[0], columns[1] - columns[0], 3)
    found = applied(RandomErasing(), image, erased)
    expected = image.astype(float)
    colors = min(channels, 3)
    expected[slice(*rows), slice(*columns), :3] = noise[:, :, :colors]
    assert (found == expected).all()


def test_noise_is_distributed_as_that_of_keras() -> None:
    size = (64, 64)
    operation = RandomErasing((1.0, 1.0), (1.0, 1.0))
    ours = applied(operation, np.zeros((*size, 3), np.uint8), first(operation, size))
    keras.utils.set_random_seed(1)
    layer = keras.layers.RandomErasing(1.0)
    shape = (1, *size, 3)
    theirs = np.asarray(layer._get_fill_value(np.zeros(shape, np.float32), shape, None))
    assert stats.ks_2samp(ours.ravel(), np.rint(theirs).ravel()).pvalue > 0.01


def by_keras(scale: tuple[float, float], count: int) -> NDArray[np.int64]:
    """(first row, rows, first column, columns) of rectangles that Keras draws."""
    keras.utils.set_random_seed(2)
    layer = keras.layers.RandomErasing(1.0, scale, fill_value=0.0)
    images = np.zeros((count, *SIZE, 1), np.float32)
    masks = np.asarray(layer.get_random_transformation(images)["batch_masks"])[..., 0]
    down, across = masks.any(2), masks.any(1)
    return np.stack([down.argmax(1), down.sum(1), across.argmax(1), across.sum(1)], 1)


def test_places_and_sizes_are_distributed_as_those_of_keras() -> None:
    scale = (0.02, 0.33)
    found = [one for one in drawn(RandomErasing((1.0, 1.0), scale, 0.0), 2000) if one is not None]
    assert len(found) == 2000
    ours = np.array(
        [(one.rows[0], np.ptp(one.rows), one.columns[0], np.ptp(one.columns)) for one in found]
    )
    for mine, theirs in zip(ours.T, by_keras(scale, 2000).T, strict=True):
        assert stats.ks_2samp(mine, theirs).pvalue > 0.01
    areas = ours[:, 1] * ours[:, 3] / (SIZE[0] * SIZE[1])
    assert 0.015 < areas.min() < areas.max() < 0.36


@pytest.mark.parametrize(("factor", "share"), [(1.0, 0.5), (0.4, 0.2), ((0.5, 0.7), 0.6)])
def test_a_share_of_images_is_erased(factor: Any, share: float) -> None:
    kept = drawn(RandomErasing(factor, fill_value=0.0), 4000).count(None)
    assert stats.binomtest(4000 - kept, 4000, share).pvalue > 0.01


def test_images_that_are_not_erased_are_kept() -> None:
    image = noisy(3)
    assert applied(RandomErasing(), image, None) is image


def test_the_image_that_was_given_is_not_changed() -> None:
    image = noisy(3)
    before = image.copy()
    found = applied(RandomErasing(), image, first(RandomErasing()))
    assert (found != image).any()
    assert (image == before).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (3, 2)])
def test_tiny_images_are_fine(size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 7, np.uint8)
    for scale in ((0.02, 0.33), (0.0, 0.0), (1.0, 1.0)):
        for erased in drawn(RandomErasing(scale=scale), 50, size):
            assert applied(RandomErasing(scale=scale), image, erased).shape == image.shape


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: RandomErasing(1.5), "RandomErasing: `factor` must be .* from 0 to 1"),
        (lambda: RandomErasing(scale=(0.4, 0.3)), "RandomErasing: `scale` must be"),
        (lambda: RandomErasing(scale=(-0.1, 0.3)), "RandomErasing: `scale` must be"),
        (lambda: RandomErasing(fill_value=COLOR), "RandomErasing: `fill_value` expected"),
        (lambda: RandomErasing(fill_value=TEXT), "RandomErasing: `fill_value` expected"),
    ],
)
def test_wrong_arguments_are_refused(make: Callable[[], Any], text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        make()
