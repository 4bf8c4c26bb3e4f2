"""The layout of a slot; pure arithmetic, the same in worker and client.

A slot is a block of whole pages with these arrays, each aligned to 64 bytes::

    images  (batch, height, width, channels)  the output's dtype; bfloat16 as uint16
    labels  by label_mode, may be absent
    weights (batch,) float32: only with a substitute_weight
    ids     (batch,) int32: the manifest's sample number of each row; -1 for a skipped row
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loaderd.spec.source import Arrays
from loaderd.spec.spec import Spec

ALIGNMENT = 64
"""TensorFlow takes an array without a copy only at this alignment."""

PAGE = 4096

SMALL = 2**19
"""Bytes of a slot up to which opening a stream takes longer than making a batch."""


class Field(NamedTuple):
    """One array of a slot."""

    offset: int
    shape: tuple[int, ...]
    dtype: str

    @property
    def stored(self) -> np.dtype[Any]:
        """The dtype of its memory: uint16 for the bits of bfloat16, which NumPy lacks."""
        return np.dtype("uint16" if self.dtype == "bfloat16" else self.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return math.prod(self.shape) * self.stored.itemsize


class SlotLayout(NamedTuple):
    """The arrays of a slot, and the slot's length in bytes."""

    images: Field
    labels: Field | None
    weights: Field | None
    ids: Field
    nbytes: int


def is_small(asked: Spec, slot_bytes: int) -> bool:
    """Whether a batch takes less time than opening a stream.

    One worker then finishes the first batch sooner than two, and the ring is reused.
    """
    decoded = isinstance(asked.source, Arrays) and asked.function is None
    return decoded and slot_bytes <= SMALL


def slot_layout(asked: Spec, classes: int) -> SlotLayout:
    """Lays out a slot.

    Args:
        asked: gives the images' shape and dtype, the number of rows and the kind of labels.
        classes: number of classes, the width of categorical labels.

    Returns:
        Fields relative to the slot's start.
    """
    batch = asked.batch
    images = Field(0, (batch.batch_size, *asked.image_shape), asked.output.dtype)
    labels = _labels(asked, classes, after=images)
    weights = None
    if batch.substitute_weight is not None:
        weights = _after(labels or images, (batch.batch_size,), "float32")
    ids = _after(weights or labels or images, (batch.batch_size,), "int32")
    return SlotLayout(images, labels, weights, ids, _round(ids.offset + ids.nbytes, PAGE))


def _labels(asked: Spec, classes: int, after: Field) -> Field | None:
    rows, dtype = asked.batch.batch_size, asked.output.dtype
    match asked.batch.label_mode:
        case "categorical":
            return _after(after, (rows, classes), dtype)
        case "sparse":
            return _after(after, (rows,), dtype)
        case "int":
            return _after(after, (rows,), "int32")
        case "binary":
            return _after(after, (rows, 1), "float32")
        case "input":
            return _after(after, after.shape, after.dtype)
        case "none":
            return None


def _after(field: Field, shape: tuple[int, ...], dtype: str) -> Field:
    return Field(_round(field.offset + field.nbytes, ALIGNMENT), shape, dtype)


def _round(size: int, unit: int) -> int:
    return -(-size // unit) * unit


class SlotArrays(NamedTuple):
    """A slot's arrays as views of shared memory; those of bfloat16 are uint16."""

    images: NDArray[Any]
    labels: NDArray[Any] | None
    weights: NDArray[np.float32] | None
    ids: NDArray[np.int32]


def view_slot(buffer: memoryview, layout: SlotLayout, slot: int) -> SlotArrays:
    """The arrays of one slot, as views of a mapped ring."""
    base = slot * layout.nbytes
    labels = None if layout.labels is None else _view(buffer, base, layout.labels)
    weights = None if layout.weights is None else _view(buffer, base, layout.weights)
    images, ids = _view(buffer, base, layout.images), _view(buffer, base, layout.ids)
    return SlotArrays(images, labels, weights, ids)


def _view(buffer: memoryview, base: int, field: Field) -> NDArray[Any]:
    return np.ndarray(field.shape, field.stored, buffer, base + field.offset)
