"""The module under test: ours, or Keras's own leftover, which proves these tests right.

``LOADERD_SURFACE=keras pytest tests/keras/surface`` runs them against Keras itself.
"""

from __future__ import annotations

import importlib
import os
import types
from typing import Any

import pytest

ON_KERAS = os.environ.get("LOADERD_SURFACE") == "keras"

NAMES = (
    "ImageDataGenerator",
    "Iterator",
    "DirectoryIterator",
    "DataFrameIterator",
    "NumpyArrayIterator",
    "load_img",
    "img_to_array",
    "array_to_img",
    "save_img",
    "random_rotation",
    "random_shift",
    "random_shear",
    "random_zoom",
    "random_channel_shift",
    "random_brightness",
    "apply_affine_transform",
    "apply_channel_shift",
    "apply_brightness_shift",
)


def _of_keras() -> types.SimpleNamespace:
    """Keras 3 keeps the four for pictures in ``keras.utils``, and the rest in its attic."""
    attic = importlib.import_module("keras.src.legacy.preprocessing.image")
    utils = importlib.import_module("keras.utils")
    homes = {name: attic if hasattr(attic, name) else utils for name in NAMES}
    return types.SimpleNamespace(**{name: getattr(home, name) for name, home in homes.items()})


image: Any = _of_keras() if ON_KERAS else importlib.import_module("loaderd_client.image")


def only_on(*, keras: bool) -> pytest.MarkDecorator:
    """For what is meant to differ: the test holds for Keras, or for ours, alone."""
    whose = "Keras's module" if keras else "loaderd's module"
    return pytest.mark.skipif(keras is not ON_KERAS, reason=f"holds for {whose} alone")
