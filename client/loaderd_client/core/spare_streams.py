"""Spare streams: small streams whose flows are gone, kept so that their connections are reused.

Some programs make a flow of an array in every step, and read one batch of it. Opening a stream
takes longer than making that batch.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

from loaderd.ipc.bundle import Bundle
from loaderd.ipc.channel import Channel
from loaderd.ipc.messages import ENOUGH_SLOTS
from loaderd.spec.source import Arrays
from loaderd.spec.spec import Spec, unseeded
from loaderd_client.core.array_images import LARGE
from loaderd_client.core.stream import Kind, Stream

KEPT = 2
"""Enough for flows of images and of their masks."""


def kind_of(path: str, spec: Spec, slots: int, bundles: Sequence[Bundle]) -> Kind | None:
    """The kind of a stream.

    Args:
        path: the daemon's socket.
        spec: the requested spec.
        slots: requested slots.
        bundles: the arrays that the spec refers to.

    Returns:
        None if streams of this kind are not kept.
    """
    if not isinstance(spec.source, Arrays) or spec.order.given:
        return None
    if sum(bundle.nbytes for bundle in bundles) > LARGE:
        return None
    parts = [item for bundle in bundles for item in bundle.parts.items()]
    arrays = tuple((name, part.shape, part.dtype.str) for name, part in parts)
    return path, unseeded(spec), slots, arrays


class Spares:
    """Unused streams, at most one of each kind."""

    def __init__(self) -> None:
        self._streams: dict[Kind, Stream] = {}

    def keep(self, stream: Stream) -> None:
        """Keeps a stream, if it is small and open; drops the one kept for longest.

        Takes no lock, since the garbage collector may call it at any moment.
        """
        kind = stream.kind
        if kind is None or stream.ended or not stream.is_small or is_cramped(stream, kind[2]):
            return
        with contextlib.suppress(StopIteration, RuntimeError):  # another thread changes it
            while len(self._streams) >= KEPT and kind not in self._streams:
                self._streams.pop(next(iter(self._streams)), None)
        self._streams[kind] = stream

    def take(self, kind: Kind | None) -> Channel | None:
        """Ends a stream of this kind and returns its connection; None if there is none."""
        stream = self._streams.pop(kind, None) if kind is not None else None
        return None if stream is None else stream.detach()

    def close_one(self) -> bool:
        """Closes a stream to free its memory; returns whether there was one."""
        try:
            self._streams.popitem()[1].close()
        except KeyError:
            return False
        return True

    def clear(self) -> None:
        """Drops all streams."""
        self._streams.clear()


of_process = Spares()
"""Shared by all sessions, as programs may leave hundreds of them open."""

os.register_at_fork(after_in_child=of_process.clear)  # they belong to the parent


def is_cramped(stream: Stream, slots: int) -> bool:
    """Whether lack of memory left a ring with fewer slots than are useful."""
    return stream.slots < min(slots, ENOUGH_SLOTS, 2 * stream.batches)
