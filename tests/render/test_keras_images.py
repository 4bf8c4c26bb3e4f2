"""Keras's functions for images have Keras's values without Keras.

With ``LOADERD_KERAS=2`` they are compared with those of Keras 2: in a process of its own, as a
sequence is of all Kerases that are loaded.
"""

from __future__ import annotations

import importlib
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from loaderd.render.transforms.keras_images import KerasImages
from loaderd.spec.operations import Keras

LEGACY = os.environ.get("LOADERD_KERAS") == "2"
ROOT = Path(__file__).parents[2]
theirs: Any = importlib.import_module(
    "tf_keras.preprocessing.image" if LEGACY else "keras.preprocessing.image"
)
ours = KerasImages(Keras(legacy=LEGACY), lambda name: getattr(theirs, name))
of_keras_3 = pytest.mark.skipif(LEGACY, reason="Keras 2 has it from TensorFlow alone")
FORMATS = (None, "channels_last", "channels_first", "rows_first")


def outcome(module: Any, name: str, *arguments: Any, **options: Any) -> Any:
    """What it gives; or the type of what it raises."""
    try:
        return getattr(module, name)(*arguments, **options)
    except (ValueError, TypeError, OSError, KeyError) as error:
        return type(error)


def same(name: str, *arguments: Any, images: Any = ours, **options: Any) -> None:
    """Both give the same, of the same type; or raise the same."""
    one, other = (outcome(module, name, *arguments, **options) for module in (images, theirs))
    if isinstance(one, type):
        assert one is other
        return
    assert type(one) is type(other)
    if isinstance(one, Image.Image):
        assert one.mode == other.mode
    assert np.asarray(one).dtype == np.asarray(other).dtype
    np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def image(*shape: int, low: float = -20, high: float = 300) -> Any:
    return np.random.default_rng(0).uniform(low, high, shape).astype(np.float32)


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("shape", [(5, 7, 3), (5, 7, 4), (5, 7, 1), (3, 5, 7), (5, 7, 2), (5, 7)])
def test_array_to_img(shape: tuple[int, ...], scale: bool) -> None:
    for data_format in FORMATS:
        same("array_to_img", image(*shape, low=0, high=255), data_format, scale)
    same("array_to_img", image(*shape), scale=True, dtype="float64")
    same("array_to_img", np.full(shape, 7.0))
    same("array_to_img", image(*shape).tolist())


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "I", "1"])
def test_img_to_array(mode: str) -> None:
    picture = Image.fromarray(image(5, 7, 3, low=0, high=255).astype(np.uint8)).convert(mode)
    for data_format in FORMATS:
        same("img_to_array", picture, data_format)
    same("img_to_array", picture, dtype="uint8")
    same("img_to_array", np.zeros((2, 2, 2, 2)))


def pictures(folder: Path) -> list[Path]:
    """Files of every mode that is treated in its own way."""
    pixels = image(9, 13, 3, low=0, high=255).astype(np.uint8)
    paths = [folder / f"{mode}.png" for mode in ("RGB", "RGBA", "L", "P")]
    for path in paths:
        Image.fromarray(pixels).convert(path.stem).save(path)
    deep = folder / "deep.png"
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(deep)
    return [*paths, deep]


def test_load_img(tmp_path: Path) -> None:
    for path in pictures(tmp_path):
        for color_mode in ("rgb", "rgba", "grayscale", "hsv"):
            same("load_img", path, color_mode=color_mode)
        same("load_img", str(path), target_size=(5, 6))
        same("load_img", bytes(path), target_size=(9, 13))
        same("load_img", path, target_size=(30, 4), interpolation="bilinear")
        first = (False,) if LEGACY else ()  # Keras 2 takes ``grayscale`` there
        same("load_img", path, *first, "rgb", (5, 6), "hamming", True)
        same("load_img", path, target_size=(6, 5), interpolation="cubic")
        same("load_img", io.BytesIO(path.read_bytes()))
    same("load_img", 7)
    same("load_img", tmp_path / "missing.png")


@pytest.mark.filterwarnings("ignore:The JPE?G format does not support RGBA")
@pytest.mark.filterwarnings("ignore:Saving I mode images as PNG is deprecated")
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.JPEG", "a"])
def test_save_img(tmp_path: Path, name: str, channels: int) -> None:
    path = tmp_path / name
    written = []
    for module in (ours, theirs):
        told = outcome(module, "save_img", path, image(8, 8, channels))
        written.append(told or np.asarray(Image.open(path)))
    np.testing.assert_array_equal(written[0], written[1])


@pytest.mark.filterwarnings("ignore:The JPE?G format does not support RGBA")
@pytest.mark.parametrize("file_format", ["png", "jpeg", "jpg"])
def test_save_img_to_an_open_file(file_format: str) -> None:
    written = []
    for module in (ours, theirs):
        file = io.BytesIO()
        options = {"file_format": file_format, "scale": False}
        told = outcome(module, "save_img", file, image(8, 8, 4), **options)
        written.append((told, file.getvalue()))
    assert written[0] == written[1]


SIZES = [
    (60, 80, 20, 30),
    (17, 23, 40, 9),
    (5, 5, 5, 5),
    (31, 9, 64, 64),
    (3, 3, 1, 1),
    (1, 1, 7, 5),
]


@of_keras_3
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_smart_resize(size: tuple[int, int, int, int], interpolation: str) -> None:
    height, width, *target = size
    for dtype in ("float32", "uint8", "float64", "int32"):
        x = image(2, height, width, 3, low=0, high=255).astype(dtype)
        for one in (x, x[0], x[..., :1]):
            same("smart_resize", one, target, interpolation)
        turned = np.moveaxis(x, -1, 1).copy()
        for one in (turned, turned[0]):
            same("smart_resize", one, target, interpolation, "channels_first")


@of_keras_3
def test_smart_resize_leaves_to_keras_what_it_does_not_know() -> None:
    x = image(9, 7, 3)
    asked: list[str] = []

    def original(name: str) -> Any:
        asked.append(name)
        return getattr(theirs, name)

    careful = KerasImages(Keras(), original)
    same("smart_resize", images=careful, x=x, size=(4, 4), interpolation="bicubic")
    same("smart_resize", images=careful, x=x[0], size=(4, 4))
    same("smart_resize", images=careful, x=x, size=(4, 4, 4))
    assert np.shape(careful.smart_resize(x.tolist(), (4, 4))) == (4, 4, 3)
    KerasImages(Keras(backend="jax"), original).smart_resize(x, (4, 4))
    assert asked == ["smart_resize"] * 5
    careful.smart_resize(x, (4, 4))
    assert len(asked) == 5


@of_keras_3
def test_settings_are_the_trainers() -> None:
    double = KerasImages(
        Keras(floatx="float64", data_format="channels_first"), lambda name: getattr(theirs, name)
    )
    keras.config.set_floatx("float64")
    keras.config.set_image_data_format("channels_first")
    try:
        for x in (image(3, 8, 8), image(1, 8, 8)):
            same("array_to_img", x, images=double)
            same("img_to_array", theirs.array_to_img(x), images=double)
    finally:
        keras.config.set_floatx("float32")
        keras.config.set_image_data_format("channels_last")


@of_keras_3
def test_those_of_keras_2() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__],
        cwd=ROOT,
        env={**os.environ, "LOADERD_KERAS": "2", "TF_USE_LEGACY_KERAS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_smart_resize_of_keras_2_is_its_own() -> None:
    x = image(9, 7, 3)
    asked: list[str] = []

    def original(name: str) -> Any:
        asked.append(name)
        return lambda *arguments: x

    KerasImages(Keras(legacy=True), original).smart_resize(x, (4, 4))
    assert asked == ["smart_resize"]
