"""Renders batches of a stream in this process alone, into a ring of one slot."""

from __future__ import annotations

import os
from collections.abc import Sequence

import msgspec

from loaderd.config import Settings
from loaderd.ipc import segment
from loaderd.ipc.channel import Channel
from loaderd.ipc.manifest import Manifest
from loaderd.ipc.messages import Attach, Chunk
from loaderd.ipc.prefetch import Place
from loaderd.ipc.slot_layout import SlotArrays, slot_layout, view_slot
from loaderd.sampling.epoch_layout import EpochLayout
from loaderd.spec import spec
from loaderd.spec.spec import Spec
from loaderd.worker.stream_renderer import StreamRenderer
from loaderd.worker.work_queue import WorkQueue


class OneSlot:
    """A stream's batches, one at a time, by the code of the workers; none is saved (save_to_dir).

    Args:
        attach: the stream, without ring and cache.
        fds: descriptors of manifest and bundles; this object closes them.
        channel: takes what a worker would tell the supervisor.
        settings: the daemon's.

    Attributes:
        spec: of the stream.
        manifest: its samples.
        batches: in an epoch.

    Raises:
        LoaderdError: as of :class:`StreamRenderer`.
    """

    def __init__(
        self, attach: Attach, fds: Sequence[int], channel: Channel, settings: Settings
    ) -> None:
        table = segment.attach(os.dup(fds[0]), attach.manifest_bytes, writable=False)
        self.manifest = Manifest.view(table)
        samples = len(self.manifest)
        self.spec = _unsaved(spec.fitted(spec.decode(attach.spec), samples))
        layout = slot_layout(self.spec, attach.classes)
        ring = os.memfd_create("loaderd-slot")
        os.ftruncate(ring, layout.nbytes)
        memory = memoryview(segment.attach(os.dup(ring), layout.nbytes, writable=True))
        self._slot = view_slot(memory, layout, 0)
        order = self.spec.order
        self._epoch = EpochLayout(samples, self.spec.batch.batch_size, order.shard)
        alone = msgspec.structs.replace(attach, slots=1, ring_bytes=layout.nbytes, cached=False)
        queue = WorkQueue(channel, {})
        self._renderer = StreamRenderer(alone, self.spec, [ring, *fds], queue, settings, {})

    @property
    def batches(self) -> int:
        """Batches in an epoch."""
        return self._epoch.batches

    def render(self, place: Place) -> tuple[SlotArrays, int]:
        """The batch at a place, valid until the next call, and its number of rows.

        Raises:
            LoaderdError: a sample cannot be rendered.
        """
        rows = self._epoch.rows(place[1])
        self._renderer.write(Chunk(0, 0, 0, *place, 0, rows))
        return self._slot, rows


def _unsaved(asked: Spec) -> Spec:
    output = msgspec.structs.replace(asked.output, save=None)
    return msgspec.structs.replace(asked, output=output)
