"""``ImageDataGenerator``: Keras's arguments, rendered by a daemon.

The arguments, their checks and the words of the errors follow
``keras/src/legacy/preprocessing/image.py``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

import numpy as np

from loaderd.errors import InvalidArgument
from loaderd.wire.spec import (
    Batch,
    ColorMode,
    Compat,
    Dataset,
    DType,
    FillMode,
    Interpolation,
    LabelMode,
    Order,
    Pipeline,
    Spec,
)

if TYPE_CHECKING:
    from loaderd_client.sequence import LoaderSequence

EXTENSIONS = ("png", "jpg", "jpeg", "bmp", "ppm", "tif", "tiff")
"""What Keras's generators take for images: they look at endings, not at what the dot parts off."""

_LABEL_MODES: dict[str | None, LabelMode] = {
    "categorical": "categorical",
    "binary": "sparse",  # Keras gives both as one number for each sample
    "sparse": "sparse",
    "input": "input",
    None: "none",
}


class ImageDataGenerator:
    """Loads and augments images in parallel; takes Keras's place by its name.

    Args:
        rotation_range: degrees.
        width_shift_range: fraction of the width if below 1, else pixels; an int or a
            list of numbers is a choice of pixels.
        height_shift_range: the same for the height.
        shear_range: degrees.
        zoom_range: ``[lower, upper]``, or a float f for ``[1 - f, 1 + f]``.
        fill_mode: ``nearest``, ``constant``, ``reflect`` or ``wrap``.
        cval: the value outside the image for ``fill_mode="constant"``.
        horizontal_flip: flips half of the images left to right.
        vertical_flip: flips half of the images upside down.
        rescale: a factor applied after all else; None or 0 leaves the values.
        validation_split: fraction of each class's files that ``subset="validation"``
            takes, the rest being ``subset="training"``.
        dtype: ``float32`` or ``uint8``.
        compat: ``"keras"`` moves and rotates as Keras does, with its swapped shift axes
            and its off-centre rotation of non-square images; ``"fixed"`` does what the
            names promise.

    Raises:
        InvalidArgument: a value that is not allowed (also a ``ValueError``).
    """

    def __init__(
        self,
        *,
        rotation_range: float = 0,
        width_shift_range: float | Sequence[float] = 0.0,
        height_shift_range: float | Sequence[float] = 0.0,
        shear_range: float = 0.0,
        zoom_range: float | Sequence[float] = 0.0,
        fill_mode: FillMode = "nearest",
        cval: float = 0.0,
        horizontal_flip: bool = False,
        vertical_flip: bool = False,
        rescale: float | None = None,
        validation_split: float = 0.0,
        dtype: DType | None = None,
        compat: Compat = "keras",
    ) -> None:
        _one_of("fill_mode", fill_mode, get_args(FillMode))
        _one_of("compat", compat, get_args(Compat))
        _one_of("dtype", dtype or "float32", get_args(DType))
        if validation_split and not 0 < validation_split < 1:
            raise InvalidArgument(
                "`validation_split` must be strictly between 0 and 1. "
                f" Received: {validation_split}"
            )
        self.rotation_range = rotation_range
        self.width_shift_range = width_shift_range
        self.height_shift_range = height_shift_range
        self.shear_range = shear_range
        self.zoom_range = _zoom(zoom_range)
        self.fill_mode: FillMode = fill_mode
        self.cval = cval
        self.horizontal_flip = horizontal_flip
        self.vertical_flip = vertical_flip
        self.rescale = rescale
        self.validation_split = validation_split
        self.dtype: DType = dtype or "float32"
        self.compat: Compat = compat

    def flow_from_directory(
        self,
        directory: str | os.PathLike[str],
        target_size: tuple[int, int] = (256, 256),
        color_mode: ColorMode = "rgb",
        classes: Sequence[str] | None = None,
        class_mode: str | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        *,
        follow_links: bool = False,
        subset: str | None = None,
        interpolation: Interpolation = "nearest",
        keep_aspect_ratio: bool = False,
        workers: int = 1,
        use_multiprocessing: bool = False,
        max_queue_size: int = 10,
    ) -> LoaderSequence:
        """A sequence of the images below ``directory``, whose subfolders are the classes.

        Args:
            directory: the folder.
            target_size: (height, width) in pixels.
            color_mode: ``rgb``, ``rgba`` or ``grayscale``.
            classes: names of the subfolders in label order; None takes all, sorted.
            class_mode: ``categorical`` (one-hot), ``binary`` or ``sparse`` (a number),
                ``input`` (the images again), or None (no labels).
            batch_size: samples in a batch; the last of an epoch may be smaller.
            shuffle: a new order for every epoch.
            seed: decides order and augmentation; None lets the daemon pick one.
            follow_links: whether symbolic links to folders are followed.
            subset: ``training`` or ``validation``, by ``validation_split``.
            interpolation: ``nearest``, ``bilinear``, ``bicubic``, ``hamming``, ``box`` or
                ``lanczos``.
            keep_aspect_ratio: crops the centre instead of stretching.
            workers: accepted and not needed: the daemon has workers of its own
                (``loaderd serve --workers``), which run in parallel whatever this is.
            use_multiprocessing: the same.
            max_queue_size: batches that the daemon keeps ready.

        Raises:
            InvalidArgument: a value that is not allowed (also a ``ValueError``).
            DatasetNotFound: the directory is missing (also a ``FileNotFoundError``).
            EmptyDataset: it holds no image.
            NoRoom: the ring does not fit in shared memory.
        """
        from loaderd_client.sequence import LoaderSequence

        spec = Spec(
            dataset=Dataset(
                directory=os.path.abspath(os.fspath(directory)),
                extensions=EXTENSIONS,
                classes=_names(classes),
                follow_links=follow_links,
                split_per_class=self._split(subset),
            ),
            pipeline=self._pipeline(target_size, color_mode, interpolation, keep_aspect_ratio),
            batch=Batch(
                batch_size=_whole("batch_size", batch_size), label_mode=_label_mode(class_mode)
            ),
            order=Order(shuffle=bool(shuffle), seed=None if seed is None else _whole("seed", seed)),
        )
        del workers, use_multiprocessing
        sequence = LoaderSequence(spec, max_queue_size=max_queue_size)
        sequence.class_mode = class_mode
        print(f"Found {sequence.n} images belonging to {sequence.num_classes} classes.")
        return sequence

    def _split(self, subset: str | None) -> tuple[float, float] | None:
        """Keras's rule (``BatchFromFilesMixin.set_processing_attrs``)."""
        match subset:
            case None:
                return None
            case "validation":
                if not self.validation_split:
                    raise InvalidArgument(
                        'subset="validation" needs `validation_split`: '
                        "ImageDataGenerator(validation_split=0.2) keeps a fifth of each class"
                    )
                return (0.0, self.validation_split)
            case "training":
                return (self.validation_split, 1.0)
        raise InvalidArgument(f'Invalid subset name: {subset};expected "training" or "validation"')

    def _pipeline(
        self,
        target_size: tuple[int, int],
        color_mode: ColorMode,
        interpolation: Interpolation,
        keep_aspect_ratio: bool,
    ) -> Pipeline:
        if color_mode not in get_args(ColorMode):
            raise InvalidArgument(
                f'Invalid color mode: {color_mode}; expected "rgb", "rgba", or "grayscale".'
            )
        _one_of("interpolation", interpolation, get_args(Interpolation))
        return Pipeline(
            target_size=_size(target_size),
            color_mode=color_mode,
            interpolation=interpolation,
            aspect="crop" if keep_aspect_ratio else "stretch",
            rotation_range=_number("rotation_range", self.rotation_range),
            width_shift_range=_shift("width_shift_range", self.width_shift_range),
            height_shift_range=_shift("height_shift_range", self.height_shift_range),
            shear_range=_number("shear_range", self.shear_range),
            zoom_range=self.zoom_range,
            horizontal_flip=bool(self.horizontal_flip),
            vertical_flip=bool(self.vertical_flip),
            fill_mode=self.fill_mode,
            cval=_number("cval", self.cval),
            rescale=_number("rescale", self.rescale) if self.rescale else None,
            dtype=self.dtype,
            compat=self.compat,
        )


def _one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        words = ", ".join(f'"{word}"' for word in allowed)
        raise InvalidArgument(f"Invalid {name}: {value}; expected one of {words}.")


def _label_mode(class_mode: str | None) -> LabelMode:
    if class_mode not in _LABEL_MODES:
        raise InvalidArgument(
            f"Invalid class_mode: {class_mode}; expected one of: {set(_LABEL_MODES)}"
        )
    return _LABEL_MODES[class_mode]


def _number(name: str, value: object) -> float:
    if isinstance(value, (int, float, np.integer, np.floating)) and math.isfinite(value):
        return float(value)
    raise InvalidArgument(f"`{name}` should be a number. Received: {value!r}")


def _whole(name: str, value: object) -> int:
    if isinstance(value, (int, np.integer)):
        return int(value)
    raise InvalidArgument(f"`{name}` should be a whole number. Received: {value!r}")


def _size(target_size: Sequence[int]) -> tuple[int, int]:
    if not isinstance(target_size, (list, tuple)) or len(target_size) != 2:
        raise InvalidArgument(
            f"`target_size` should be (height, width) in pixels. Received: {target_size!r}"
        )
    return (_whole("target_size", target_size[0]), _whole("target_size", target_size[1]))


def _names(classes: Sequence[str] | None) -> tuple[str, ...] | None:
    if isinstance(classes, str):
        raise InvalidArgument(f"`classes` should be a list of names. Received: {classes!r}")
    return tuple(classes) if classes else None


def _zoom(zoom_range: float | Sequence[float]) -> tuple[float, float]:
    if isinstance(zoom_range, (int, float)):
        factor = _number("zoom_range", zoom_range)
        return (1.0 - factor, 1.0 + factor)
    if isinstance(zoom_range, (list, tuple)) and len(zoom_range) == 2:
        return (_number("zoom_range", zoom_range[0]), _number("zoom_range", zoom_range[1]))
    raise InvalidArgument(
        f"`zoom_range` should be a float or a tuple or list of two floats. Received: {zoom_range}"
    )


def _shift(name: str, value: float | Sequence[float]) -> int | float | tuple[float, ...]:
    """As the spec has it: plain numbers, whatever NumPy's the user gave."""
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return _number(name, value)
    return tuple(_number(name, one) for one in value)


__all__ = ("ImageDataGenerator",)
