"""The iterator over images that are in memory, and its arguments.

Names, arguments, checks and messages follow ``NumpyArrayIterator`` in
``keras/src/legacy/preprocessing/image.py``.
"""

from __future__ import annotations

import os
import weakref
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from loaderd.errors import EmptyDataset, InvalidArgument
from loaderd.ipc.bundle import Parts
from loaderd.spec.base import DataFormat, compute_dtype
from loaderd.spec.source import Arrays
from loaderd.spec.spec import Spec
from loaderd_client.core import dtypes
from loaderd_client.core.batch import Batch
from loaderd_client.core.user_warnings import warn
from loaderd_client.keras import adapter
from loaderd_client.keras.augmentation import Augmentation
from loaderd_client.keras.compile_spec import SAVED_ARRAYS, load_of, stages_of
from loaderd_client.keras.iterators import LoadedIterator

Array = NDArray[Any]

_KINDS = "iuf"


@dataclass(frozen=True, eq=False)
class _Given:
    """The arguments of ``flow``, of one length; ``misc`` are further inputs."""

    x: Any
    misc: list[Array]
    y: Array | None
    sample_weight: Array | None

    @classmethod
    def of(cls, x: Any, y: Any, sample_weight: Any) -> Self:
        """Splits further inputs from the images, and checks the lengths."""
        misc: list[Array] = []
        if isinstance(x, (tuple, list)):
            further = x[1] if isinstance(x[1], list) else [x[1]]
            misc, x = [np.asarray(one) for one in further], x[0]
        for one in misc:
            if len(x) != len(one):
                raise InvalidArgument(
                    "All of the arrays in `x` should have the same length. Found a pair with: "
                    f"len(x[0]) = {len(x)}, len(x[?]) = {len(one)}"
                )
        _check_length("`y` (labels)", "y", x, y)
        _check_length("`sample_weight`", "sample_weight", x, sample_weight)
        return cls(
            x,
            misc,
            None if y is None else np.asarray(y),
            None if sample_weight is None else np.asarray(sample_weight),
        )

    def part(self, subset: str, split: float, ignore_class_split: bool, fixed: bool) -> Self:
        """The rows of a subset: validation comes first, as in Keras.

        ``fixed`` splits the weights too. Keras does not, so that the training subset gets the
        weights of other samples.
        """
        if subset not in ("training", "validation"):
            raise InvalidArgument(
                f'Invalid subset name: {subset}; expected "training" or "validation".'
            )
        end = int(len(self.x) * split)
        if self.y is not None and not ignore_class_split and not _same(self.y[:end], self.y[end:]):
            raise InvalidArgument(
                "Training and validation subsets have different number of classes after the "
                "split. If your numpy arrays are sorted by the label, you might want to shuffle "
                "them."
            )
        weights = self.sample_weight
        rows = slice(end) if subset == "validation" else slice(end, None)
        return replace(
            self,
            x=self.x[rows],
            misc=[one[rows] for one in self.misc],
            y=None if self.y is None else self.y[rows],
            sample_weight=weights[rows] if fixed and weights is not None else weights,
        )

    def images(self, dtype: Any, data_format: str) -> Array:
        """The images as a numeric array, of rank 4 or refused."""
        images = np.asarray(self.x)
        if images.dtype.kind not in _KINDS:
            images = images.astype(compute_dtype(dtypes.checked(dtype)))
        if images.ndim != 4:
            raise InvalidArgument(
                "Input data in `NumpyArrayIterator` should have rank 4. You passed an array "
                f"with shape {images.shape}"
            )
        axis = 3 if data_format == "channels_last" else 1
        if images.shape[axis] not in {1, 3, 4}:
            warn(
                "NumpyArrayIterator is set to use the data format convention "
                f'"{data_format}" (channels on axis {axis}), i.e. expected either 1, 3, or 4 '
                f"channels on axis {axis}. However, it was passed an array with shape "
                f"{images.shape} ({images.shape[axis]} channels).",
            )
        return images


class _Original:
    """A weak reference to the caller's array, which the program may change in place.

    ``images`` may be a view of ``owner``, the array with the memory.
    """

    def __init__(self, images: Array, owner: Array) -> None:
        self._owner = weakref.ref(owner)
        self._shape, self._dtype, self._strides = images.shape, images.dtype, images.strides
        self._offset = images.ctypes.data - owner.ctypes.data

    @classmethod
    def of(cls, images: Array) -> Self | None:
        """None if the array cannot be changed, or cannot be rebuilt from its owner."""
        owner = images
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        may_change = owner.flags.writeable and owner.flags.forc and images.itemsize <= 8
        if not may_change:
            return None
        return cls(images, owner)

    def present(self) -> Array | None:
        """The array, or None if it was freed."""
        owner = self._owner()
        if owner is None:
            return None
        # np.ndarray requires a C-contiguous buffer; the transposed owner has the same bytes.
        flat = owner if owner.flags.c_contiguous else owner.T
        return np.ndarray(self._shape, self._dtype, flat, self._offset, self._strides)


def _rows(ids: NDArray[Any]) -> Any:
    """An index of these samples; a slice, which copies nothing, if they are consecutive."""
    first, last = int(ids[0]), int(ids[-1])
    if last - first == len(ids) - 1 and (np.diff(ids) == 1).all():
        return slice(first, last + 1)
    return ids


def _same_bits(one: Array, other: Array) -> bool:
    numbers = f"u{one.itemsize}"  # compares NaN as equal
    return np.array_equal(one.view(numbers), other.view(numbers))


def _check_length(what: str, name: str, x: Any, other: Any) -> None:
    if other is not None and len(x) != len(other):
        raise InvalidArgument(
            f"`x` (images tensor) and {what} should have the same length. "
            f"Found: x.shape = {np.asarray(x).shape}, {name}.shape = {np.asarray(other).shape}"
        )


def _same(one: Array, other: Array) -> bool:
    return np.array_equal(np.unique(one), np.unique(other))


class NumpyArrayIterator(LoadedIterator):
    """Batches of images that were in memory.

    Arguments and attributes are Keras's; see ``ImageDataGenerator.flow``.

    Attributes:
        x: the images as they lie in shared memory, read-only, of the dtype that they had.
        x_misc: the further inputs.
        y: the labels, or None.
        sample_weight: the weights, or None.
    """

    def __getstate__(self) -> dict[str, Any]:
        """See ``LoaderSequence.__getstate__``: a copy has the images as they are now."""
        return {**super().__getstate__(), "_original": None}

    def __init__(
        self,
        x: Any,
        y: Any,
        image_data_generator: Augmentation | None,
        batch_size: int = 32,
        shuffle: bool = False,
        sample_weight: Any = None,
        seed: int | None = None,
        data_format: DataFormat | None = None,
        save_to_dir: str | os.PathLike[str] | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        subset: str | None = None,
        ignore_class_split: bool = False,
        dtype: Any = None,
        *,
        max_queue_size: int = 10,
        workers: int = 1,
        use_multiprocessing: bool = False,
    ) -> None:
        del workers, use_multiprocessing
        self.image_data_generator = image_data_generator
        self.data_format: DataFormat = data_format or adapter.image_data_format()
        self.dtype = dtype or adapter.floatx()
        split = getattr(image_data_generator, "_validation_split", 0.0)
        given = _Given.of(x, y, sample_weight)
        if subset is not None:
            fixed = getattr(image_data_generator, "compat", "keras") == "fixed"
            given = given.part(subset, split, ignore_class_split, fixed)
        images = given.images(self.dtype, self.data_format)
        if not len(images):
            raise EmptyDataset("there are no images in `x`")
        self.x_misc, self.y, self.sample_weight = given.misc, given.y, given.sample_weight
        self.save_to_dir = save_to_dir
        self.save_prefix = save_prefix
        self.save_format = save_format
        self.subset = subset
        self._x: Array | None = images
        is_kept = images.dtype == dtypes.numpy_dtype(self.dtype)  # Keras makes no copy of it
        self._original = _Original.of(images) if is_kept else None
        self._load(batch_size, shuffle, seed, max_queue_size)

    def _opened(self) -> None:
        self._x = None  # frees the caller's array

    def _spec(self) -> tuple[Spec, Parts]:
        _, height, width, channels = self.x.shape
        if self.data_format == "channels_first":
            _, channels, height, width = self.x.shape
        load = load_of(self, (height, width), channels=channels)
        transforms, output, parts = stages_of(self, SAVED_ARRAYS, self._before)
        batch, order = self._batch("none"), self._order()
        spec = Spec(Arrays(), load, transforms, output, batch, order)
        return spec, {**parts, "images": self.x}

    def _apply(self) -> None:
        super()._apply()
        self._x = None  # frees an assigned array

    def _total(self) -> int:
        return len(self.x)

    def _is_as_shown(self, batch: Batch) -> bool:
        original = None if self._original is None else self._original.present()
        rows = _rows(batch.ids)
        if original is None or _same_bits(original[rows], self.x[rows]):
            return True
        self._x = original
        return False

    def _origin(self) -> str:
        return ""

    @property
    def x(self) -> Array:
        """The images as workers see them, read-only; others may be assigned.

        While the caller's own array lives, and Keras would read it too (its dtype is the
        iterator's), what changes in it counts from the next batch on.
        """
        return self._supply.parts["images"] if self._x is None else self._x

    @x.setter
    def x(self, value: Any) -> None:
        given = _Given.of(value, None, None)
        self._x = given.images(self.dtype, self.data_format)
        self._original = _Original.of(self._x) if isinstance(value, np.ndarray) else None

    def _assembled(self, batch: Batch) -> Any:
        images: Any = batch.images
        if self.x_misc:
            images = [images, *(misc[batch.ids] for misc in self.x_misc)]
        if self.y is None:
            return images
        if self.sample_weight is None:
            return images, self.y[batch.ids]
        return images, self.y[batch.ids], self.sample_weight[batch.ids]
