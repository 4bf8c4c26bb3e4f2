"""Keras's functions for single images without Keras, for workers.

Bit-identical to ``keras/src/utils/image_utils.py``. Only ``smart_resize``, which computes with the
backend, passes some calls to Keras: here are only TensorFlow's two common interpolations.
"""

from __future__ import annotations

import io
import pathlib
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loaderd.spec.operations import Keras

if TYPE_CHECKING:
    from PIL import Image

Array = NDArray[Any]

NAMES = ("array_to_img", "img_to_array", "load_img", "save_img", "smart_resize")
_FORMATS = ("channels_first", "channels_last")
_GREY = ("L", "I;16", "I")
_MODES = {"grayscale": "L", "rgba": "RGBA", "rgb": "RGB"}


class KerasImages(NamedTuple):
    """The functions, with the settings of the trainer's Keras.

    Attributes:
        settings: of the trainer's Keras.
        original: returns Keras's own function of a name, for calls not covered here.
    """

    settings: Keras
    original: Callable[[str], Callable[..., Any]]

    def array_to_img(
        self, x: Any, data_format: Any = None, scale: bool = True, dtype: Any = None
    ) -> Image.Image:
        """An image of rank 3 as PIL has it; see ``keras.utils.array_to_img``."""
        from loaderd.render.transforms.augment import to_picture

        first = self._is_first(data_format)
        dtype = dtype or self.settings.floatx
        x = np.asarray(x, dtype)
        if x.ndim != 3:
            raise ValueError(
                "Expected image array to have rank 3 (single image). "
                f"Got array with shape: {x.shape}"
            )
        return to_picture(x.transpose(1, 2, 0) if first else x, scale, dtype)

    def img_to_array(self, img: Any, data_format: Any = None, dtype: Any = None) -> Array:
        """A picture as an array of rank 3; see ``keras.utils.img_to_array``."""
        first = self._is_first(data_format)
        x = np.asarray(img, dtype or self.settings.floatx)
        if x.ndim == 2:
            return x[np.newaxis] if first else x[:, :, np.newaxis]
        if x.ndim != 3:
            raise ValueError(f"Unsupported image shape: {x.shape}")
        return x.transpose(2, 0, 1) if first else x

    def save_img(
        self,
        path: Any,
        x: Any,
        data_format: Any = None,
        file_format: str | None = None,
        scale: bool = True,
        **kwargs: Any,
    ) -> None:
        """Writes an image to a file; see ``keras.utils.save_img``."""
        if not self.settings.legacy:
            if file_format is None and isinstance(path, (str, pathlib.Path)):
                file_format = pathlib.Path(path).suffix[1:].lower()
            if file_format and file_format.lower() == "jpg":
                file_format = "jpeg"
        img = self.array_to_img(x, data_format=data_format, scale=scale)
        if img.mode == "RGBA" and file_format in ("jpg", "jpeg"):
            word = "JPG" if self.settings.legacy else "JPEG"
            warnings.warn(
                f"The {word} format does not support RGBA images, converting to RGB.", stacklevel=2
            )
            img = img.convert("RGB")
        img.save(path, format=file_format, **kwargs)

    def load_img(self, path: Any, *arguments: Any, **options: Any) -> Any:
        """The picture in a file; see ``keras.utils.load_img``."""
        if self.settings.legacy and (arguments or "grayscale" in options):
            return self.original("load_img")(path, *arguments, **options)  # its options differ
        return _load(path, *arguments, **options)

    def smart_resize(
        self,
        x: Any,
        size: Sequence[int],
        interpolation: str = "bilinear",
        data_format: str = "channels_last",
        **kwargs: Any,
    ) -> Any:
        """An image, or a batch, cropped to the aspect ratio and resized, as float32.

        See ``keras.preprocessing.image.smart_resize``. ``nearest`` keeps the dtype.
        """
        ours = (
            isinstance(x, np.ndarray)
            and x.dtype.kind in "iuf"
            and x.ndim in (3, 4)
            and x.size
            and len(size) == 2
            and interpolation in ("bilinear", "nearest")
            and self.settings.backend == "tensorflow"
            and not self.settings.legacy
            and data_format in _FORMATS
            and not kwargs
        )
        if not ours:
            original = self.original("smart_resize")
            if self.settings.legacy:  # Keras 2 has one data format
                return original(x, size, interpolation)
            return original(x, size, interpolation, data_format, **kwargs)
        first = data_format == "channels_first"
        last = np.moveaxis(x, -3, -1) if first else x
        resized = _resize(_cropped(last, *size), size, interpolation)
        return np.ascontiguousarray(np.moveaxis(resized, -1, -3)) if first else resized

    def _is_first(self, data_format: Any) -> bool:
        if data_format is None:
            return self.settings.data_format == "channels_first"
        data_format = str(data_format).lower()
        if data_format not in _FORMATS:
            raise ValueError(
                "The `data_format` argument must be one of {'channels_first', 'channels_last'}. "
                f"Received: data_format={data_format}"
            )
        return bool(data_format == "channels_first")


def _load(
    path: Any,
    color_mode: str = "rgb",
    target_size: Sequence[int] | None = None,
    interpolation: str = "nearest",
    keep_aspect_ratio: bool = False,
) -> Image.Image:
    from PIL import Image

    from loaderd.render.load.resize import FILTERS, crop_box

    if isinstance(path, io.BytesIO):
        img: Image.Image = Image.open(path)
    elif isinstance(path, (pathlib.Path, bytes, str)):
        with open(path, "rb") as file:
            img = Image.open(io.BytesIO(file.read()))
    else:
        raise TypeError(f"path should be path-like or io.BytesIO, not {type(path)}")
    if color_mode not in _MODES:
        raise ValueError('color_mode must be "grayscale", "rgb", or "rgba"')
    mode = _MODES[color_mode]
    if img.mode != mode and not (color_mode == "grayscale" and img.mode in _GREY):
        img = img.convert(mode)
    if target_size is None or img.size == (target_size[1], target_size[0]):
        return img
    if interpolation not in FILTERS:
        raise ValueError(
            f"Invalid interpolation method {interpolation} specified. Supported methods are "
            f"{', '.join(FILTERS)}"
        )
    size = (target_size[1], target_size[0])
    box = crop_box(img.size, size) if keep_aspect_ratio else None
    return img.resize(size, FILTERS[interpolation], box=box)


def _cropped(x: Array, target_height: int, target_width: int) -> Array:
    """(…, height, width, channels), cropped to the target's aspect ratio."""
    height, width = x.shape[-3:-1]
    crop_height = max(min(height, int(float(width * target_height) / target_width)), 1)
    crop_width = max(min(width, int(float(height * target_width) / target_height)), 1)
    top, left = int(float(height - crop_height) / 2), int(float(width - crop_width) / 2)
    return x[..., top : top + crop_height, left : left + crop_width, :]


def _resize(x: Array, size: Sequence[int], interpolation: str) -> Array:
    """``tf.image.resize`` without antialiasing, in float32 and in its order of operations."""
    rows, columns = x.shape[-3:-1]
    if interpolation == "nearest":
        tall = x[..., _nearest(rows, size[0]), :, :]
        return np.ascontiguousarray(tall[..., _nearest(columns, size[1]), :])
    x = x.astype(np.float32)
    if (rows, columns) == tuple(size):
        return x
    upper, lower, down = _neighbours(rows, size[0])
    left, right, across = _neighbours(columns, size[1])
    top, bottom = (
        line[..., left, :] + (line[..., right, :] - line[..., left, :]) * across[:, np.newaxis]
        for line in (x[..., upper, :, :], x[..., lower, :, :])
    )
    resized: Array = top + (bottom - top) * down[:, np.newaxis, np.newaxis]
    return resized


def _centres(length: int, target: int) -> Array:
    scale = np.float32(length) / np.float32(target)
    centres: Array = (np.arange(target, dtype=np.float32) + np.float32(0.5)) * scale
    return centres


def _nearest(length: int, target: int) -> Array:
    return np.minimum(np.floor(_centres(length, target)).astype(np.intp), length - 1)


def _neighbours(length: int, target: int) -> tuple[Array, Array, Array]:
    """The indices of the pixels on both sides, and the weight of the second."""
    at = _centres(length, target) - np.float32(0.5)
    below = np.floor(at)
    first = np.maximum(below, 0).astype(np.intp)
    second = np.minimum(np.ceil(at), length - 1).astype(np.intp)
    return first, second, at - below


def keras_original(name: str) -> Callable[..., Any]:
    """Keras's own function of a name; imports Keras."""
    original: Callable[..., Any] = getattr(import_module("keras.preprocessing.image"), name)
    return original
