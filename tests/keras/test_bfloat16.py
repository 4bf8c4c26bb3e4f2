"""Batches of bfloat16: their values, and real fits with them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import ml_dtypes
import numpy as np
import pytest
from keras.src.legacy.preprocessing import image as keras_image

from loaderd.errors import MissingDependency
from loaderd_client import ImageDataGenerator
from loaderd_client import image as ours
from tests.keras.test_article import a_model, seen

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOW: dict[str, Any] = {"target_size": (24, 20), "batch_size": 8, "seed": 3}
AUGMENTED: dict[str, Any] = {"rotation_range": 20, "horizontal_flip": True, "rescale": 1 / 255}


def same_bits(one: Any, other: Any) -> bool:
    assert one.dtype == other.dtype == BFLOAT16
    return bool(one.tobytes() == other.tobytes())


@pytest.mark.parametrize("class_mode", ["categorical", "sparse", "input"])
@pytest.mark.parametrize("more", [{}, {"samplewise_center": True}, {"brightness_range": (0.5, 2)}])
@pytest.mark.parametrize("dtype", ["bfloat16", ml_dtypes.bfloat16])
def test_batches_of_files_are_keras_to_the_last_bit(
    photos: Path, dtype: Any, more: dict[str, Any], class_mode: str
) -> None:
    def flow(module: Any) -> Any:
        generator = module.ImageDataGenerator(dtype=dtype, **AUGMENTED, **more)
        return generator.flow_from_directory(str(photos), class_mode=class_mode, **FLOW)

    own, theirs = flow(ours), flow(keras_image)
    assert own.dtype in ("bfloat16", ml_dtypes.bfloat16)
    for _ in range(3):
        for one, other in zip(next(own), next(theirs), strict=True):
            assert same_bits(one, other)


def test_labels_that_a_program_sets_have_the_dtype_too(photos: Path) -> None:
    flow = ImageDataGenerator(dtype="bfloat16").flow_from_directory(
        str(photos), class_mode="sparse", shuffle=False, **FLOW
    )
    flow.classes = [2] * flow.n
    labels = next(flow)[1]
    assert same_bits(labels, np.full(8, 2, BFLOAT16))


def test_batches_of_arrays_are_computed_in_float32_and_rounded_once() -> None:
    x = np.random.default_rng(0).integers(0, 256, (20, 16, 12, 3), np.uint8)
    short, full = (
        ImageDataGenerator(dtype=dtype, **AUGMENTED).flow(x, batch_size=8, seed=3)
        for dtype in ("bfloat16", "float32")
    )
    for _ in range(3):
        assert same_bits(next(short), next(full).astype(BFLOAT16))


def test_images_may_be_of_bfloat16_themselves() -> None:
    x = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3)).astype(BFLOAT16)
    flow = ImageDataGenerator(dtype="bfloat16").flow(x, batch_size=6, shuffle=False)
    assert same_bits(next(flow), x)


def test_statistics_are_computed_in_float32() -> None:
    x = np.random.default_rng(0).integers(0, 256, (64, 16, 12, 3), np.uint8)
    short, full = (
        ImageDataGenerator(dtype=dtype, featurewise_center=True) for dtype in ("bfloat16", None)
    )
    short.fit(x)
    full.fit(x)
    np.testing.assert_array_equal(short.mean, full.mean)
    batches = [one.flow(x, batch_size=8, seed=3) for one in (short, full)]
    assert same_bits(next(batches[0]), next(batches[1]).astype(BFLOAT16))


def test_rescale_does_not_warn(photos: Path, recwarn: pytest.WarningsRecorder) -> None:
    generator = ImageDataGenerator(dtype="bfloat16", rescale=1 / 255)
    generator.flow_from_directory(str(photos), **FLOW)
    assert not [one for one in recwarn if "fractions" in str(one.message)]


@pytest.fixture
def floatx() -> Iterator[None]:
    before = keras.config.floatx()
    keras.config.set_floatx("bfloat16")
    yield
    keras.config.set_floatx(before)


@pytest.mark.usefixtures("floatx")
def test_keras_may_be_set_to_it(photos: Path) -> None:
    flow = ImageDataGenerator(brightness_range=(0.5, 2)).flow_from_directory(str(photos), **FLOW)
    assert [one.dtype for one in next(flow)] == [BFLOAT16, BFLOAT16]


def test_what_is_missing_is_named(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(MissingDependency, match="pip install ml_dtypes"):
        ImageDataGenerator(dtype="bfloat16").flow_from_directory(str(photos), **FLOW)


def test_a_model_of_mixed_precision_trains_on_it(photos: Path, tmp_path: Path) -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = a_model((24, 20, 3))
    finally:
        keras.config.set_dtype_policy("float32")
    generator = ImageDataGenerator(dtype="bfloat16", rescale=1 / 255)
    flow = generator.flow_from_directory(
        str(photos), save_to_dir=os.fspath(tmp_path), class_mode="categorical", **FLOW
    )
    history = model.fit(flow, epochs=2, verbose=0)
    assert seen(model) == 2 * 96
    assert np.isfinite(history.history["loss"]).all()
    assert list(tmp_path.iterdir())
