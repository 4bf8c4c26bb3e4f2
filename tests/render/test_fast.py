"""Flips, the rescale and the dtype are Keras's, bit by bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from loaderd.render.fast import flip, write
from loaderd.spec.base import ColorMode, DType
from loaderd.spec.transform import Transform
from tests.support.specs import moving

Pixels = NDArray[Any]
Pipe = Callable[..., Pixels]

COLOR_MODES: list[ColorMode] = ["rgb", "rgba", "grayscale"]
FLIPS = [
    Transform(flip_horizontal=h, flip_vertical=v) for h in (False, True) for v in (False, True)
]


@pytest.mark.parametrize("transform", FLIPS)
@pytest.mark.parametrize("color_mode", COLOR_MODES)
@pytest.mark.parametrize(
    ("dtype", "rescale"), [("float32", None), ("float32", 1 / 255), ("uint8", None), ("uint8", 0)]
)
def test_a_flipped_row_is_that_of_keras(
    tmp_path: Path,
    noisy: Callable[..., Image.Image],
    ours: Pipe,
    keras_pixels: Pipe,
    transform: Transform,
    color_mode: ColorMode,
    dtype: DType,
    rescale: float | None,
) -> None:
    noisy(31, 44).save(tmp_path / "a.jpg")
    pipeline = moving(
        target_size=(17, 23),
        color_mode=color_mode,
        interpolation="bilinear",
        dtype=dtype,
        rescale=rescale,
    )
    np.testing.assert_array_equal(
        ours(tmp_path / "a.jpg", pipeline, transform),
        keras_pixels(tmp_path / "a.jpg", pipeline, transform),
    )


@settings(max_examples=200, deadline=None)
@given(rescale=st.floats(-1e6, 1e6), dtype=st.sampled_from(["uint8", "uint16", "int32"]))
def test_the_rescale_is_that_of_keras_for_every_factor(rescale: float, dtype: str) -> None:
    top = min(np.iinfo(dtype).max, 2**31 - 1)
    image = np.random.default_rng(0).integers(0, top, (5, 6, 1), endpoint=True).astype(dtype)
    expected = image.astype(np.float32)
    if rescale:
        expected *= rescale
    row = np.empty((5, 6, 1), np.float32)
    write(image, rescale, row)
    np.testing.assert_array_equal(row, expected)


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "int16"])
@pytest.mark.parametrize("kind", ["uint8", "float32", "uint16"])
@pytest.mark.parametrize("rescale", [None, 0, 0.3])
def test_every_row_gets_what_float32_makes_of_the_image(
    dtype: str, kind: str, rescale: float | None
) -> None:
    image = np.arange(5 * 6 * 3).reshape(5, 6, 3).astype(kind)
    expected = image.astype(np.float32)
    if rescale:
        expected *= rescale
    for row in (np.zeros((5, 6, 3), dtype), np.zeros((3, 5, 6), dtype).transpose(1, 2, 0)):
        write(image, rescale, row)
        np.testing.assert_array_equal(row, expected.astype(dtype))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.uint16])
@pytest.mark.parametrize("channels", [1, 3, 4, 6])
def test_a_flip_into_a_row_is_the_flip(channels: int, dtype: type[np.generic]) -> None:
    """Whether the row is filled or not, what comes back is the result."""
    image = np.arange(5 * 7 * channels).reshape(5, 7, channels).astype(dtype)
    for transform in FLIPS:
        row = np.zeros_like(image)
        np.testing.assert_array_equal(flip(image, transform.flip, row), flip(image, transform.flip))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_kind_of_picture_can_be_flipped(channels: int, dtype: type[np.generic]) -> None:
    image = np.arange(5 * 7 * channels).reshape(5, 7, channels).astype(dtype)
    image.flags.writeable = False
    for transform in FLIPS:
        expected = image[:: -1 if transform.flip_vertical else 1]
        expected = expected[:, :: -1 if transform.flip_horizontal else 1]
        np.testing.assert_array_equal(flip(image, transform.flip), expected)
