"""The names of ``keras.preprocessing.image``, as scripts import them.

Replace ``keras.preprocessing.image`` or ``tensorflow.keras.preprocessing.image`` by
``loaderd_client.image``, and nothing else. Importing this module loads neither Keras nor a
decoder; its names load what they need.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras.preprocessing.image import (
        array_to_img,
        img_to_array,
        load_img,
        save_img,
        smart_resize,
    )

    from loaderd_client.keras.arrays import NumpyArrayIterator
    from loaderd_client.keras.dataframe import DataFrameIterator
    from loaderd_client.keras.files import DirectoryIterator
    from loaderd_client.keras.generator import ImageDataGenerator
    from loaderd_client.keras.in_process import (
        apply_affine_transform,
        apply_brightness_shift,
        apply_channel_shift,
        random_brightness,
        random_channel_shift,
        random_rotation,
        random_shear,
        random_shift,
        random_zoom,
    )
    from loaderd_client.keras.iterators import Iterator

_HOMES = {
    "ImageDataGenerator": "generator",
    "DataFrameIterator": "dataframe",
    "DirectoryIterator": "files",
    "Iterator": "iterators",
    "NumpyArrayIterator": "arrays",
}
"""The modules of the classes; the functions are in ``in_process``."""
_KERAS = ("array_to_img", "img_to_array", "load_img", "save_img", "smart_resize")
"""Functions that are taken unchanged from the Keras in use."""

__all__ = [
    "DataFrameIterator",
    "DirectoryIterator",
    "ImageDataGenerator",
    "Iterator",
    "NumpyArrayIterator",
    "apply_affine_transform",
    "apply_brightness_shift",
    "apply_channel_shift",
    "array_to_img",
    "img_to_array",
    "load_img",
    "random_brightness",
    "random_channel_shift",
    "random_rotation",
    "random_shear",
    "random_shift",
    "random_zoom",
    "save_img",
    "smart_resize",
]


def __getattr__(name: str) -> Any:
    if name in _KERAS:
        from loaderd_client.keras import adapter

        return getattr(adapter.in_use()[0].preprocessing.image, name)
    if name in __all__:
        home = _HOMES.get(name, "in_process")
        return getattr(import_module(f"loaderd_client.keras.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
