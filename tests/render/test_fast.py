"""Flips, arithmetic and dtypes of the kernels are Keras's, to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from loaderd.render.fast import FastFinish, is_fast
from loaderd.render.general import GeneralFinish, random_operations
from loaderd.spec.base import ColorMode, DataFormat, DType, Preprocessing
from loaderd.spec.operations import FeaturewiseNormalization
from loaderd.spec.spec import Spec
from loaderd.spec.transform import Transform
from scripts.benchmarks.file_renderer import FileRenderer
from tests.support.specs import moving, rendering, with_transform

Pixels = NDArray[Any]
Pipe = Callable[..., Pixels]

COLOR_MODES: list[ColorMode] = ["rgb", "rgba", "grayscale"]
CHANNELS: dict[int, ColorMode] = {1: "grayscale", 3: "rgb", 4: "rgba"}
FLIPS = [
    Transform(flip_horizontal=h, flip_vertical=v) for h in (False, True) for v in (False, True)
]


def finished(image: Pixels, spec: Spec, transform: Transform | None = None) -> Pixels:
    row = np.full(spec.image_shape, 77, spec.output.dtype)
    parameters = transform or Transform()
    FileRenderer(spec).finish_one(image, parameters, row)
    return row


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
    spec = rendering(target_size=(5, 6), color_mode="grayscale", rescale=rescale or None)
    np.testing.assert_array_equal(finished(image, spec), expected)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "uint8", "int16"])
@pytest.mark.parametrize("kind", ["uint8", "float32", "uint16"])
@pytest.mark.parametrize("rescale", [None, 0.3])
def test_every_row_gets_what_float32_makes_of_the_image(
    dtype: DType, kind: str, rescale: float | None, data_format: DataFormat
) -> None:
    image = np.arange(5 * 6 * 3).reshape(5, 6, 3).astype(kind)
    expected = image.astype(np.float32)
    if rescale:
        expected *= rescale
    if data_format == "channels_first":
        expected = expected.transpose(2, 0, 1)
    spec = rendering(target_size=(5, 6), dtype=dtype, rescale=rescale, data_format=data_format)
    np.testing.assert_array_equal(finished(image, spec), expected.astype(dtype))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float64])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_kind_of_picture_can_be_flipped(
    channels: int, dtype: type[np.generic], order: Literal["C", "F"]
) -> None:
    image = np.arange(5 * 7 * channels).reshape(5, 7, channels).astype(dtype, order=order)
    image.flags.writeable = False
    for transform in FLIPS:
        expected = image[:: -1 if transform.flip_vertical else 1]
        expected = expected[:, :: -1 if transform.flip_horizontal else 1]
        spec = moving(target_size=(5, 7), color_mode=CHANNELS[channels])
        np.testing.assert_array_equal(finished(image, spec, transform), expected)


STATISTICS = {
    "mean": np.array([90, 100, 110.5], np.float32).reshape(1, 1, 3),
    "std": np.array([50, 60.1, 70], np.float32).reshape(1, 1, 3),
}


@pytest.mark.parametrize("mode", ["caffe", "tf", "torch"])
@pytest.mark.parametrize("transform", [Transform(), Transform(theta=20, flip_horizontal=True)])
def test_imagenet_preprocessing_and_statistics_are_those_of_the_general_path(
    mode: Preprocessing, transform: Transform
) -> None:
    spec = moving(target_size=(30, 40), preprocessing=mode, rescale=0.5)
    spec = with_transform(spec, FeaturewiseNormalization(statistics=("mean", "std")))
    assert is_fast(spec, "float32", STATISTICS)
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    rows = [np.empty(spec.image_shape, np.float32) for _ in range(2)]
    fast = FastFinish(spec, STATISTICS)
    fast(image, fast.prepare(np.array([transform], float)), 0, rows[0])
    random = random_operations(spec, "float32")
    GeneralFinish(spec, "float32", STATISTICS, random)(image, [transform], 0, rows[1])
    np.testing.assert_array_equal(rows[0], rows[1])


SIZE: dict[str, Any] = {"target_size": (5, 6)}


@pytest.mark.parametrize(
    ("spec", "bundle"),
    [
        (rendering(**SIZE, samplewise_center=True), {}),
        (rendering(**SIZE, preprocessing="tf", data_format="channels_first"), {}),
        (rendering(**SIZE, channel_shift_range=3.0), {}),
        (rendering(**SIZE, dtype="int32"), {}),
        (moving(**SIZE, interpolation_order=3), {}),
        (
            with_transform(rendering(**SIZE), FeaturewiseNormalization(statistics=("zca",))),
            {"zca": np.eye(3, dtype=np.float32)},
        ),
        (
            with_transform(rendering(**SIZE), FeaturewiseNormalization(statistics=("mean",))),
            {"mean": np.zeros((1, 1, 3))},
        ),
    ],
    ids=["samplewise", "axes", "channel shift", "dtype", "splines", "whitening", "float64"],
)
def test_what_the_kernels_lack_goes_the_general_way(spec: Spec, bundle: dict[str, Any]) -> None:
    assert not is_fast(spec, "float32", bundle)
