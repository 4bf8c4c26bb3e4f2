"""Mixes finished rows of a batch with their partners: ``MixUp`` and ``CutMix``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from loaderd.augment.draws import Draws
from loaderd.augment.mixing import Mix
from loaderd.augment.pipeline import divide
from loaderd.ipc.messages import Chunk, Progress
from loaderd.ipc.slot_layout import SlotArrays, SlotLayout
from loaderd.sampling.order import EpochOrder, Ids
from loaderd.spec.spec import Spec

Array = NDArray[Any]
Render = Callable[[SlotArrays, Chunk, range], Ids]
"""Renders rows of the batch of all trainers, without mixing, to those of a chunk; returns ids, -1
for none."""


class Partner(NamedTuple):
    """A row that is mixed into another.

    Attributes:
        image: finished, and not mixed itself.
        label: the same; None without labels.
        mask: the same; None without masks.
    """

    image: Array
    label: Array | None
    mask: Array | None


Partners = dict[int, Partner | None]
"""By the number of the row that needs them; None for a row that was left out."""


class Mixer:
    """Mixes the rows of a stream's chunks.

    The partner of a row is the row before it, of the first row the last; with
    ``RepeatedAugmentation(n)`` the row n before, as the row before is mostly the same image. So
    a chunk needs rows that are not its own, which are rendered again into memory of the mixer.
    Rows of trainers that share an epoch are those of one batch: the first row of one has its
    partner among the last of the one before.

    Args:
        spec: with operations that mix.
        layout: of its slots.
        epochs: the samples of its batches.
    """

    def __init__(self, spec: Spec, layout: SlotLayout, epochs: EpochOrder) -> None:
        self._operations = divide(spec.augment).mixes
        self._draws = Draws(spec.order.seed or 0)
        self._epochs = epochs
        self._size = spec.image_size
        self._planar = spec.output.data_format == "channels_first"
        self._back = spec.order.repeats
        self._spare = _rows(layout, min(self._back, spec.batch.batch_size))

    def partners(
        self, chunk: Chunk, render: Render, report: Callable[[Progress], None]
    ) -> Partners:
        """The partners that are not in the chunk, of its first rows.

        Args:
            chunk: the rows.
            render: renders rows without mixing.
            report: tells the supervisor which row is in hand, where a row is tried alone: if the
                worker dies, that one is to blame.
        """
        found: Partners = {}
        own = self._own(chunk)
        is_trial = len(own) == 1
        for row in self._first(chunk):
            at = self._partner_of(chunk, row)
            if at in own:
                continue
            to = row - chunk.first
            alone = Chunk(chunk.ticket, chunk.stream, 0, chunk.epoch, chunk.position, to, to + 1)
            if is_trial:
                report(Progress(chunk.ticket, at))
            (sample,) = render(self._spare, alone, range(at, at + 1))
            if is_trial:
                report(Progress(chunk.ticket))
            found[row] = None if sample < 0 else _row(self._spare, to)
        return found

    def _first(self, chunk: Chunk) -> range:
        """The rows whose partners are kept in memory of the mixer."""
        return range(chunk.first, min(chunk.last, chunk.first + self._back))

    def _own(self, chunk: Chunk) -> range:
        """The rows of a chunk, in the batch of all trainers."""
        return self._epochs.layout.part(chunk.position)[chunk.first : chunk.last]

    def _partner_of(self, chunk: Chunk, row: int) -> int:
        """The row of the batch of all trainers that is mixed into a row of the stream's."""
        layout = self._epochs.layout
        place = layout.part(chunk.position).start + row
        return (place - self._back) % layout.global_rows(chunk.position)

    def _copy(self, slot: SlotArrays, row: int, to: int) -> Partner:
        """A copy of a row, which is mixed before it is needed as a partner."""
        spare = self._spare
        spare.images[to] = slot.images[row]
        if slot.labels is not None and spare.labels is not None:
            spare.labels[to] = slot.labels[row]
        if slot.masks is not None and spare.masks is not None:
            spare.masks[to] = slot.masks[row]
        return _row(spare, to)

    def mix(self, slot: SlotArrays, chunk: Chunk, ids: Ids, partners: Partners) -> None:
        """Mixes the rows of a chunk, which are finished, in place.

        Args:
            slot: holds them.
            chunk: which they are.
            ids: their samples, -1 for a row that is left out.
            partners: those that are not in the chunk, by the number of the row that needs them.
        """
        samples = self._epochs.ids(chunk.epoch, chunk.position).tolist()
        occurrences = self._epochs.occurrences(chunk.epoch, chunk.position).tolist()
        there, own = (ids >= 0).tolist(), self._own(chunk)
        for row in self._first(chunk):
            at = self._partner_of(chunk, row) - own.start
            if row not in partners and there[at]:
                partners[row] = self._copy(slot, at + chunk.first, row - chunk.first)
        # Backwards: a row is mixed after it was needed.
        for row in range(chunk.last - 1, chunk.first - 1, -1):
            at = row - chunk.first
            if at < self._back:
                other = partners.get(row)
            else:
                other = _row(slot, row - self._back) if there[at - self._back] else None
            if there[at] and other is not None:
                key = (chunk.epoch, samples[row], occurrences[row])
                self._mix_row(_row(slot, row), other, key)

    def _mix_row(self, own: Partner, other: Partner, key: tuple[int, int, int]) -> None:
        for number, operation in self._operations:
            epoch, sample, occurrence = key
            self._draws.begin(epoch, sample, number, occurrence)
            mix = operation.draw(self._draws, self._size)
            if mix is None:
                continue
            self._mix_images(own.image, other.image, mix)
            if own.mask is not None and other.mask is not None and mix.box is not None:
                part = _part(mix.box)
                own.mask[part] = other.mask[part]
            if own.label is not None and other.label is not None:
                _blend(own.label, other.label, mix.weight)

    def _mix_images(self, own: Array, other: Array, mix: Mix) -> None:
        if mix.box is None:
            _blend(own, other, mix.weight)
            return
        part = (slice(None), *_part(mix.box)) if self._planar else _part(mix.box)
        own[part] = other[part]


def _row(slot: SlotArrays, row: int) -> Partner:
    # With an ellipsis a label of one number is a view too.
    label = None if slot.labels is None else slot.labels[row, ...]
    return Partner(slot.images[row], label, None if slot.masks is None else slot.masks[row])


def _part(box: tuple[int, int, int, int]) -> tuple[slice, ...]:
    """The index of a part's rows and columns."""
    left, top, right, bottom = box
    return slice(top, bottom), slice(left, right)


def _blend(own: Array, other: Array, weight: float) -> None:
    """The weighted mean, in place."""
    if own.ndim < 2:
        own[...] = weight * own + (1 - weight) * other
        return
    flat, others = (each.reshape(each.shape[0], -1) for each in (own, other))
    cv2.addWeighted(flat, weight, others, 1 - weight, 0, dst=flat)


def _rows(layout: SlotLayout, count: int) -> SlotArrays:
    """Arrays like a slot's, for some rows."""

    def empty(field: Any) -> Array:
        return np.zeros((count, *field.shape[1:]), field.stored)

    return SlotArrays(
        empty(layout.images),
        None if layout.labels is None else empty(layout.labels),
        None if layout.weights is None else empty(layout.weights),
        empty(layout.ids),
        masks=None if layout.masks is None else empty(layout.masks),
    )
