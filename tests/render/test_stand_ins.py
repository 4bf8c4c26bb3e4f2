"""Stand-ins for Keras and TensorFlow load the real ones when more than images is asked of them.

The real ones are small packages of the same form here: Keras's own take seconds to load.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

BEGINNING = """
import os, sys
sys.path.insert(0, os.environ["STAND_INS"])
from loaderd.render.transforms import stand_ins
from loaderd.spec.operations import Keras
stand_ins.current = standing_in = stand_ins.StandIns(
    Keras(preprocess=(("vgg16", "caffe", "channels_last"),))
)
before = set(sys.modules)
def loaded():
    return "keras.src" in sys.modules
standing_in.enter()
"""
END = """
standing_in.leave()
left = [name for name, module in sys.modules.items() if isinstance(module, stand_ins.StandIn)]
assert not left and standing_in not in sys.meta_path, left
"""


FILES = {
    "keras/__init__.py": "from keras import _tf_keras, applications, layers, preprocessing, utils\n"
    "from keras.src import LOADED\n__version__ = '3.99'\n",
    "keras/src/__init__.py": "import tensorflow\nLOADED = []\n",
    "keras/src/utils.py": "",
    "keras/layers/__init__.py": "from keras.src import LOADED\nLOADED.append('layers')\n"
    "class Dense: pass\n",
    "keras/utils/__init__.py": "def array_to_img(): 'the real one'\nto_categorical = list\n",
    "keras/preprocessing/__init__.py": "from keras.preprocessing import image\n",
    "keras/preprocessing/image/__init__.py": "ImageDataGenerator = None\n",
    "keras/applications/__init__.py": "from keras.applications import other, vgg16\n",
    "keras/applications/vgg16.py": "preprocess_input = None\n",
    "keras/applications/other.py": "preprocess_input = 'unknown'\n",
    "keras/_tf_keras/__init__.py": "from keras._tf_keras import keras\n",
    "keras/_tf_keras/keras/__init__.py": "from keras._tf_keras.keras import preprocessing\n",
    "keras/_tf_keras/keras/preprocessing/__init__.py": "",
    "keras/_tf_keras/keras/preprocessing/image.py": "ImageDataGenerator = 'old'\n",
    "tensorflow/__init__.py": "image = 'the real one'\n",
    "tf_keras/__init__.py": "",
}


@pytest.fixture(scope="module", autouse=True)
def packages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("packages")
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    os.environ["STAND_INS"] = str(root)
    yield root
    del os.environ["STAND_INS"]
    shutil.rmtree(root)


def run(program: str) -> None:
    text = BEGINNING + textwrap.dedent(program) + END
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_nothing_is_loaded_for_images_and_preprocess_input() -> None:
    run(
        """
        import numpy as np
        import keras, tensorflow as tf, tf_keras
        import keras.preprocessing.image
        import tensorflow.keras.utils as utils
        from keras import utils as others
        from keras.utils import array_to_img, img_to_array
        from keras.preprocessing import image
        from tensorflow import keras as k
        from tensorflow.keras.preprocessing.image import load_img, save_img, smart_resize
        from tensorflow.keras.applications.vgg16 import preprocess_input
        from keras.applications import vgg16
        import inspect, traceback, doctest, unittest

        x = np.random.uniform(0, 255, (8, 8, 3)).astype("float32")
        for module in (keras.utils, tf.keras.utils, utils, others, image, k.preprocessing.image):
            assert (module.img_to_array(module.array_to_img(x, scale=False)) == x // 1).all()
        assert (preprocess_input(x.copy()) == vgg16.preprocess_input(x.copy())).all()
        assert smart_resize(x, (4, 4)).shape == (4, 4, 3)
        inspect.getmodule(x), inspect.stack()
        assert not hasattr(keras, "__wrapped__")
        assert not loaded()
        """
    )


@pytest.mark.parametrize(
    "program",
    [
        "import keras\nkeras.layers.Dense()",
        "import keras.layers as layers\nlayers.Dense()",
        "from keras.layers import Dense\nDense()",
        "from keras.utils import to_categorical\nto_categorical([1])",
        "from keras.utils import *\nto_categorical([1])\narray_to_img",
        "import keras\nassert keras.__version__ == '3.99'",
        "import keras.src.utils",
        "from keras.applications import other\nassert other.preprocess_input == 'unknown'",
        "import tensorflow as tf\nassert tf.image == 'the real one'\nimport keras.layers",
    ],
)
def test_anything_else_loads_keras_once(program: str) -> None:
    run(
        program
        + """
import keras as again
import keras.utils, keras.layers
assert loaded() and not isinstance(again, stand_ins.StandIn)
assert keras.layers is sys.modules["keras.layers"] is again.layers
assert keras.layers.__spec__.name == "keras.layers" and again.LOADED == ["layers"]
assert keras.utils.array_to_img.__doc__ == "the real one"
standing_in.leave()
standing_in.enter()
assert sys.modules["keras"] is again
"""
    )


def test_what_was_imported_before_goes_on_with_the_real_one() -> None:
    run(
        """
        import keras, keras.utils
        held, utils = keras, keras.utils
        assert isinstance(held, stand_ins.StandIn)
        assert not loaded()
        held.layers.Dense()
        assert loaded()
        assert held.layers is sys.modules["keras"].layers
        assert utils.to_categorical([1]) == [1]
        assert utils.array_to_img.__doc__ != "the real one"
        """
    )


def test_what_is_not_installed_is_not_there() -> None:
    run(
        """
        standing_in.leave()
        sys.path[:] = [folder for folder in sys.path[1:] if "-packages" not in folder]
        standing_in = stand_ins.StandIns(Keras())
        standing_in.enter()
        for name in ("keras", "tensorflow", "tensorflow.keras"):
            try:
                __import__(name)
            except ModuleNotFoundError:
                continue
            raise AssertionError(name)
        """
    )


def test_where_code_needs_keras_itself_there_are_none() -> None:
    run(
        """
        standing_in.leave()
        stand_ins.current = standing_in = stand_ins.StandIns(Keras(itself=True))
        standing_in.enter()
        assert stand_ins.module("keras.utils").to_categorical and loaded()
        assert stand_ins.image_function("img_to_array").__self__ is standing_in.images
        """
    )


def test_code_by_value_gets_stand_ins_by_any_name_of_theirs() -> None:
    run(
        """
        import pickle
        for name in ("keras.preprocessing.image", "keras._tf_keras.keras.preprocessing.image",
                     "tf_keras.api._v2.keras.preprocessing.image", "tensorflow.keras.utils"):
            module = stand_ins.module(name)
            assert module.array_to_img == stand_ins.image_function("array_to_img")
            assert module.__name__ == name
        assert stand_ins.members("tensorflow") == {"keras"}
        assert stand_ins.members("keras.applications") == set()
        assert stand_ins.members("keras.layers") is stand_ins.members("numpy") is None
        assert not loaded()
        module = stand_ins.module("keras._tf_keras.keras.preprocessing.image")
        assert module.ImageDataGenerator == "old" and loaded()
        """
    )
