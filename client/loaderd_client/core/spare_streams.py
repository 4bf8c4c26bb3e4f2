"""Streams whose flows are gone: the next flow like it is opened on the connection of one.

Programs make a flow of an array in every step, and read a batch of it. To open a stream takes
longer than to make that batch, so the last streams are kept, if they are small.
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
"""An image and its mask."""


def kind_of(path: str, spec: Spec, slots: int, bundles: Sequence[Bundle]) -> Kind | None:
    """The kind of a stream.

    Args:
        path: the daemon's socket.
        spec: what was asked for.
        slots: slots wished for.
        bundles: the arrays that the spec means.

    Returns:
        None if it is of a kind that is not kept.
    """
    if not isinstance(spec.source, Arrays) or spec.order.given:
        return None
    if sum(bundle.nbytes for bundle in bundles) > LARGE:
        return None
    parts = [item for bundle in bundles for item in bundle.parts.items()]
    arrays = tuple((name, part.shape, part.dtype.str) for name, part in parts)
    return path, unseeded(spec), slots, arrays


class Spares:
    """Streams that nobody has any more, one of each kind."""

    def __init__(self) -> None:
        self._streams: dict[Kind, Stream] = {}

    def keep(self, stream: Stream) -> None:
        """Keeps a stream, if it is one to be kept; that which was kept for longest goes.

        May be called at any moment, also by the garbage collector: it takes no lock.
        """
        kind = stream.kind
        if kind is None or stream.ended or not stream.is_small or is_cramped(stream, kind[2]):
            return
        with contextlib.suppress(StopIteration, RuntimeError):  # another thread is at it
            while len(self._streams) >= KEPT and kind not in self._streams:
                self._streams.pop(next(iter(self._streams)), None)
        self._streams[kind] = stream

    def take(self, kind: Kind | None) -> Channel | None:
        """The connection of a stream of this kind, which is ended; None if there is none."""
        stream = self._streams.pop(kind, None) if kind is not None else None
        return None if stream is None else stream.detach()

    def close_one(self) -> bool:
        """Closes a stream, as its room is needed; returns whether there was one."""
        try:
            self._streams.popitem()[1].close()
        except KeyError:
            return False
        return True

    def clear(self) -> None:
        """Forgets all streams."""
        self._streams.clear()


of_process = Spares()
"""Those of all sessions: programs may leave sessions open by the hundred."""

os.register_at_fork(after_in_child=of_process.clear)  # they are the parent's


def is_cramped(stream: Stream, slots: int) -> bool:
    """Whether a ring has fewer slots than are of use, as there was no room."""
    return stream.slots < min(slots, ENOUGH_SLOTS, 2 * stream.batches)
