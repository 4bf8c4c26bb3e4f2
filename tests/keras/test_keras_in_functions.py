"""User code that calls Keras's functions for images brings neither Keras nor TensorFlow along."""

from __future__ import annotations

import importlib
import re
import sys
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import keras.applications.resnet50
import numpy as np
import pytest
import tensorflow as tf
from keras import utils
from keras.applications import vgg16
from keras.preprocessing import image as images
from keras.src.legacy.preprocessing.image import ImageDataGenerator as Original
from keras.utils import array_to_img, img_to_array

from loaderd.spec.operations import UserCode
from loaderd_client import ImageDataGenerator, Session
from loaderd_client.keras.functions import pack
from tests.support.daemons import Daemon, Serve

FLOW: dict[str, Any] = {"target_size": (20, 30), "batch_size": 8, "class_mode": None, "seed": 4}


def functions() -> dict[str, Any]:
    """By their names; they travel by value, as those of a script do."""

    def turned_by_functions(x: Any) -> Any:
        return img_to_array(array_to_img(x, scale=False).rotate(10))

    def turned_by_modules(x: Any) -> Any:
        return images.img_to_array(utils.array_to_img(x, scale=False).rotate(10))

    def turned_by_packages(x: Any) -> Any:
        picture = tf.keras.preprocessing.image.array_to_img(x, scale=False)
        return keras.utils.img_to_array(picture.rotate(10))

    def turned_by_imports(x: Any) -> Any:
        import tensorflow.keras.utils as theirs
        from keras.preprocessing.image import img_to_array

        return img_to_array(theirs.array_to_img(x, scale=False).rotate(10))

    def cut(x: Any) -> Any:
        return images.smart_resize(x[2:, 5:], (20, 30))

    def preprocessed(x: Any) -> Any:
        return vgg16.preprocess_input(keras.applications.resnet50.preprocess_input(x))

    return dict(locals())


MODULE = """
    import keras
    import tensorflow as tf
    from tensorflow.keras.applications.resnet50 import preprocess_input
    from tensorflow.keras.preprocessing.image import array_to_img, img_to_array

    def turned(x):
        return img_to_array(array_to_img(x, scale=False).rotate(10))

    def both(x):
        return preprocess_input(turned(x))
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    (tmp_path / "mine_of_keras.py").write_text(textwrap.dedent(MODULE))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("mine_of_keras")
    del sys.modules["mine_of_keras"]


def check_same(function: Any, photos: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        ours = ImageDataGenerator(preprocessing_function=function)
        flow = ours.flow_from_directory(photos, **FLOW)
    theirs = Original(preprocessing_function=function).flow_from_directory(photos, **FLOW)
    np.testing.assert_array_equal(next(flow), next(theirs))
    flow.close()


def loads_keras(daemon: Daemon) -> bool:
    maps = [Path(f"/proc/{pid}/maps").read_text() for pid in daemon.workers()]
    return any(re.search("tensorflow|h5py", each) for each in maps)


def test_none_of_these_load_it_and_all_have_its_values(
    photos: Path, serve: Serve, mine: Any
) -> None:
    ours = functions()
    turned = ours["turned_by_imports"]
    more = (mine.turned, mine.both, lambda x: turned(ours["turned_by_modules"](x)))
    with serve() as daemon, Session("auto"):
        for function in (*ours.values(), *more):
            check_same(function, photos)
        assert len(daemon.workers()) == 2
        assert not loads_keras(daemon)


def test_what_needs_it_has_it(photos: Path, serve: Serve) -> None:
    turned = functions()["turned_by_packages"]

    def flipped(x: Any) -> Any:
        return tf.image.flip_left_right(turned(x)).numpy()

    with serve(1) as daemon, Session("auto"):
        with pytest.warns(UserWarning, match="makes every worker load tensorflow"):
            ours = ImageDataGenerator(preprocessing_function=flipped)
            flow = ours.flow_from_directory(photos, **FLOW)
        theirs = Original(preprocessing_function=flipped).flow_from_directory(photos, **FLOW)
        np.testing.assert_array_equal(next(flow), next(theirs))
        assert loads_keras(daemon)
        check_same(functions()["turned_by_modules"], photos)  # with the real ones loaded


@pytest.mark.parametrize(
    ("function", "needed"),
    [
        (lambda x: tf.keras.utils.array_to_img(x), False),
        (lambda x: getattr(keras, "utils"), False),  # noqa: B009  # nobody knows what is asked
        (lambda x: keras.layers.Dense(3)(x), True),
        (lambda x: tf.image.flip_left_right(x), True),
        (lambda x: keras.applications.imagenet_utils.preprocess_input(x, mode="tf"), True),
        (lambda x: keras.applications.imagenet_utils.preprocess_input, True),
        (lambda x: keras.utils.to_categorical(x), True),
    ],
)
@pytest.mark.filterwarnings("ignore:preprocessing_function")
def test_whether_a_function_needs_it_is_read_from_its_code(function: Any, needed: bool) -> None:
    packed = pack(function, "float32")
    assert isinstance(packed.operation, UserCode)
    assert packed.operation.keras is not None
    assert packed.operation.keras.itself is needed
