"""Opens streams, keeps them while they are read, and takes idle ones back.

::

    client ── Open ──► StreamOpener ── PendingStream: an opener lists and reserves ──┐
                          ▲   │                                                      ▼
                          │   ├── the ring of the client's last stream ──────► Subscriber
                          │   ├── the shared stream of that name ─────────────►  ▲
                          └────────── room: idle streams are ended ◄─────────────────┘
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TypeVar

from loaderd.config import Settings
from loaderd.errors import LoaderdError, ProtocolError, RequestRefused
from loaderd.ipc import descriptors
from loaderd.ipc.messages import Joined, Open, Stalled, fitting, refusal
from loaderd.ipc.prefetch import Run
from loaderd.supervisor.children import ForkServer
from loaderd.supervisor.clients import ClientConnection
from loaderd.supervisor.loop import Loop
from loaderd.supervisor.memory_caches import MemoryCaches
from loaderd.supervisor.opener_processes import Openers
from loaderd.supervisor.shared_listing import ListingRequest
from loaderd.supervisor.sharing import Parked, SharedStreams, check_same, shared_name
from loaderd.supervisor.storage_waits import Wait, Waits, timeout
from loaderd.supervisor.stream_room import StreamRoom
from loaderd.supervisor.streams import (
    MAX_BUNDLES,
    OpenStream,
    PendingStream,
    StreamResources,
)
from loaderd.supervisor.subscribers import Subscriber, Subscribers

log = logging.getLogger("loaderd")

_Listed = TypeVar("_Listed", OpenStream, PendingStream)


class StreamOpener:
    """The streams of all clients: those that are open, and those on their way.

    Args:
        settings: the daemon's.
        loop: waits for openers.
        forks: where openers come from.
        sharing: the subscribers of shared streams, and the scheduler of all.
        begin: called with a stream that is open, and its run.
        close: called with the number of a stream whose descriptors are closed.

    Attributes:
        streams: those that are open, by number.
        subscribers: the clients that read them.
        pending: those on their way, by the client that asked.
        caches: those in memory.
        sharing: the subscribers of shared streams.
    """

    def __init__(
        self,
        settings: Settings,
        loop: Loop,
        forks: ForkServer,
        sharing: SharedStreams,
        begin: Callable[[OpenStream, Run], None],
        close: Callable[[int], None],
    ) -> None:
        self.streams: dict[int, OpenStream] = {}
        self.subscribers = Subscribers()
        self.pending: dict[ClientConnection, PendingStream] = {}
        self.caches = MemoryCaches(settings.memory_cache)
        self._settings = settings
        self._loop = loop
        self.sharing = sharing
        self._scheduler = sharing.scheduler
        self._parked = Parked()
        self._on_begin = begin
        self._on_close = close
        self._openers = Openers(settings, forks)
        self._room = StreamRoom(
            self._scheduler, self.streams, self.subscribers, self.pending, settings.memory
        )
        self._last_id = 0

    def adopt(self, settings: Settings) -> None:
        """Follows new settings; they count for streams that are opened from now on."""
        self._settings = settings
        self.caches.limit = settings.memory_cache
        self._room.limit = settings.memory
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
        if client in self.pending or client in self._parked:
            raise ProtocolError("a second stream on one connection")
        if len(request.bundles) > MAX_BUNDLES:
            raise ProtocolError(f"more than {MAX_BUNDLES} bundles")
        if self._renew(client, request, fds) or self._share(client, request, fds):
            return
        self._room.make_number(client.pid)  # this may read what others want, and open it
        self._last_id += 1
        resources = StreamResources(self._settings, self.caches, self._openers, self._room.make)
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
        like = _like(wanted, self.streams.values())
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
        if client.subscriber is None:
            return False
        last = self.subscribers[client.subscriber].stream
        self._last_id += 1
        is_shared = request.share or last.request.share
        is_still = not is_shared and self._scheduler.streams[last.id].is_still
        stream = last.renewed(self._last_id, request, fds) if is_still else None
        self._close(client)
        if stream is not None:
            self._begin(client, stream, request.run)
        return stream is not None

    def _share(self, client: ClientConnection, request: Open, fds: list[int]) -> bool:
        """Has a client join the shared stream of a name, if that is open or on its way."""
        stream, name = self.shared(shared_name(request)), shared_name(request)
        on_their_way = {shared_name(pending.request) for pending in self.pending.values()} - {""}
        if stream is not None:
            check_same(stream, request, fds[0], self._settings.user_code)
            self._join(client, stream, request)
        elif name in on_their_way:
            self._parked[client] = request, tuple(descriptors.copies(fds))
        return stream is not None or name in on_their_way

    def shared(self, name: str) -> OpenStream | None:
        """The shared stream of a name, if it is open."""
        of_name = (one for one in self.streams.values() if name == shared_name(one.request) != "")
        return next(of_name, None)

    def _opened(self, pending: PendingStream, stream: OpenStream | None) -> None:
        self._end_pending(pending.client)
        try:
            if stream is not None:
                self._begin(pending.client, stream, pending.request.run)
        finally:
            self._ask_again(shared_name(pending.request))
            self._go_on()

    def _ask_again(self, name: str) -> None:
        """Goes on with those who wait for a shared stream that is open now, or cannot be."""
        for client, (request, fds) in self._parked.taken(name):
            try:
                self.request(client, request, list(fds))
            except (LoaderdError, OSError) as error:
                client.refuse(refusal(error))
            finally:
                descriptors.close_all(fds)

    def _begin(self, client: ClientConnection, stream: OpenStream, run: Run) -> None:
        self.streams[stream.id] = stream
        self._on_begin(stream, run)
        if shared_name(stream.request):
            self._join(client, stream, stream.request)
        else:
            self._subscribe(client, stream, stream.id)
            client.takes_descriptors = stream.is_small

    def _join(self, client: ClientConnection, stream: OpenStream, request: Open) -> None:
        self._last_id = number = self._last_id + 1
        self._subscribe(client, stream, number, self.sharing.join(stream.id, number, request))
        client.takes_descriptors = False
        self.sharing.begin(stream.id, number)

    def _subscribe(
        self,
        client: ClientConnection,
        stream: OpenStream,
        number: int,
        joined: Joined | None = None,
    ) -> None:
        self.subscribers[number] = Subscriber(stream, client)
        client.subscriber = number
        try:
            client.send(stream.opened(joined), (stream.ring, stream.manifest))
        except OSError:
            self._close(client)
            raise

    def leave(self, client: ClientConnection) -> None:
        """Closes what hangs on a client that is gone."""
        pending = self.pending.get(client)
        self._parked.drop(client)
        self._end_pending(client)
        self._close(client)
        if pending is not None:
            self._ask_again(shared_name(pending.request))
        self._go_on()

    def _end_pending(self, client: ClientConnection) -> None:
        pending = self.pending.pop(client, None)
        if pending is None:
            return
        if pending.opener is not None:
            self._loop.forget(pending.opener.channel.fileno())
        pending.end()

    def _close(self, client: ClientConnection) -> None:
        number, client.subscriber = client.subscriber, None
        if number is None:
            return
        stream = self.subscribers.pop(number).stream
        if self.subscribers.of(stream.id):
            self.sharing.leave(stream.id, number, keeps_leases=client.failed)
            return
        del self.streams[stream.id]
        stream.close()
        self._on_close(stream.id)

    # -- storage that does not answer --------------------------------------------------

    def check_storage(self, waits: Waits, now: float) -> None:
        """Tells trainers and the log of storage that does not answer; ends what waits too long.

        Args:
            waits: the workers that wait for storage.
            now: on the clock of ``time.monotonic``.
        """
        limit = self._settings.io_timeout
        for subscriber in list(self.subscribers.values()):
            _check_reader(subscriber, waits.longest(subscriber.stream.id), now, limit)
        for pending in list(self.pending.values()):
            _check_reader(pending, pending.wait, now, limit)


def _check_reader(
    reader: Subscriber | PendingStream, wait: Wait | None, now: float, limit: float
) -> None:
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
