"""``keras.applications.*.preprocess_input`` is recognised, and done without Keras."""

from __future__ import annotations

import functools
import pkgutil
import subprocess
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import keras
import keras.src.applications as applications
import numpy as np
import pytest
from keras.src.legacy.preprocessing.image import ImageDataGenerator as Original

from loaderd.render.transforms.normalize import imagenet
from loaderd.spec.base import DataFormat
from loaderd.spec.operations import ImagenetPreprocessing, UserCode
from loaderd_client import ImageDataGenerator, Session
from loaderd_client.keras.functions import pack
from tests.support.daemons import Serve

MODULES = [
    module.name
    for module in pkgutil.iter_modules(applications.__path__)
    if not module.name.endswith("_test")
]


def preprocess_input(name: str) -> Any:
    module = import_module(f"keras.src.applications.{name}")
    return getattr(module, "preprocess_input", None)


NAMES = [name for name in MODULES if preprocess_input(name)]


def test_there_are_as_many_as_keras_exports() -> None:
    public = [name for name in dir(keras.applications) if not name.startswith("_")]
    found = [
        name for name in public if hasattr(getattr(keras.applications, name), "preprocess_input")
    ]
    assert len(found) >= len(NAMES) >= 15


@pytest.mark.parametrize("name", NAMES)
def test_the_arithmetic_is_that_of_keras_bit_by_bit(name: str) -> None:
    theirs = preprocess_input(name)
    packed = pack(theirs, "float32")
    assert not isinstance(packed.operation, UserCode)
    image = np.random.default_rng(0).uniform(-20, 300, (31, 17, 3)).astype(np.float32)
    ours = image.copy()
    if packed.operation is not None:
        ours = imagenet(ours, packed.operation.mode, packed.operation.data_format, "float32")
    np.testing.assert_array_equal(ours, theirs(image.copy()))


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float64"])
def test_other_dtypes_are_treated_as_keras_does(dtype: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (9, 7, 3)).astype(dtype)
    for name in ("vgg16", "mobilenet", "densenet"):
        theirs = preprocess_input(name)
        known = pack(theirs, "float32").operation
        assert isinstance(known, ImagenetPreprocessing)
        ours = imagenet(image.copy(), known.mode, known.data_format, "float32")
        expected = theirs(image.copy())
        np.testing.assert_array_equal(ours, expected)
        assert ours.dtype == expected.dtype


def caffe(data_format: DataFormat) -> ImagenetPreprocessing:
    return ImagenetPreprocessing(mode="caffe", data_format=data_format)


def test_the_setting_of_keras_says_where_the_channels_are(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = preprocess_input("vgg16")
    keras.config.set_image_data_format("channels_first")
    try:
        assert pack(theirs, "float32").operation == caffe("channels_first")
    finally:
        keras.config.set_image_data_format("channels_last")
    assert pack(theirs, "float32").operation == caffe("channels_last")


def test_what_only_looks_like_one_travels_as_it_is() -> None:
    def preprocess_input(x: Any) -> Any:
        return x

    assert isinstance(pack(preprocess_input, "float32").operation, UserCode)
    preprocess_input.__module__ = "keras.src.applications.vgg16"
    odd = functools.wraps(preprocess_input)(lambda x: x * 7)
    assert isinstance(pack(odd, "float32").operation, UserCode)


@pytest.mark.parametrize("name", ["vgg16", "mobilenet_v2", "densenet", "efficientnet"])
@pytest.mark.parametrize("sums", [False, True])
def test_batches_are_those_of_keras(name: str, sums: bool, photos: Path, serve: Serve) -> None:
    options: dict[str, Any] = {
        "preprocessing_function": preprocess_input(name),
        "horizontal_flip": True,
        "channel_shift_range": 9.0 * sums,
        "samplewise_std_normalization": sums,
    }
    flow: dict[str, Any] = {"target_size": (20, 30), "batch_size": 8, "seed": 4}
    with serve(), Session("auto"):
        ours = ImageDataGenerator(**options).flow_from_directory(photos, **flow)
        theirs = Original(**options).flow_from_directory(photos, **flow)
        for _ in range(len(ours) + 1):
            for one, other in zip(next(ours), next(theirs), strict=True):
                np.testing.assert_array_equal(one, other)


def test_workers_load_no_keras_for_it(photos: Path, serve: Serve) -> None:
    with serve() as daemon, Session("auto"):
        generator = ImageDataGenerator(preprocessing_function=preprocess_input("resnet"))
        train = generator.flow_from_directory(photos, target_size=(20, 30))
        next(train)
        for pid in daemon.workers():
            maps = Path(f"/proc/{pid}/maps").read_text()
            assert "tensorflow" not in maps
            assert "h5py" not in maps


def test_a_lambda_that_calls_one_brings_no_keras_either(photos: Path, serve: Serve) -> None:
    from keras.applications.efficientnet import preprocess_input as nothing
    from keras.applications.vgg16 import preprocess_input as caffe

    def preprocess(image: Any) -> Any:
        return nothing(caffe(image[::-1]))

    flow: dict[str, Any] = {"target_size": (20, 30), "batch_size": 8, "seed": 4}
    with serve() as daemon, Session("auto"), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        ours = ImageDataGenerator(preprocessing_function=preprocess)
        theirs = Original(preprocessing_function=preprocess)
        np.testing.assert_array_equal(
            next(ours.flow_from_directory(photos, **flow))[0],
            next(theirs.flow_from_directory(photos, **flow))[0],
        )
        for pid in daemon.workers():
            assert "tensorflow" not in Path(f"/proc/{pid}/maps").read_text()


def test_a_function_that_brings_keras_is_told() -> None:
    with pytest.warns(UserWarning, match="makes every worker load keras"):
        pack(lambda image: keras.ops.flip(image), "float32")


def test_keras_2_is_recognised_too() -> None:
    program = """
import os
os.environ["TF_USE_LEGACY_KERAS"] = "1"
import numpy as np, tf_keras
from loaderd.render.transforms.normalize import imagenet
from loaderd_client.keras.functions import pack
for name in ("vgg16", "mobilenet_v2", "densenet", "efficientnet"):
    theirs = getattr(tf_keras.applications, name).preprocess_input
    packed = pack(theirs, "float32")
    known = packed.operation
    assert known is None or hasattr(known, "mode"), name
    image = np.random.default_rng(0).uniform(0, 255, (9, 7, 3)).astype("float32")
    ours = image.copy()
    if known:
        ours = imagenet(ours, known.mode, known.data_format, "float32")
    assert np.array_equal(ours, theirs(image.copy())), name
"""
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
