"""The layout of a slot; pure arithmetic, the same in worker and client.

A slot is a block of whole pages with these arrays, each aligned to 64 bytes::

    images  (batch, height, width, channels)  the output's dtype; bfloat16 as uint16
    labels  by label_mode, may be absent
    weights (batch,) float32: only with a substitute_weight
    ids     (batch,) int32: the manifest's sample number of each row; -1 for a skipped row

and, by the spec's annotations::

    images_1   and so on: further images of each sample, as ``images``, of their own channels
    masks      (batch, height, width, 1) uint8
    boxes      (batch, max_boxes, 4) float32, and -1 where there is none
    box_labels (batch, max_boxes) int32, the same
    keypoints  (batch, max_boxes, points, 3) float32: x, y, visible; 0 where there is none
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
    further: tuple[Field, ...] = ()
    masks: Field | None = None
    boxes: Field | None = None
    box_labels: Field | None = None
    keypoints: Field | None = None

    @property
    def delivered(self) -> dict[str, Field]:
        """The arrays that a trainer gets, by name."""
        fields = {
            "images": self.images,
            "labels": self.labels,
            "weights": self.weights,
            **{further_name(number): field for number, field in enumerate(self.further)},
            "masks": self.masks,
            "boxes": self.boxes,
            "box_labels": self.box_labels,
            "keypoints": self.keypoints,
        }
        return {name: field for name, field in fields.items() if field is not None}


def further_name(number: int) -> str:
    """The name of a further image among the delivered arrays; the first is number 0."""
    return f"images_{number + 1}"


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
    more, last = _annotations(asked, after=ids)
    nbytes = _round(last.offset + last.nbytes, PAGE)
    return SlotLayout(images, labels, weights, ids, nbytes, **more)


def _annotations(asked: Spec, after: Field) -> tuple[dict[str, Any], Field]:
    """The fields of annotations, and the last of all fields."""
    fields: dict[str, Any] = {}
    wanted = asked.annotations
    if wanted is None:
        return fields, after
    rows, most = asked.batch.batch_size, wanted.max_boxes
    further = []
    for mode in wanted.further:
        after = _after(after, (rows, *asked.shape_of(mode)), asked.output.dtype)
        further.append(after)
    fields["further"] = tuple(further)
    if wanted.masks:
        fields["masks"] = after = _after(after, (rows, *asked.image_size, 1), "uint8")
    if wanted.boxes:
        fields["boxes"] = after = _after(after, (rows, most, 4), "float32")
        fields["box_labels"] = after = _after(after, (rows, most), "int32")
    if wanted.keypoints:
        shape = (rows, most, wanted.keypoints, 3)
        fields["keypoints"] = after = _after(after, shape, "float32")
    return fields, after


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
        case "given":
            return _after(after, (rows, *asked.batch.label_shape), "float32")
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
    further: tuple[NDArray[Any], ...] = ()
    masks: NDArray[np.uint8] | None = None
    boxes: NDArray[np.float32] | None = None
    box_labels: NDArray[np.int32] | None = None
    keypoints: NDArray[np.float32] | None = None


def view_slot(buffer: memoryview, layout: SlotLayout, slot: int) -> SlotArrays:
    """The arrays of one slot, as views of a mapped ring."""
    base = slot * layout.nbytes

    def view(field: Field | None) -> Any:
        return None if field is None else _view(buffer, base, field)

    return SlotArrays(
        images=view(layout.images),
        labels=view(layout.labels),
        weights=view(layout.weights),
        ids=view(layout.ids),
        further=tuple(map(view, layout.further)),
        masks=view(layout.masks),
        boxes=view(layout.boxes),
        box_labels=view(layout.box_labels),
        keypoints=view(layout.keypoints),
    )


def _view(buffer: memoryview, base: int, field: Field) -> NDArray[Any]:
    return np.ndarray(field.shape, field.stored, buffer, base + field.offset)


def rows_of(slot: SlotArrays, first: int, last: int) -> list[NDArray[Any]]:
    """Rows ``first`` to ``last`` (excluded) of all arrays of a slot, as views, in one order."""
    single = (slot.images, slot.labels, slot.weights, slot.ids)
    fields = (*single, *slot.further, slot.masks, slot.boxes, slot.box_labels, slot.keypoints)
    return [field[first:last] for field in fields if field is not None]
