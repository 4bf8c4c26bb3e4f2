"""Batches, and their construction from the slots of a ring."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from loaderd.errors import BadImage, LoaderdError, from_wire
from loaderd.ipc.messages import BatchFailed, Opened, Ready
from loaderd.ipc.prefetch import Place
from loaderd.ipc.slot_layout import SlotLayout
from loaderd.ipc.text import printable
from loaderd.sampling.epoch_layout import EpochLayout
from loaderd.spec.spec import Spec
from loaderd_client.core.lease import Ring

_COPIED = 2**15
"""Largest slot in bytes that is copied: below this a copy is faster than a lease."""


class Batch(NamedTuple):
    """One batch.

    Attributes:
        images: (rows, height, width, channels) of the stream's dtype.
        labels: one row for each image, or None.
        weights: float32 (rows,): 1, and ``substitute_weight`` for substitutes; or None.
        ids: int32 (rows,): sample numbers, as ``filenames`` counts them.
        place: (epoch, position).
        attempt: how often chunks of it were assigned again after a worker's death.
        annotations: masks, boxes, box_labels and keypoints, as far as the spec asks for them; see
            ``loaderd.ipc.slot_layout``.
    """

    images: NDArray[Any]
    labels: NDArray[Any] | None
    weights: NDArray[np.float32] | None
    ids: NDArray[np.int32]
    place: Place
    attempt: int
    annotations: Mapping[str, NDArray[Any]] = MappingProxyType({})

    @property
    def labelled(self) -> tuple[NDArray[Any] | None, ...]:
        """(images, labels), and weights if there are any."""
        parts = (self.images, self.labels, self.weights)
        return parts if self.weights is not None else parts[:2]

    def first(self, rows: int) -> Batch:
        """The batch's first rows alone."""
        labels = None if self.labels is None else self.labels[:rows]
        weights = None if self.weights is None else self.weights[:rows]
        return self._replace(
            images=self.images[:rows],
            labels=labels,
            weights=weights,
            ids=self.ids[:rows],
            annotations={name: array[:rows] for name, array in self.annotations.items()},
        )


def epoch_layout(opened: Opened, spec: Spec) -> EpochLayout:
    """The batches of an epoch, by the daemon's answer and the spec that was requested."""
    return EpochLayout(opened.samples, opened.batch_size, spec.order.shard)


class Slot(NamedTuple):
    """A slot that the client holds: a batch, or the error in its place."""

    number: int
    attempt: int
    skipped: int
    error: LoaderdError | None

    @classmethod
    def of(cls, message: Ready | BatchFailed) -> Self:
        """The slot of a message."""
        if isinstance(message, Ready):
            return cls(message.slot, message.attempt, message.skipped, None)
        return cls(message.slot, 0, 0, from_wire(message.kind, message.text))


class RingBatches:
    """The batches in the slots of a ring.

    Args:
        ring: the slots.
        layout: of a slot.
        opened: the daemon's answer, with the number of samples.
        spec: that was requested.
    """

    def __init__(self, ring: Ring, layout: SlotLayout, opened: Opened, spec: Spec) -> None:
        self.ring = ring
        self._names = tuple(layout.delivered)
        self._copies = layout.nbytes <= _COPIED
        self._epoch = epoch_layout(opened, spec)
        self._directory = spec.source.directory

    def rows(self, place: Place, slot: Slot) -> int:
        """Samples in a batch, without skipped ones."""
        return self._epoch.rows(place[1]) - slot.skipped

    def error(self, place: Place, slot: Slot) -> LoaderdError | None:
        """The error of a slot without a batch; None if it has one."""
        if slot.error is not None or self.rows(place, slot) > 0:
            return slot.error
        return BadImage(
            f"every image of batch {place} of {printable(self._directory)} could not be read "
            "(`loaderd errors` says why)"
        )

    def is_leasable(self, slot: Slot) -> bool:
        """Whether a slot may be leased: small ones, and those with skipped rows, are copied."""
        return not (slot.skipped or self._copies)

    def make(self, place: Place, slot: Slot, leased: bool) -> Batch:
        """The batch of a slot, as views (``leased``) or copies, without skipped rows."""
        rows = self._epoch.rows(place[1])
        ids = self.ring.ids(slot.number, rows)
        arrays = (self.ring.lease if leased else self.ring.copy)(slot.number, rows)
        if slot.skipped:
            kept = ids >= 0
            arrays, ids = [array[kept] for array in arrays], ids[kept]
        named: dict[str, Any] = dict(zip(self._names, arrays, strict=True))
        images, labels, weights = (
            named.pop(name, None) for name in ("images", "labels", "weights")
        )
        return Batch(images, labels, weights, ids, place, slot.attempt, named)
