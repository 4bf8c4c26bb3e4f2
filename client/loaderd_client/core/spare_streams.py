"""Spare streams: small streams whose flows are gone, kept so that their connections are reused.

Some programs make a flow of an array in every step, and read one batch of it. Opening a stream
takes longer than making that batch.
"""

from __future__ import annotations

import contextlib
import os

from loaderd.ipc.channel import Channel
from loaderd.ipc.messages import ENOUGH_SLOTS
from loaderd.spec.source import Arrays
from loaderd.spec.spec import unseeded
from loaderd_client.core.array_images import LARGE
from loaderd_client.core.stream import Kind, Stream, StreamRequest

KEPT = 2
"""Enough for flows of images and of their masks."""


def kind_of(path: str, request: StreamRequest) -> Kind | None:
    """The kind of a requested stream of the daemon at ``path``; None if it is not kept."""
    spec, bundles = request.spec, request.bundles
    if not isinstance(spec.source, Arrays) or spec.order.given or request.share is not None:
        return None
    if sum(bundle.nbytes for bundle in bundles) > LARGE:
        return None
    parts = [item for bundle in bundles for item in bundle.parts.items()]
    arrays = tuple((name, part.shape, part.dtype.str) for name, part in parts)
    return path, unseeded(spec), request.slots, arrays


_streams: dict[Kind, Stream] = {}
"""At most one of each kind; shared by all sessions, as programs may leave hundreds of them open."""

os.register_at_fork(after_in_child=_streams.clear)  # they belong to the parent


def keep(stream: Stream) -> None:
    """Keeps a stream, if it is small and open; drops the one kept for longest.

    Takes no lock, since the garbage collector may call it at any moment.
    """
    kind = stream.kind
    if kind is None or stream.ended or not stream.is_small or is_cramped(stream, kind[2]):
        return
    with contextlib.suppress(StopIteration, RuntimeError):  # another thread changes it
        while len(_streams) >= KEPT and kind not in _streams:
            _streams.pop(next(iter(_streams)), None)
    _streams[kind] = stream


def take(kind: Kind | None) -> Channel | None:
    """Ends a stream of this kind and returns its connection; None if there is none."""
    stream = _streams.pop(kind, None) if kind is not None else None
    return None if stream is None else stream.detach()


def close_one() -> bool:
    """Closes a stream to free its memory; returns whether there was one."""
    try:
        _streams.popitem()[1].close()
    except KeyError:
        return False
    return True


def is_cramped(stream: Stream, slots: int) -> bool:
    """Whether lack of memory left a ring with fewer slots than are useful."""
    return stream.slots < min(slots, ENOUGH_SLOTS, 2 * stream.batches)
