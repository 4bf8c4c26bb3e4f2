"""Crops and resizes against torchvision's algorithm, PIL, and Keras's layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import stats

from loaderd.augment.canvas import Canvas
from loaderd.augment.crops import (
    Box,
    CenterCrop,
    RandomCrop,
    RandomResizedCrop,
    Resize,
    largest_box,
)
from loaderd.augment.draws import Draws
from loaderd.augment.operation import ImageOperation, Size
from loaderd.errors import InvalidArgument
from loaderd.render.augmented import KERNELS

Pixels = NDArray[Any]

CHANNELS = pytest.mark.parametrize("channels", [1, 3, 4])
FILTERS = ["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"]
EXTREME = [((10, 1000), (300, 7)), ((1000, 3), (5, 64)), ((1, 40), (80, 1)), ((1, 1), (9, 4))]


def noisy(size: Size, channels: int = 3) -> Pixels:
    values = np.random.default_rng(channels).integers(0, 256, (*size, channels))
    if channels == 4:
        values[:, :, 3] = 255  # PIL multiplies colours by alpha before it resizes
    return values.astype(np.uint8)


def applied(operation: ImageOperation, image: Pixels, parameters: Any = None) -> Pixels:
    canvas = Canvas(KERNELS)
    canvas.begin(image)
    operation.apply(canvas, parameters)
    return canvas.image


def drawn(operation: ImageOperation, size: Size, count: int) -> list[Any]:
    draws = Draws(5)
    found = []
    for sample in range(count):
        draws.begin(1, sample, 0)
        found.append(operation.draw(draws, size))
    return found


def resized(image: Pixels, size: Size, interpolation: str, box: Any = None) -> Pixels:
    """By PIL: cropped, then resized, as torchvision does it."""
    height, width = size
    picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    how = Image.Resampling[interpolation.upper()]
    part = picture if box is None else picture.crop(box)
    return np.asarray(part.resize((width, height), how)).reshape(*size, -1)


def assert_near(found: Pixels, expected: Any) -> None:
    assert found.shape == expected.shape
    assert abs(found.astype(float) - np.asarray(expected, float)).max() <= 1


def counted(places: NDArray[np.int64], shape: tuple[int, int]) -> NDArray[np.int64]:
    """How often each place of a grid occurs."""
    return np.bincount(np.ravel_multi_index(tuple(places.T), shape), minlength=math.prod(shape))


def torchvision_box(
    random: np.random.Generator, size: Size, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[int, int, int, int]:
    """(top, left, height, width): ``RandomResizedCrop.make_params`` of torchvision."""
    height, width = size
    for _ in range(10):
        area = height * width * random.uniform(*scale)
        shape = math.exp(random.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if 0 < w <= width and 0 < h <= height:
            top = int(random.integers(0, height - h + 1))
            return top, int(random.integers(0, width - w + 1)), h, w
    shape = width / height
    if shape < min(ratio):
        w, h = width, round(width / min(ratio))
    elif shape > max(ratio):
        w, h = round(height * max(ratio)), height
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w


def as_torchvision(box: Box) -> tuple[float, float, float, float]:
    return box.top, box.left, box.bottom - box.top, box.right - box.left


@pytest.mark.parametrize(
    ("size", "scale", "ratio"),
    [
        ((375, 500), (0.08, 1.0), (3 / 4, 4 / 3)),  # the defaults
        ((500, 375), (0.08, 1.0), (3 / 4, 4 / 3)),
        ((300, 900), (0.5, 1.0), (3 / 4, 4 / 3)),  # some do not fit
        ((256, 256), (0.1, 0.3), (0.2, 5.0)),
    ],
)
def test_parts_are_distributed_as_those_of_torchvision(
    size: Size, scale: tuple[float, float], ratio: tuple[float, float]
) -> None:
    operation = RandomResizedCrop(32, 32, scale, ratio)
    ours = np.array([as_torchvision(box) for box in drawn(operation, size, 4000)])
    random = np.random.default_rng(3)
    theirs = np.array([torchvision_box(random, size, scale, ratio) for _ in range(4000)])

    def features(parts: NDArray[Any]) -> list[NDArray[Any]]:
        """Area, log ratio, and place within the room that there is."""
        top, left, height, width = parts.T
        room = [np.maximum(length - 1, 1) for length in (size[0] - height, size[1] - width)]
        return [height * width, np.log(width / height), top / room[0], left / room[1]]

    for mine, other in zip(features(ours), features(theirs), strict=True):
        assert stats.ks_2samp(mine, other).pvalue > 0.01


def test_area_and_log_ratio_are_uniform_where_all_parts_fit() -> None:
    size = (2000, 2000)  # so large that rounding to pixels does not show
    parts = drawn(RandomResizedCrop(8, 8, (0.05, 0.5), (0.5, 2.0)), size, 4000)
    _, _, height, width = np.array([as_torchvision(box) for box in parts]).T
    area = stats.uniform(0.05, 0.45)
    assert stats.kstest(height * width / 2000**2, area.cdf).pvalue > 0.01
    shape = stats.uniform(math.log(0.5), math.log(4))
    assert stats.kstest(np.log(width / height), shape.cdf).pvalue > 0.01


def test_all_places_are_equally_likely() -> None:
    parts = drawn(RandomResizedCrop(8, 8, (0.25, 0.25), (1.0, 1.0)), (10, 14), 5000)
    assert {as_torchvision(box)[2:] for box in parts} == {(6, 6)}
    places = np.array([as_torchvision(box)[:2] for box in parts])
    assert stats.chisquare(counted(places, (5, 9))).pvalue > 0.01


@pytest.mark.parametrize("size", [(10, 1000), (1000, 10), (7, 100), (50, 50), (5, 7)])
@pytest.mark.parametrize("ratio", [(3 / 4, 4 / 3), (0.9, 1.1), (2.0, 3.0)])
def test_the_part_of_last_resort_is_that_of_torchvision(
    size: Size, ratio: tuple[float, float]
) -> None:
    operation = RandomResizedCrop(8, 8, (4.0, 4.0), ratio)  # never fits
    expected = torchvision_box(np.random.default_rng(0), size, (4.0, 4.0), ratio)
    assert [as_torchvision(box) for box in drawn(operation, size, 3)] == [expected] * 3


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (2, 3)])
def test_parts_of_extreme_images_lie_within_them(size: Size) -> None:
    for ratio in ((3 / 4, 4 / 3), (0.01, 0.01), (100.0, 100.0)):
        operation = RandomResizedCrop(4, 6, ratio=ratio)
        for box in drawn(operation, size, 50):
            assert 0 <= box.left < box.right <= size[1]
            assert 0 <= box.top < box.bottom <= size[0]
            assert applied(operation, noisy(size), box).shape == (4, 6, 3)


@CHANNELS
@pytest.mark.parametrize("interpolation", FILTERS)
def test_parts_are_resized_as_pil_does(interpolation: Any, channels: int) -> None:
    """As torchvision, which crops first, but that pixels beside the part count at its edges."""
    image = noisy((61, 83), channels)
    for target in ((16, 16), (90, 40)):
        operation = RandomResizedCrop(*target, interpolation=interpolation)
        for box in drawn(operation, (61, 83), 5):
            expected = resized(image, target, interpolation, tuple(box))
            assert_near(applied(operation, image, box), expected)


@CHANNELS
@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("target", [(16, 30), (61, 83), (100, 40), (1, 1)])
def test_images_are_resized_as_pil_does(target: Size, interpolation: Any, channels: int) -> None:
    image = noisy((61, 83), channels)
    found = applied(Resize(*target, interpolation), image)
    assert_near(found, resized(image, target, interpolation))


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_enlarged_images_are_those_of_keras(interpolation: Any) -> None:
    image = noisy((20, 30))  # no pixel of the result is as near to two of the image's
    expected = keras.layers.Resizing(60, 64, interpolation)(image[np.newaxis])[0]
    assert_near(applied(Resize(60, 64, interpolation), image), expected)


@pytest.mark.parametrize(
    ("size", "target"), [((61, 83), (16, 16)), ((40, 200), (64, 64)), ((200, 40), (30, 10))]
)
def test_crop_to_aspect_ratio_takes_the_part_that_keras_takes(size: Size, target: Size) -> None:
    image = noisy(size)
    box = keras_box(size, target)
    found = applied(Resize(*target, crop_to_aspect_ratio=True), image)
    assert_near(found, resized(image, target, "bilinear", box))


def keras_box(size: Size, target: Size) -> Box:
    """The part that ``keras.utils`` cuts out before it resizes."""
    rows, columns = np.indices(size)
    whole = np.stack([rows, columns], -1).astype(np.float32)
    # Nearest neighbours of an enlarged image hold the first and the last pixel.
    grown = (target[0] * 64, target[1] * 64)
    found = np.asarray(
        keras.preprocessing.image.smart_resize(whole, grown, interpolation="nearest")
    )
    (top, left), (bottom, right) = found[0, 0].astype(int), found[-1, -1].astype(int) + 1
    return Box(left, top, right, bottom)


@pytest.mark.parametrize(
    ("size", "target"),
    [((61, 83), (16, 16)), ((40, 201), (64, 64)), ((200, 41), (30, 10)), ((33, 32), (7, 9))],
)
def test_the_largest_part_is_that_of_keras(size: Size, target: Size) -> None:
    assert largest_box(size, target) == keras_box(size, target)


@pytest.mark.parametrize(("size", "target"), EXTREME)
def test_the_largest_part_of_extreme_shapes_has_a_pixel(size: Size, target: Size) -> None:
    box = largest_box(size, target)
    assert box == keras_box(size, target)
    assert box.right > box.left
    assert box.bottom > box.top
    for operation in (Resize(*target, crop_to_aspect_ratio=True), CenterCrop(*target)):
        assert applied(operation, noisy(size)).shape == (*target, 3)


@CHANNELS
@pytest.mark.parametrize("size", [(30, 40), (31, 41), (20, 16), (20, 90)])
def test_the_centre_is_that_of_keras(size: Size, channels: int) -> None:
    image = noisy(size, channels)
    expected = keras.layers.CenterCrop(20, 16)(image[np.newaxis])[0]
    assert_near(applied(CenterCrop(20, 16), image), expected)


SMALLER = pytest.mark.parametrize("size", [(30, 90), (90, 30), (20, 20), (63, 65), (10, 64)])


@SMALLER
@CHANNELS
def test_smaller_images_are_enlarged_as_keras_does(size: Size, channels: int) -> None:
    image, target = noisy(size, channels), (64, 64)
    expected = np.asarray(keras.layers.CenterCrop(*target)(image[np.newaxis])[0])
    for operation in (CenterCrop(*target), RandomCrop(*target)):
        found = applied(operation, image)
        assert found.shape == expected.shape
        assert_near(found, expected)


@SMALLER
def test_smaller_images_have_no_place_to_draw(size: Size) -> None:
    assert drawn(RandomCrop(64, 64), size, 3) == [None] * 3


@CHANNELS
def test_a_random_part_is_that_of_keras(channels: int) -> None:
    image = noisy((40, 50), channels)
    layer = keras.layers.RandomCrop(32, 24)
    for left, top in drawn(RandomCrop(32, 24), (40, 50), 10):
        expected = layer.transform_images(image[np.newaxis], (top, left))[0]
        assert_near(applied(RandomCrop(32, 24), image, (left, top)), expected)


def test_random_parts_lie_everywhere_as_likely() -> None:
    places = np.array(drawn(RandomCrop(32, 24), (36, 30), 20_000))
    assert stats.chisquare(counted(places, (7, 5))).pvalue > 0.01


def test_images_of_one_side_of_the_result_are_cropped_along_the_other() -> None:
    """Keras takes their centre."""
    places = np.array(drawn(RandomCrop(32, 24), (32, 30), 3000))
    assert set(places[:, 1]) == {0}
    assert stats.chisquare(np.bincount(places[:, 0], minlength=7)).pvalue > 0.01


@pytest.mark.parametrize(
    "operation", [Resize(8, 9), CenterCrop(8, 9), RandomCrop(8, 9), RandomResizedCrop(8, 9)]
)
def test_all_make_images_of_their_size(operation: ImageOperation) -> None:
    assert operation.sets_size == (8, 9)
    image = noisy((20, 30))
    (parameters,) = drawn(operation, (20, 30), 1)
    assert applied(operation, image, parameters).shape == (8, 9, 3)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Resize(0, 5), "Resize: `height` must be positive"),
        (lambda: RandomResizedCrop(5, 5, (1e300, 1e308)), "`scale` must be"),
        (lambda: CenterCrop(5, -1), "CenterCrop: `width` must be positive"),
        (lambda: RandomCrop(5.5, 5), "RandomCrop: `height` expected"),  # type: ignore[arg-type]
        (lambda: Resize(5, 5, "area"), "Resize: `interpolation`"),  # type: ignore[arg-type]
        (lambda: RandomResizedCrop(5, 5, (0.0, 1.0)), "RandomResizedCrop: `scale` must be"),
        (lambda: RandomResizedCrop(5, 5, (0.5, 0.1)), "RandomResizedCrop: `scale` must be"),
        (lambda: RandomResizedCrop(5, 5, ratio=(2.0, 1.0)), "RandomResizedCrop: `ratio` must be"),
        (lambda: RandomResizedCrop(5, 5, (0.1, math.inf)), "RandomResizedCrop: `scale` must be"),
        (lambda: RandomResizedCrop(5, 5, ratio=(1, math.inf)), "`ratio` must be"),
        (lambda: RandomResizedCrop(5, 5, (math.nan, 1.0)), "RandomResizedCrop: `scale` must be"),
    ],
)
def test_wrong_arguments_are_refused(make: Callable[[], Any], text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        make()
