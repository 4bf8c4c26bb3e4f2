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
Render = Callable[[SlotArrays, Chunk, Ids], Ids]
"""Renders the rows of a chunk, without mixing; returns the ids of their samples, -1 for none."""


class Partner(NamedTuple):
    """A row that is mixed into another.

    Attributes:
        image: finished, and not mixed itself.
        label: the same; None without labels.
    """

    image: Array
    label: Array | None


class Mixer:
    """Mixes the rows of a stream's chunks.

    The partner of a row is the row before it, of the first row the last. So a chunk needs one row
    that is not its own, which is rendered again into memory of the mixer.

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
        self._spare = _one_row(layout)

    def partner(
        self, chunk: Chunk, render: Render, report: Callable[[Progress], None]
    ) -> Partner | None:
        """The partner of a chunk's first row; None if that has no image, or is in the chunk.

        Args:
            chunk: the rows.
            render: renders rows without mixing.
            report: tells the supervisor which row is in hand, where a row is tried alone: if the
                worker dies, that one is to blame.
        """
        batch = self._epochs.ids(chunk.epoch, chunk.position)
        at = (chunk.first - 1) % len(batch)
        if at < chunk.last and not chunk.first:
            return None
        alone = Chunk(chunk.ticket, chunk.stream, 0, chunk.epoch, chunk.position, 0, 1)
        is_trial = chunk.last - chunk.first == 1
        if is_trial:
            report(Progress(chunk.ticket, at))
        (sample,) = render(self._spare, alone, batch[at : at + 1])
        if is_trial:
            report(Progress(chunk.ticket))
        return None if sample < 0 else _row(self._spare, 0)

    def _last(self, slot: SlotArrays, row: int) -> Partner:
        """A copy of a row, which is mixed before it is needed as a partner."""
        spare = self._spare
        spare.images[0] = slot.images[row]
        if slot.labels is not None and spare.labels is not None:
            spare.labels[0] = slot.labels[row]
        return _row(spare, 0)

    def mix(self, slot: SlotArrays, chunk: Chunk, ids: Ids, partner: Partner | None) -> None:
        """Mixes the rows of a chunk, which are finished, in place.

        Args:
            slot: holds them.
            chunk: which they are.
            ids: their samples, -1 for a row that is left out.
            partner: of the first row, if it is not in the chunk.
        """
        samples = self._epochs.ids(chunk.epoch, chunk.position)
        if chunk.last - chunk.first == len(samples) and ids[-1] >= 0:
            partner = self._last(slot, chunk.last - 1)
        # Backwards: the row before is mixed after it was needed.
        for row in range(chunk.last - 1, chunk.first - 1, -1):
            at = row - chunk.first
            own = _row(slot, row) if ids[at] >= 0 else None
            other = partner
            if at:
                other = _row(slot, row - 1) if ids[at - 1] >= 0 else None
            if own is not None and other is not None:
                self._mix_row(own, other, (chunk.epoch, int(samples[row])))

    def _mix_row(self, own: Partner, other: Partner, key: tuple[int, int]) -> None:
        for number, operation in self._operations:
            self._draws.begin(*key, number)
            mix = operation.draw(self._draws, self._size)
            if mix is None:
                continue
            self._mix_images(own.image, other.image, mix)
            if own.label is not None and other.label is not None:
                _blend(own.label, other.label, mix.weight)

    def _mix_images(self, own: Array, other: Array, mix: Mix) -> None:
        if mix.box is None:
            _blend(own, other, mix.weight)
            return
        left, top, right, bottom = mix.box
        part: Any = (slice(top, bottom), slice(left, right))
        if self._planar:
            part = (slice(None), *part)
        own[part] = other[part]


def _row(slot: SlotArrays, row: int) -> Partner:
    return Partner(slot.images[row], None if slot.labels is None else slot.labels[row])


def _blend(own: Array, other: Array, weight: float) -> None:
    """The weighted mean, in place."""
    if own.ndim < 2:
        own[...] = weight * own + (1 - weight) * other
        return
    flat, others = (each.reshape(each.shape[0], -1) for each in (own, other))
    cv2.addWeighted(flat, weight, others, 1 - weight, 0, dst=flat)


def _one_row(layout: SlotLayout) -> SlotArrays:
    """Arrays like a slot's, for one row."""

    def empty(field: Any) -> Array:
        return np.zeros((1, *field.shape[1:]), field.stored)

    return SlotArrays(
        empty(layout.images),
        None if layout.labels is None else empty(layout.labels),
        None if layout.weights is None else empty(layout.weights),
        empty(layout.ids),
    )
