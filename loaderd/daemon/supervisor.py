"""The one loop of the daemon: it waits for sockets and deaths, and acts on what comes.

::

    clients ── server ──┐                        ┌── Ready, Spoilt ──► clients
    workers ── crew ────┼──► scheduler: actions ─┤
    signals ────────────┘                        └── crew: Attach, Chunk ──► workers

Who decides: the scheduler alone. Who writes: workers, to slots that it gave them. This
module carries events to it and performs its actions, and never touches a pixel. Nothing
here blocks for long: listing and reserving are an opener's, signals only wake the loop.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable

from loaderd.config import Settings
from loaderd.daemon import child, limits
from loaderd.daemon import pool as pools
from loaderd.daemon.actions import Action, Assign, Deliver, Dismiss, Isolate, Spoil
from loaderd.daemon.bad import BadImages
from loaderd.daemon.caches import MemoryCaches
from loaderd.daemon.crew import Crew
from loaderd.daemon.loop import Loop
from loaderd.daemon.notify import Notifier
from loaderd.daemon.openers import Openers
from loaderd.daemon.pool import Child, Work
from loaderd.daemon.scheduler import Scheduler
from loaderd.daemon.server import Conversation, Requests, accept, listening
from loaderd.daemon.slots import State
from loaderd.daemon.snapshot import Photographer
from loaderd.daemon.stalls import Wait, timeout
from loaderd.daemon.streams import MOST_BUNDLES, Opening, Room, Stream
from loaderd.errors import (
    DaemonError,
    Draining,
    LoaderdError,
    NoWorkers,
    ProtocolError,
    RequestRefused,
    RingReclaimed,
)
from loaderd.wire import segment
from loaderd.wire.messages import (
    IDLE_SECONDS,
    Bad,
    Open,
    Plan,
    Ready,
    Spoilt,
    Stalled,
    Took,
    fitting,
)
from loaderd.wire.text import readable

log = logging.getLogger("loaderd")

LATE_SECONDS = 1.0
"""The supervisor itself has stood still when it looks so much later than it should."""

FIXED = ("name", "socket", "cache_dir", "user_code", "owner", "ready_fd")
"""Settings that stay until the daemon is started again."""


def serve(
    settings: Settings,
    on_ready: Callable[[], None],
    work: Work = child.work,
    reload: Callable[[], Settings] | None = None,
) -> None:
    """Runs the daemon until it is told to stop, or its owner ends.

    Args:
        settings: how to run.
        on_ready: called once, when the daemon can serve.
        work: what a worker process runs on its end of the socket.
        reload: gives the settings anew, for SIGHUP; None keeps them and renews the workers.
            It may raise a LoaderdError.

    Raises:
        DaemonRunning: another daemon serves the address.
        DaemonError: the address cannot be used, or no worker can start.
    """
    notifier = Notifier(os.environ)  # before the first child, which shall not speak for us
    if settings.owner is not None:
        notifier = Notifier({})  # what we inherited was meant for the trainer
    pools.warm()
    with Loop() as loop, listening(settings.socket) as listener:
        supervisor = Supervisor(settings, loop, on_ready, work, notifier)
        loop.on_signals(
            {
                signal.SIGTERM: supervisor.drain,
                signal.SIGINT: supervisor.drain,
                signal.SIGHUP: lambda: supervisor.renew(reload),
            }
        )
        supervisor.follow_owner()
        supervisor.listen(listener)
        log.info("serving %s with %d workers", settings.socket, settings.workers)
        try:
            supervisor.run()
        finally:
            supervisor.shut_down()


class Supervisor:
    """The daemon, on a loop.

    Args:
        settings: how to run.
        loop: waits for sockets, deaths and signals.
        on_ready: called once, when the first worker is up.
        work: what a worker process runs on its end of the socket.
        notifier: tells the service manager how we are.
    """

    def __init__(
        self,
        settings: Settings,
        loop: Loop,
        on_ready: Callable[[], None],
        work: Work = child.work,
        notifier: Notifier | None = None,
    ) -> None:
        self._notifier = notifier or Notifier({})
        self._settings = settings
        self._loop = loop
        self._on_ready: Callable[[], None] | None = on_ready
        self._scheduler = Scheduler()
        self._clients: set[Conversation] = set()
        self._streams: dict[int, Stream] = {}
        self._openings: dict[Conversation, Opening] = {}
        self._caches = MemoryCaches(settings.memory_cache)
        self._openers = Openers(settings, self._reap)
        self._bad = BadImages()
        self._last_id = 0
        self._end_at: float | None = None
        self._next_check = 0.0
        self._crew = Crew(
            settings,
            loop,
            self._scheduler,
            self._streams,
            work,
            self._perform,
            self._worker_up,
            self._note_bad,
        )
        self._photographer = Photographer(
            settings,
            self._scheduler,
            self._crew,
            self._streams,
            self._openings,
            self._caches,
            self._bad,
        )
        self._requests = Requests(
            observe=self._photographer.take,
            stop=self.drain,
            list_bad=self._bad.page,
            open=self._open,
            plan=self._plan,
            took=self._took,
            gone=self._gone,
        )

    def run(self) -> None:
        """Serves until the end.

        Raises:
            DaemonError: no worker can start.
        """
        while not self._ended():
            for _ in range(self._crew.pool.missing(time.monotonic())):
                if self._crew.pool.hopeless:
                    self._despair()
                self._crew.start()
            self._loop.turn(self._patience())
            self._check()

    # -- the end ---------------------------------------------------------------------

    def drain(self) -> None:
        """Finishes what is being filled and then ends; asked twice, ends at once."""
        now = time.monotonic()
        log.info("draining" if self._end_at is None else "ending at once")
        self._notifier.stopping()
        self._end_at = now + self._settings.grace if self._end_at is None else now
        self._scheduler.drain()
        self._photographer.draining = True

    def follow_owner(self) -> None:
        """A private daemon ends as soon as its trainer does, however that ends."""
        owner = self._settings.owner
        if owner is None:
            return
        try:
            self._loop.watch(os.pidfd_open(owner), self._end_now)
        except ProcessLookupError:
            self._end_now()
        if os.getppid() != owner:
            self._end_now()

    def _end_now(self) -> None:
        log.info("process %s, whose daemon this is, has ended", self._settings.owner)
        self._end_at = 0.0

    def _ended(self) -> bool:
        if self._end_at is None:
            return False
        return self._scheduler.idle or time.monotonic() >= self._end_at

    def _patience(self) -> float:
        """Seconds until something must be done though nothing happens."""
        now = time.monotonic()
        moments = [self._next_check]
        if self._end_at is not None:
            moments.append(self._end_at)
        pause = self._crew.pool.pause(now)
        if pause is not None:
            moments.append(now + pause)
        return max(0.0, min(moments) - now)

    def _check(self) -> None:
        """About once a second: who gives no sign of life?"""
        now = time.monotonic()
        if now < self._next_check:
            return
        late = now - self._next_check if self._next_check else 0.0
        if late > LATE_SECONDS:  # frozen, or put to sleep: the silence was ours
            self._crew.forgive(late)
        self._next_check = now + self._settings.silence
        self._crew.check(now)
        self._notifier.feed(now)
        for stream in list(self._streams.values()):
            self._check_storage(stream, self._crew.waits.longest(stream.id), now)
        for opening in list(self._openings.values()):
            self._check_storage(opening, opening.wait, now)
        for client in list(self._clients):
            client.check(now)
        self._let_in()

    def shut_down(self) -> None:
        """Ends all processes and gives all segments up."""
        for client in list(self._clients):
            client.end()
        self._openers.stop()
        self._crew.pool.stop()

    # -- workers ---------------------------------------------------------------------

    def _despair(self) -> None:
        """No worker can start: nobody shall wait for what does not come."""
        if self._on_ready is not None:
            raise DaemonError("no worker can start; the reason stands above, in the log")
        for client in [client for client in self._clients if client.stream is not None]:
            self._end_stream(client, self._no_workers())

    def _check_storage(self, reader: Stream | Opening, wait: Wait | None, now: float) -> None:
        """Tells a trainer, and the log, of storage that does not answer, or answers again."""
        limit = self._settings.io_timeout
        text = reader.stall.update(wait, now, limit)
        if text:
            log.warning("%s (client %d)", text, reader.client.pid)
            reader.client.send(Stalled(fitting(text)))
        if wait is not None and now - wait.since > limit:
            self._end_stream(reader.client, timeout(wait, limit))

    def _end_stream(self, client: Conversation, error: LoaderdError) -> None:
        """Ends a stream with an error, which reaches the trainer after what is ready."""
        client.refuse(error)
        client.end()

    def _no_workers(self) -> NoWorkers:
        return NoWorkers(
            f"no worker can start: {self._crew.pool.trouble}; the daemon's log says more, and "
            "it goes on trying"
        )

    def _worker_up(self) -> None:
        if self._on_ready is not None:
            self._on_ready()
            self._on_ready = None
            self._notifier.ready()

    def renew(self, reload: Callable[[], Settings] | None) -> None:
        """Takes in new settings, if they are well, and replaces the workers one by one."""
        self._notifier.reloading()
        try:
            if reload is not None:
                self._adopt(reload())
            self._crew.renew(self._settings)
        except LoaderdError as error:
            log.error("the settings stay as they are: %s", error)
        self._notifier.ready()

    def _adopt(self, new: Settings) -> None:
        """What clients know of the daemon, and what it promised them, needs a new one."""
        fixed = {name: getattr(self._settings, name) for name in FIXED}
        for name, value in fixed.items():
            if name not in ("owner", "ready_fd") and getattr(new, name) != value:
                stays = str(value).lower() if isinstance(value, bool) else value
                log.warning("%s stays %s until the daemon is started again", name, stays)
        self._settings = self._photographer.settings = dataclasses.replace(new, **fixed)
        self._caches.limit = self._settings.memory_cache
        self._openers.adopt(self._settings)

    def _note_bad(self, bad: Bad) -> None:
        stream = self._streams.get(bad.stream)
        if stream is None:
            return
        if self._bad.add(bad.path, bad.reason, stream.folder, lacking=bad.lacking):
            log.warning("bad image %s: %s", readable(bad.path), bad.reason)
        if bad.lacking:
            return
        stream.bad.setdefault(bad.path, bad.reason)
        if stream.spec.on_error != "raise" and len(stream.bad) > stream.bad_limit:
            log.error("stream %d ends: too many bad images", stream.id)
            self._end_stream(stream.client, stream.too_many_bad())

    # -- actions ---------------------------------------------------------------------

    def _perform(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Assign():
                    self._crew.assign(action)
                case Deliver(stream, slot, place, attempt, skipped):
                    self._streams[stream].client.send(Ready(slot, *place, attempt, skipped))
                case Spoil():
                    self._spoil(action)
                case Isolate():
                    self._isolate(action)
                case Dismiss():
                    self._crew.dismiss(action)

    def _isolate(self, action: Isolate) -> None:
        """The sample is given away again, and every worker knows by then that it is bad."""
        stream = self._streams[action.stream]
        isolated = stream.quarantine(action.place, action.row, action.cause)
        path = stream.path(action.place, action.row)
        self._bad.add(path, isolated.reason, stream.folder, quarantined=True)
        log.error("quarantined %s: %s", readable(path), isolated.reason)
        self._crew.quarantine(isolated)

    def _spoil(self, action: Spoil) -> None:
        stream, error = self._streams[action.stream], action.error
        words = error.text
        if error.kind == "WorkerCrashed":
            if stream.spec.pipeline.function is not None:
                words += "; it may be its preprocessing_function"
            words += f": one of {stream.names(action.place, error.first, error.last)}"
        stream.client.send(Spoilt(error.kind, fitting(words), action.slot, *action.place))

    # -- clients ---------------------------------------------------------------------

    def listen(self, listener: socket.socket) -> None:
        """Begins a conversation with whoever knocks."""
        self._listener = listener
        self._loop.watch(listener.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            client = accept(self._listener, self._requests, self._clients)
            if client is None:
                return
            self._follow(client)
        except OSError as error:
            log.error("nobody is let in for a while: %s", error)
            self._loop.forget(self._listener.fileno())
            return
        self._clients.add(client)
        self._loop.watch_channel(client.line, client.read)

    def _let_in(self) -> None:
        """Listens again, after a lack of descriptors."""
        if self._end_at is None and not self._loop.watches(self._listener.fileno()):
            self._loop.watch(self._listener.fileno(), self._accept)

    def _follow(self, client: Conversation) -> None:
        """A client's forked child may hold its socket open: its end is what counts."""
        if client.pid <= 0:
            return  # it lives where we cannot see it, as in another container; its socket tells
        try:
            client.pidfd = os.pidfd_open(client.pid)
        except ProcessLookupError:
            return  # it is gone already; its socket tells
        self._loop.watch(client.pidfd, client.end)

    def _open(self, client: Conversation, request: Open, fds: list[int]) -> None:
        if self._end_at is not None:
            raise Draining("the daemon is draining; start another, or wait")
        if self._crew.pool.hopeless:
            raise self._no_workers()
        if client in self._openings:
            raise ProtocolError("a second stream on one connection")
        if len(request.bundles) > MOST_BUNDLES:
            raise ProtocolError(f"more than {MOST_BUNDLES} bundles")
        self._make_number(client.pid)
        self._last_id += 1
        opening = Opening(
            self._last_id,
            client,
            request,
            fds,
            self._settings,
            self._caches,
            self._openers,
            self._make_room,
            self._opened,
        )
        self._openings[client] = opening
        self._loop.watch_channel(opening.opener.line, opening.read)

    def _make_number(self, pid: int) -> None:
        """Makes sure that one more stream may be opened; idle ones give way."""
        for stream in self._idle_streams():
            try:
                limits.check_number(pid, self._holders())
                return
            except RequestRefused:
                self._reclaim(stream)
        limits.check_number(pid, self._holders())

    def _holders(self) -> list[int]:
        clients = (*self._openings, *(stream.client for stream in self._streams.values()))
        return [client.pid for client in clients]

    def _make_room(self, wanted: int) -> Room:
        """The bytes that rings may still take; idle streams give way for what is wanted."""
        for stream in self._idle_streams():
            room = self._room()
            if min(room.memory, room.shm) >= wanted:
                break
            self._reclaim(stream)
        return self._room()

    def _room(self) -> Room:
        rings = [stream.ring_bytes for stream in self._streams.values()]
        rings += [opening.ring_bytes for opening in self._openings.values()]
        limit = self._settings.memory
        return Room(limit - sum(rings), segment.free(), limit)

    def _idle_streams(self) -> list[Stream]:
        """Those whose clients have been silent for long, the longest first."""
        since = time.monotonic() - IDLE_SECONDS
        idle = [one for one in self._streams.values() if one.client.heard_at <= since]
        return sorted(idle, key=lambda stream: stream.client.heard_at)

    def _reclaim(self, stream: Stream) -> None:
        """Ends a stream that nobody has read for long; its client opens it again if need be.

        What the client has said meanwhile counts: it may have taken a batch just now.
        """
        while stream.client.read():
            pass
        idle = time.monotonic() - stream.client.heard_at >= IDLE_SECONDS
        if not idle or self._streams.get(stream.id) is not stream:
            return
        log.info("stream %d is idle, and gives its ring up", stream.id)
        slots = self._scheduler.streams[stream.id].slots
        stream.empty(slot for slot in range(len(slots)) if slots[slot] is not State.LEASED)
        self._end_stream(stream.client, RingReclaimed("another stream needed the room"))

    def _opened(self, opening: Opening, stream: Stream | None) -> None:
        client = opening.client
        self._end_opening(client)
        if stream is None:
            return
        try:
            client.send(stream.opened(), (stream.ring, stream.manifest))
        except OSError:
            stream.close()
            raise
        self._streams[stream.id] = stream
        client.stream = stream.id
        self._perform(self._scheduler.open(stream.id, stream.shape, opening.run))

    def _end_opening(self, client: Conversation) -> None:
        opening = self._openings.pop(client, None)
        if opening is None:
            return
        self._loop.forget(opening.opener.line.fileno())
        opening.end()

    def _reap(self, dying: Child) -> None:
        """Frees what belongs to a killed process once it is dead, which a read may delay."""

        def dead() -> None:
            self._loop.forget(dying.pidfd)
            dying.reap()

        self._loop.watch(dying.pidfd, dead)

    def _plan(self, client: Conversation, plan: Plan) -> None:
        assert client.stream is not None
        self._perform(self._scheduler.plan(client.stream, plan.want, plan.run))

    def _took(self, client: Conversation, took: Took) -> None:
        assert client.stream is not None
        self._streams[client.stream].count(took)
        self._perform(self._scheduler.took(client.stream, took.taken, took.released))

    def _gone(self, client: Conversation) -> None:
        self._clients.discard(client)
        self._loop.forget(client.line.fileno())
        if client.pidfd is not None:
            self._loop.forget(client.pidfd)
            os.close(client.pidfd)
            client.pidfd = None
        self._let_in()
        if client in self._openings:
            self._end_opening(client)
        if client.stream is not None:
            self._close(self._streams.pop(client.stream))

    def _close(self, stream: Stream) -> None:
        stream.close()
        self._crew.detach(stream.id)
        self._perform(self._scheduler.close(stream.id))
