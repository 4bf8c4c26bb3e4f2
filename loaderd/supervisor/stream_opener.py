"""Opens streams, keeps them while they are read, and takes idle ones back.

::

    client ── Open ──► StreamOpener ── PendingStream: an opener lists and reserves ──┐
                          ▲   │                                                      ▼
                          │   └── the ring of the client's last stream ──────► Subscriber
                          └────────── room: idle streams are ended ◄─────────────────┘
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from loaderd.config import Settings
from loaderd.errors import ProtocolError, RequestRefused, RingReclaimed
from loaderd.ipc import segment
from loaderd.ipc.messages import IDLE_SECONDS, Ack, Open, Stalled, fitting
from loaderd.ipc.prefetch import Run
from loaderd.supervisor import request_limits
from loaderd.supervisor.children import ForkServer
from loaderd.supervisor.clients import ClientConnection
from loaderd.supervisor.loop import Loop
from loaderd.supervisor.memory_caches import MemoryCaches
from loaderd.supervisor.opener_processes import Openers
from loaderd.supervisor.scheduler import Scheduler
from loaderd.supervisor.shared_listing import ListingRequest
from loaderd.supervisor.slots import State
from loaderd.supervisor.storage_waits import Stall, Wait, Waits, timeout
from loaderd.supervisor.streams import MAX_BUNDLES, OpenStream, PendingStream, Room, StreamResources

log = logging.getLogger("loaderd")

_Listed = TypeVar("_Listed", OpenStream, PendingStream)

_NOTHING_TAKEN = Ack((), (), batches=0, samples=0, waited_ns=0)


@dataclass(slots=True)
class Subscriber:
    """A client that reads a stream: its connection, and what it has read so far.

    The scheduler has the other half of the subscription: cursor, and leases, which are the slots
    that are LEASED. Each stream has one subscriber, and is closed with it. A second one needs a
    number of its own here, a cursor of its own there, and slots that are FREE only when the last
    has released them.
    """

    stream: OpenStream
    client: ClientConnection
    took: Ack = _NOTHING_TAKEN
    """The last, for its counters."""
    first_at: float | None = None
    """When the first batch was taken."""
    first_waited_ns: int = 0
    """Nanoseconds that the client waited until then."""
    stall: Stall = field(default_factory=Stall)

    def note(self, took: Ack, now: float) -> None:
        """Keeps the counters of a client that has taken or waited."""
        self.took = took
        if self.first_at is None:
            self.first_waited_ns = took.waited_ns
            self.first_at = now if took.batches else None


class StreamOpener:
    """The streams of all clients: those that are open, and those on their way.

    Args:
        settings: the daemon's.
        loop: waits for openers.
        forks: where openers come from.
        scheduler: says which slots are in use.
        begin: called with a stream that is open, and its run.
        close: called with the number of a stream whose descriptors are closed.

    Attributes:
        subscribers: the open streams, each with the client that reads it, by the stream's number.
        pending: those on their way, by the client that asked.
        caches: those in memory.
    """

    def __init__(
        self,
        settings: Settings,
        loop: Loop,
        forks: ForkServer,
        scheduler: Scheduler,
        begin: Callable[[OpenStream, Run], None],
        close: Callable[[int], None],
    ) -> None:
        self.subscribers: dict[int, Subscriber] = {}
        self.pending: dict[ClientConnection, PendingStream] = {}
        self.caches = MemoryCaches(settings.memory_cache)
        self._settings = settings
        self._loop = loop
        self._scheduler = scheduler
        self._on_begin = begin
        self._on_close = close
        self._openers = Openers(settings, forks)
        self._last_id = 0

    def adopt(self, settings: Settings) -> None:
        """Follows new settings; they count for streams that are opened from now on."""
        self._settings = settings
        self.caches.limit = settings.memory_cache
        self._openers.adopt(settings)

    def stop(self) -> None:
        """Ends the opener that is kept for the next stream."""
        self._openers.stop()

    # -- one stream --------------------------------------------------------------------

    def request(self, client: ClientConnection, request: Open, fds: list[int]) -> None:
        """Opens a stream for a client, in place of the one that it has.

        Args:
            client: who asks.
            request: what it asks for.
            fds: descriptors of the spec and of the bundles, which stay the caller's.

        Raises:
            LoaderdError: it cannot have it.
        """
        if client in self.pending:
            raise ProtocolError("a second stream on one connection")
        if len(request.bundles) > MAX_BUNDLES:
            raise ProtocolError(f"more than {MAX_BUNDLES} bundles")
        if self._renew(client, request, fds):
            return
        self._make_number(client.pid)  # this may read what others want, and open it
        self._last_id += 1
        resources = StreamResources(self._settings, self.caches, self._openers, self._make_room)
        pending = PendingStream(self._last_id, client, request, fds, resources, self._opened)
        self.pending[client] = pending
        try:
            self._list(pending)
        except OSError:
            self._end_pending(client)
            raise

    def _list(self, pending: PendingStream) -> None:
        """Has a dataset listed, unless it is, or is about to be, for another trainer.

        Raises:
            OSError: no opener can be started.
        """
        wanted = pending.listing_request
        open_streams = [one.stream for one in self.subscribers.values()]
        like = _like(wanted, open_streams)
        others = [one for one in self.pending.values() if one.opener is not None]
        if like is None and _like(wanted, others) is not None:
            return  # until that one is open, or has failed
        opener = self._openers.take()
        self._loop.watch_channel(opener.channel, pending.read)
        pending.begin(opener, like)

    def _go_on(self) -> None:
        """Has those streams listed that have waited for the listing of one that is over."""
        for client, pending in list(self.pending.items()):
            if pending.opener is None and self.pending.get(client) is pending:
                try:
                    self._list(pending)
                except OSError as error:
                    self._end_pending(client)
                    client.refuse(RequestRefused(f"the daemon could not do it: {error}"))

    def _renew(self, client: ClientConnection, request: Open, fds: list[int]) -> bool:
        """Ends a client's stream for the next one, which gets its ring if it is like it."""
        if client.stream is None:
            return False
        last = self.subscribers[client.stream].stream
        self._last_id += 1
        is_still = self._scheduler.is_still(last.id)
        stream = last.renewed(self._last_id, request, fds) if is_still else None
        self._close(client)
        if stream is not None:
            self._begin(client, stream, request.run)
        return stream is not None

    def _opened(self, pending: PendingStream, stream: OpenStream | None) -> None:
        self._end_pending(pending.client)
        try:
            if stream is not None:
                self._begin(pending.client, stream, pending.request.run)
        finally:
            self._go_on()

    def _begin(self, client: ClientConnection, stream: OpenStream, run: Run) -> None:
        try:
            client.send(stream.opened(), (stream.ring, stream.manifest))
        except OSError:
            stream.close()
            raise
        self.subscribers[stream.id] = Subscriber(stream, client)
        client.stream = stream.id
        client.takes_descriptors = stream.is_small
        self._on_begin(stream, run)

    def leave(self, client: ClientConnection) -> None:
        """Closes what hangs on a client that is gone."""
        self._end_pending(client)
        self._close(client)
        self._go_on()

    def _end_pending(self, client: ClientConnection) -> None:
        pending = self.pending.pop(client, None)
        if pending is None:
            return
        if pending.opener is not None:
            self._loop.forget(pending.opener.channel.fileno())
        pending.end()

    def _close(self, client: ClientConnection) -> None:
        if client.stream is None:
            return
        stream = self.subscribers.pop(client.stream).stream
        client.stream = None
        stream.close()
        self._on_close(stream.id)

    # -- room for one more -------------------------------------------------------------

    def _make_number(self, pid: int) -> None:
        """Raises RequestRefused if no more streams may be opened; idle ones give way."""
        for subscriber in self._idle():
            with contextlib.suppress(RequestRefused):
                request_limits.check_number(pid, self._holders())
                return
            self._reclaim(subscriber)
        request_limits.check_number(pid, self._holders())

    def _holders(self) -> list[int]:
        """The processes that have streams, once for each stream."""
        clients = (*self.pending, *(subscriber.client for subscriber in self.subscribers.values()))
        return [client.pid for client in clients]

    def _make_room(self, wanted: int) -> Room:
        """The bytes that rings may still take; idle streams give way for what is wanted."""
        for subscriber in self._idle():
            room = self._room()
            if min(room.memory, room.shm) >= wanted:
                break
            self._reclaim(subscriber)
        return self._room()

    def _room(self) -> Room:
        rings = [subscriber.stream.ring_bytes for subscriber in self.subscribers.values()]
        rings += [pending.ring_bytes for pending in self.pending.values()]
        limit = self._settings.memory
        return Room(limit - sum(rings), segment.free(), limit)

    def _idle(self) -> list[Subscriber]:
        """Those whose clients have been silent for long, the longest first."""
        since = time.monotonic() - IDLE_SECONDS
        idle = [one for one in self.subscribers.values() if one.client.heard_at <= since]
        return sorted(idle, key=lambda one: one.client.heard_at)

    def _reclaim(self, subscriber: Subscriber) -> None:
        """Ends a stream that was not read for long; its client opens it again if need be.

        What the client has said meanwhile counts: it may have taken a batch just now.
        """
        client, stream = subscriber.client, subscriber.stream
        if self.subscribers.get(stream.id) is not subscriber:
            return
        while client.read():
            pass
        idle = time.monotonic() - client.heard_at >= IDLE_SECONDS
        if not idle or self.subscribers.get(stream.id) is not subscriber:
            return
        log.info("stream %d is idle, and gives its ring up", stream.id)
        slots = self._scheduler.streams[stream.id].slots
        stream.empty(slot for slot in range(len(slots)) if slots[slot] is not State.LEASED)
        client.fail(RingReclaimed("another stream needed the room"))

    # -- storage that does not answer --------------------------------------------------

    def check_storage(self, waits: Waits, now: float) -> None:
        """Tells trainers and the log of storage that does not answer; ends what waits too long.

        Args:
            waits: the workers that wait for storage.
            now: on the clock of ``time.monotonic``.
        """
        for subscriber in list(self.subscribers.values()):
            self._check_reader(subscriber, waits.longest(subscriber.stream.id), now)
        for pending in list(self.pending.values()):
            self._check_reader(pending, pending.wait, now)

    def _check_reader(
        self, reader: Subscriber | PendingStream, wait: Wait | None, now: float
    ) -> None:
        limit = self._settings.io_timeout
        text = reader.stall.update(wait, now, limit)
        if text:
            log.warning("%s (client %d)", text, reader.client.pid)
            reader.client.send(Stalled(fitting(text)))
        if wait is not None and now - wait.since > limit:
            reader.client.fail(timeout(wait, limit))


def _like(wanted: ListingRequest | None, others: Iterable[_Listed]) -> _Listed | None:
    """The first of others that was made for another trainer of the same epochs."""
    if wanted is None:
        return None
    return next((one for one in others if wanted.is_like(one.listing_request)), None)
