"""The streams that workers on other machines serve: their rings here, and what is sent there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from loaderd.gateway.cluster import Cluster
from loaderd.ipc import descriptors, messages, segment
from loaderd.ipc.manifest import Manifest
from loaderd.ipc.messages import Attach, Chunk
from loaderd.ipc.slot_layout import rows_of, slot_layout, view_slot
from loaderd.remote.packing import unpack
from loaderd.remote.worker_host import Landmarks, Rows
from loaderd.spec import spec
from loaderd.spec.url import is_url

LARGEST_BUNDLE = 2**30
"""Bytes of arrays that are sent to each worker; a stream with more is served here alone."""


class RelayedStream:
    """One stream, for all workers on other machines.

    Args:
        attach: what a worker here would get.
        fds: descriptors of ring, manifest and bundles; they stay the caller's.
        cluster: where manifest and bundles are put.

    Attributes:
        landmarks: files that a machine must reach to serve the stream, and their sizes in bytes.
        attach: what a worker there gets, encoded.
        parts: references to manifest and bundles.
        obstacle: why no other machine can serve it; empty if some can.
        users: how many workers it is attached to.
    """

    def __init__(self, attach: Attach, fds: Sequence[int], cluster: Cluster) -> None:
        self.users = 0
        self.parts: list[Any] = []
        self.attach = messages.encode(msgspec.structs.replace(attach, cached=False))
        asked = spec.decode(attach.spec)
        ring, manifest, *more = map(os.dup, fds[: 2 + len(attach.bundles)])
        memory = memoryview(segment.attach(ring, attach.ring_bytes, writable=True))
        layout = slot_layout(asked, attach.classes)
        self._slots = [view_slot(memory, layout, slot) for slot in range(attach.slots)]
        table = _bytes(manifest, attach.manifest_bytes)
        self.landmarks = _landmarks(Manifest.view(table))
        self.obstacle = ""
        if asked.output.save is not None:
            self.obstacle = "its images are saved to a folder of this machine"
        elif sum(attach.bundles) > LARGEST_BUNDLE:
            self.obstacle = "its arrays are too large to be sent"
        if self.obstacle:
            descriptors.close_all(more)
            return
        bundles = [_bytes(fd, size) for fd, size in zip(more, attach.bundles, strict=True)]
        self.parts = [cluster.put(part) for part in (table, *bundles)]

    def write(self, chunk: Chunk, rows: Rows) -> int:
        """Writes the rows of a chunk to its slot; returns the bytes that have crossed the link.

        Raises:
            ValueError: they are not of the stream's shape.
        """
        places = rows_of(self._slots[chunk.slot], chunk.first, chunk.last)
        for to, (came, factor) in zip(places, rows, strict=True):
            unpack(came, factor, to)
        return sum(came.nbytes for came, _ in rows)


class RelayedStreams:
    """The streams that are attached to any worker, by number."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._streams: dict[int, RelayedStream] = {}

    def attach(self, attach: Attach, fds: Sequence[int]) -> RelayedStream:
        """The stream for one more worker."""
        known = self._streams.get(attach.stream)
        if known is None:
            known = self._streams[attach.stream] = RelayedStream(attach, fds, self._cluster)
        known.users += 1
        return known

    def detach(self, number: int) -> None:
        """One worker less; the last one ends mapping and references."""
        stream = self._streams[number]
        stream.users -= 1
        if not stream.users:
            del self._streams[number]


def _bytes(fd: int, size: int) -> NDArray[np.uint8]:
    return np.frombuffer(segment.attach(fd, size, writable=False), np.uint8)


def _landmarks(table: Manifest) -> Landmarks:
    """The archives, or the first and the last file; none of arrays and of objects of a store."""
    if table.members is not None:
        archives = table.members.archives
        # An object store is the same for all; one that cannot be read there fails a chunk.
        return [(os.fsencode(one.path), one.size) for one in archives if not is_url(one.path)]
    paths = {table.path(sample) for sample in (0, len(table) - 1)} if len(table) else set()
    known: Landmarks = []
    for path in sorted(paths):
        try:
            known.append((path, os.stat(path).st_size))
        except OSError:  # it is missing here too, or is an array's
            continue
    return known
