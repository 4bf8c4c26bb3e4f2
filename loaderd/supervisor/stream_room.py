"""Room for one more stream: idle ones give way, and their clients open them again."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping

from loaderd.errors import RequestRefused, RingReclaimed
from loaderd.ipc import segment
from loaderd.ipc.messages import IDLE_SECONDS
from loaderd.supervisor import request_limits
from loaderd.supervisor.clients import ClientConnection
from loaderd.supervisor.scheduler import Scheduler
from loaderd.supervisor.slots import State
from loaderd.supervisor.streams import OpenStream, PendingStream, Room
from loaderd.supervisor.subscribers import Subscribers

log = logging.getLogger("loaderd")


class StreamRoom:
    """Numbers and memory of streams, as live views of those that there are.

    Args:
        scheduler: says which slots are in use.
        streams: the open streams by number.
        subscribers: who reads them.
        pending: those on their way.

    Attributes:
        limit: bytes that all rings may take.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        streams: Mapping[int, OpenStream],
        subscribers: Subscribers,
        pending: Mapping[ClientConnection, PendingStream],
        limit: int,
    ) -> None:
        self.limit = limit
        self._scheduler = scheduler
        self._streams = streams
        self._subscribers = subscribers
        self._pending = pending

    def make_number(self, pid: int) -> None:
        """Raises RequestRefused if no more streams may be opened; idle ones give way."""
        for stream in self._idle():
            with contextlib.suppress(RequestRefused):
                request_limits.check_number(pid, self._holders())
                return
            self._reclaim(stream)
        request_limits.check_number(pid, self._holders())

    def _holders(self) -> list[int]:
        """The processes that have streams, once for each stream."""
        subscribers = self._subscribers.values()
        clients = (*self._pending, *(subscriber.client for subscriber in subscribers))
        return [client.pid for client in clients]

    def make(self, wanted: int) -> Room:
        """The bytes that rings may still take; idle streams give way for what is wanted."""
        for stream in self._idle():
            room = self._room()
            if min(room.memory, room.shm) >= wanted:
                break
            self._reclaim(stream)
        return self._room()

    def _room(self) -> Room:
        rings = [stream.ring_bytes for stream in self._streams.values()]
        rings += [pending.ring_bytes for pending in self._pending.values()]
        return Room(self.limit - sum(rings), segment.free(), self.limit)

    def _idle(self) -> list[OpenStream]:
        """Those whose clients have all been silent for long, the longest first."""
        since, heard_at = time.monotonic() - IDLE_SECONDS, self._subscribers.heard_at()
        idle = [one for one in self._streams.values() if heard_at[one.id] <= since]
        return sorted(idle, key=lambda one: heard_at[one.id])

    def _reclaim(self, stream: OpenStream) -> None:
        """Ends a stream that was not read for long; its clients open it again if need be.

        What they have said meanwhile counts: one may have taken a batch just now.
        """
        clients = [one.client for one in self._subscribers.of(stream.id).values()]
        for client in clients:
            while client.read():
                pass
        if self._streams.get(stream.id) is not stream:
            return
        if time.monotonic() - max(client.heard_at for client in clients) < IDLE_SECONDS:
            return
        log.info("stream %d is idle, and gives its ring up", stream.id)
        slots = self._scheduler.streams[stream.id].slots
        stream.empty(slot for slot in range(len(slots)) if slots[slot] is not State.LEASED)
        for subscriber in self._subscribers.of(stream.id).values():
            subscriber.client.fail(RingReclaimed("another stream needed the room"))
