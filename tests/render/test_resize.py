"""Resizing is Keras's, for every filter, size and aspect."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from loaderd.errors import BadImage
from loaderd.render.load.resize import FILTERS, crop_box, pad_margins
from loaderd.spec.base import Aspect, ColorMode, Interpolation
from tests.support.specs import rendering, resizer

Pixels = NDArray[Any]
Pipe = Callable[..., Pixels]
Noisy = Callable[..., Image.Image]

INTERPOLATIONS = st.sampled_from(sorted(FILTERS))
COLOR_MODES: list[ColorMode] = ["rgb", "rgba", "grayscale"]
KERAS_ASPECTS: list[Aspect] = ["stretch", "crop"]


def sizes(largest: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(1, largest), st.integers(1, largest))


@settings(max_examples=250, deadline=None)
@given(
    size=sizes(120),
    target=sizes(60),
    interpolation=INTERPOLATIONS,
    aspect=st.sampled_from(KERAS_ASPECTS),
    color_mode=st.sampled_from(COLOR_MODES),
    name=st.sampled_from(["sized.jpg", "sized.png"]),
)
@example((40, 30), (40, 30), "bicubic", "crop", "rgb", "sized.jpg")
@example((40, 90), (20, 30), "nearest", "crop", "rgb", "sized.jpg")
@example((2, 12), (7, 7), "nearest", "crop", "rgb", "sized.jpg")  # where PIL's rounding shows
@example((1, 100), (50, 1), "nearest", "crop", "rgb", "sized.jpg")  # nothing is left to crop
def test_a_resized_file_has_the_pixels_of_keras(
    folder: Path,
    noisy: Noisy,
    ours: Pipe,
    keras_pixels: Pipe,
    size: tuple[int, int],
    target: tuple[int, int],
    interpolation: Interpolation,
    aspect: Aspect,
    color_mode: ColorMode,
    name: str,
) -> None:
    noisy(*size).save(folder / name)
    pipeline = rendering(
        target_size=target, interpolation=interpolation, aspect=aspect, color_mode=color_mode
    )
    try:
        expected = keras_pixels(folder / name, pipeline)
    except ValueError:
        with pytest.raises(BadImage):
            ours(folder / name, pipeline)
    else:
        np.testing.assert_array_equal(ours(folder / name, pipeline), expected)


@settings(max_examples=100, deadline=None)
@given(size=sizes(80), target=sizes(60), interpolation=INTERPOLATIONS)
def test_transparent_pictures_resize_as_in_keras(
    folder: Path,
    ours: Pipe,
    keras_pixels: Pipe,
    size: tuple[int, int],
    target: tuple[int, int],
    interpolation: Interpolation,
) -> None:
    pixels = np.random.default_rng(size).integers(0, 256, (*size, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "clear.png")
    pipeline = rendering(target_size=target, interpolation=interpolation, color_mode="rgba")
    np.testing.assert_array_equal(
        ours(folder / "clear.png", pipeline), keras_pixels(folder / "clear.png", pipeline)
    )


@settings(max_examples=500, deadline=None)
@given(length=st.integers(1, 9000), target=st.integers(1, 2000), along=st.sampled_from([0, 1]))
def test_opencv_picks_the_nearest_pixels_that_pil_picks(
    length: int, target: int, along: int
) -> None:
    """Which pixel is picked depends on each axis alone, so one axis at a time will do."""
    number = np.arange(length)
    line = np.stack([number % 256, number // 256, number * 0], 1).astype(np.uint8)
    picture = line[np.newaxis] if along else line[:, np.newaxis]
    resize = resizer((1, target) if along else (target, 1), "nearest", "stretch")
    np.testing.assert_array_equal(resize(picture), resize(Image.fromarray(picture)))


@settings(max_examples=100, deadline=None)
@given(size=sizes(60), target=sizes(40))
def test_arrays_are_padded_as_pil_images_are(
    noisy: Noisy, size: tuple[int, int], target: tuple[int, int]
) -> None:
    resize, picture = resizer(target, "nearest", "pad"), noisy(*size)
    expected = resize(picture)
    np.testing.assert_array_equal(resize(np.asarray(picture)), expected)


def test_crop_differs_from_stretch(tmp_path: Path, noisy: Noisy, ours: Pipe) -> None:
    noisy(20, 60).save(tmp_path / "wide.png")
    crop, stretch, pad = (
        ours(tmp_path / "wide.png", rendering(target_size=(20, 20), aspect=aspect))
        for aspect in ("crop", "stretch", "pad")
    )
    assert not (crop == stretch).all()
    assert not (pad == stretch).all()


def test_crop_takes_the_centre() -> None:
    assert crop_box((60, 20), (10, 10)) == (20, 0, 40, 20)
    assert crop_box((20, 60), (10, 10)) == (0, 20, 20, 40)


# Padding


def untied(length: int, target: int) -> NDArray[np.intp]:
    """The target's pixels whose centres lie on no edge between two source pixels."""
    places = (np.arange(target) + 0.5) * length / target
    return np.flatnonzero(abs(places - places.round()) > 1e-3)


@settings(max_examples=100, deadline=None)
@given(size=sizes(60), target=sizes(40))
@example((20, 60), (10, 10))
@example((3, 8), (5, 5))
def test_padded_pictures_are_those_of_keras(
    noisy: Noisy, size: tuple[int, int], target: tuple[int, int]
) -> None:
    from keras import ops

    picture = noisy(*size)
    padded = np.asarray(resizer(target, "nearest", "pad")(picture))
    pixels = np.asarray(picture, np.float32)
    expected = ops.image.resize(pixels, target, interpolation="nearest", pad_to_aspect_ratio=True)
    columns, rows = pad_margins(picture.size, target[::-1])
    sure = np.ix_(untied(size[0] + 2 * rows, target[0]), untied(size[1] + 2 * columns, target[1]))
    np.testing.assert_array_equal(padded[sure], ops.convert_to_numpy(expected)[sure])


def test_a_padded_picture_lies_between_equal_black_margins(noisy: Noisy) -> None:
    picture = noisy(20, 60)
    padded = np.asarray(resizer((60, 60), "nearest", "pad")(picture))
    assert pad_margins((60, 20), (60, 60)) == (0, 20)
    assert not padded[:20].any()
    assert not padded[40:].any()
    np.testing.assert_array_equal(padded[20:40], np.asarray(picture))


@pytest.mark.parametrize("color_mode", COLOR_MODES)
@pytest.mark.parametrize("name", ["pad.jpg", "pad.png"])
def test_every_colour_mode_can_be_padded(
    name: str, color_mode: ColorMode, tmp_path: Path, noisy: Noisy, ours: Pipe
) -> None:
    noisy(10, 30).save(tmp_path / name)
    pixels = ours(
        tmp_path / name, rendering(target_size=(30, 30), color_mode=color_mode, aspect="pad")
    )
    assert pixels[10:20].any(axis=2).mean() > 0.9
    assert not pixels[:10].any()
    assert not pixels[20:].any()


@pytest.mark.parametrize("mode", ["RGB", "RGBX", "RGBA", "L", "I;16", "I"])
def test_pictures_of_all_modes_one_after_the_other_come_as_numpy_sees_them(mode: str) -> None:
    resize = resizer((6, 9), "nearest", "stretch")
    channels = len(mode) if mode in ("RGBX", "RGBA") else 3 if mode == "RGB" else 1
    for seed in range(3):
        pixels = np.random.default_rng(seed).integers(0, 256, (6, 9, channels), np.uint8)
        image = Image.fromarray(pixels if channels == 3 else pixels[..., 0])
        if channels == 4:
            image = Image.frombuffer(mode, (9, 6), pixels.copy(), "raw", mode, 0, 1)
        elif channels == 1:
            image = image.convert("I").convert(mode) if mode != "L" else image
        expected = np.asarray(image)[..., :3] if mode == "RGBX" else np.asarray(image)
        np.testing.assert_array_equal(resize(image), expected.reshape(6, 9, -1))
