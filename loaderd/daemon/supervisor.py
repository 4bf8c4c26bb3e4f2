"""The one loop of the daemon: it waits for sockets and deaths, and acts on what comes.

::

    clients ── server ──┐                        ┌── Ready, Spoilt ──► clients
    workers ── pool ────┼──► scheduler: actions ─┤
    signals ────────────┘                        └── Attach, Chunk ──► workers

Who decides: the scheduler alone. Who writes: workers, to slots that it gave them. This
module carries events to it and performs its actions, and never touches a pixel. Nothing
here blocks for long: listing and reserving are an opener's, signals only wake the loop.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Iterable

from loaderd.config import Settings
from loaderd.daemon import child
from loaderd.daemon import pool as pools
from loaderd.daemon.actions import Action, Assign, Deliver, Spoil
from loaderd.daemon.caches import MemoryCaches
from loaderd.daemon.loop import Loop
from loaderd.daemon.pool import Pool, Work, Worker
from loaderd.daemon.scheduler import Scheduler
from loaderd.daemon.server import Conversation, Requests, accept, listening
from loaderd.daemon.snapshot import Photographer
from loaderd.daemon.streams import Opening, Room, Stream
from loaderd.errors import DaemonError, ProtocolError, RequestRefused
from loaderd.wire import segment
from loaderd.wire.channel import Closed
from loaderd.wire.messages import (
    Detach,
    Done,
    Message,
    Open,
    Plan,
    Ready,
    Spoilt,
    Took,
    Up,
    fitting,
)

log = logging.getLogger("loaderd")

DRAIN_SECONDS = 5.0
"""A drain ends after so long, whatever is still being filled."""


def serve(settings: Settings, on_ready: Callable[[], None], work: Work = child.work) -> None:
    """Runs the daemon until it is told to stop, or its owner ends.

    Args:
        settings: how to run.
        on_ready: called once, when the daemon can serve.
        work: what a worker process runs on its end of the socket.

    Raises:
        DaemonRunning: another daemon serves the address.
        DaemonError: the address cannot be used, or no worker can start.
    """
    pools.warm()
    with Loop() as loop, listening(settings.socket) as listener:
        supervisor = Supervisor(settings, loop, on_ready, work)
        loop.on_signals(supervisor.drain)
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
    """

    def __init__(
        self,
        settings: Settings,
        loop: Loop,
        on_ready: Callable[[], None],
        work: Work = child.work,
    ) -> None:
        self._settings = settings
        self._loop = loop
        self._on_ready: Callable[[], None] | None = on_ready
        self._scheduler = Scheduler()
        self._pool = Pool(settings.workers, settings.nice, work)
        self._clients: set[Conversation] = set()
        self._streams: dict[int, Stream] = {}
        self._openings: dict[Conversation, Opening] = {}
        self._caches = MemoryCaches(settings.memory_cache)
        self._troubles: set[str] = set()
        self._last_id = 0
        self._end_at: float | None = None
        self._photographer = Photographer(
            settings, self._scheduler, self._pool, self._streams, self._caches
        )
        self._requests = Requests(
            observe=self._photographer.take,
            stop=self.drain,
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
            for _ in range(self._pool.missing(time.monotonic())):
                self._start_worker()
            self._loop.turn(self._patience())

    # -- the end ---------------------------------------------------------------------

    def drain(self) -> None:
        """Finishes what is being filled and then ends; asked twice, ends at once."""
        now = time.monotonic()
        log.info("draining" if self._end_at is None else "ending at once")
        self._end_at = now + DRAIN_SECONDS if self._end_at is None else now
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

    def _patience(self) -> float | None:
        """Seconds until something must be done though nothing happens."""
        now = time.monotonic()
        pause = self._pool.pause(now)
        if self._end_at is None:
            return pause
        return max(0.0, min(self._end_at - now, pause or DRAIN_SECONDS))

    def shut_down(self) -> None:
        """Ends all processes and gives all segments up."""
        for client in list(self._clients):
            client.end()
        self._pool.stop()

    # -- workers ---------------------------------------------------------------------

    def _start_worker(self) -> None:
        if self._on_ready is not None and self._pool.hopeless:
            raise DaemonError("no worker can start; the reason stands above, in the log")
        worker = self._pool.start()
        if worker is None:
            return
        self._loop.watch_channel(worker.child.line, lambda: self._read_worker(worker))
        self._loop.watch(worker.child.pidfd, lambda: self._worker_died(worker))

    def _read_worker(self, worker: Worker) -> bool:
        """Takes in one message; returns whether there may be another."""
        try:
            self._heard(worker, worker.child.line.receive())
        except BlockingIOError:
            return False
        except Closed:
            self._loop.forget(worker.child.line.fileno())
            worker.child.kill()  # it may live on without its socket; its death is waited for
            return False
        except ProtocolError as error:
            log.error("worker %d is killed: %s", worker.pid, error)
            worker.child.kill()
        return True

    def _heard(self, worker: Worker, message: Message) -> None:
        match message:
            case Done():
                worker.count(message)
                if message.trouble:
                    self._warn_once(message.trouble)
                self._photographer.chunks += 1
                self._perform(self._scheduler.done(worker.id, message.ticket, message.total))
            case Spoilt():
                kind, text = message.kind, message.text
                log.warning("%s: %s", kind, text)
                self._perform(self._scheduler.spoilt(worker.id, message.ticket, kind, text))
            case Up():
                self._worker_up(worker)
            case _:
                raise ProtocolError(f"it sent {type(message).__name__}")

    def _warn_once(self, trouble: str) -> None:
        """Every worker meets a full disk; people need to hear of it once."""
        if trouble not in self._troubles:
            self._troubles.add(trouble)
            log.warning("%s", trouble)

    def _worker_up(self, worker: Worker) -> None:
        self._pool.up(worker)
        self._perform(self._scheduler.worker_up(worker.id))
        if self._on_ready is not None:
            self._on_ready()
            self._on_ready = None

    def _worker_died(self, worker: Worker) -> None:
        while self._read_worker(worker):
            pass  # what it said before it died still counts
        self._loop.forget(worker.child.line.fileno())
        self._loop.forget(worker.child.pidfd)
        was_up = worker.up_at is not None
        crashed = self._pool.bury(worker)
        if was_up:
            self._perform(self._scheduler.worker_down(worker.id, crashed=crashed))

    # -- actions ---------------------------------------------------------------------

    def _perform(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Assign():
                    self._assign(action)
                case Deliver(stream, slot, place, attempt):
                    self._streams[stream].client.send(Ready(slot, *place, attempt))
                case Spoil():
                    self._spoil(action)

    def _assign(self, action: Assign) -> None:
        worker = self._pool.workers[action.worker]
        stream = self._streams[action.chunk.stream]
        try:
            if stream.id not in worker.attached:
                worker.child.line.send(stream.attach(), stream.segments)
                worker.attached.add(stream.id)
            worker.child.line.send(action.chunk)
        except Closed:
            log.debug("worker %d died before it got its chunk", worker.pid)

    def _spoil(self, action: Spoil) -> None:
        stream, error = self._streams[action.stream], action.error
        text = error.text
        if error.kind == "WorkerCrashed":
            if stream.spec.pipeline.function is not None:
                text += ", or on its preprocessing_function"
            text += f": one of {stream.names(action.place, error.first, error.last)}"
        stream.client.send(Spoilt(error.kind, fitting(text), action.slot, *action.place))

    # -- clients ---------------------------------------------------------------------

    def listen(self, listener: socket.socket) -> None:
        """Begins a conversation with whoever knocks."""
        self._listener = listener
        self._loop.watch(listener.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            client = accept(self._listener, self._requests)
            if client is None:
                return
            self._follow(client)
        except OSError as error:
            log.error("nobody is let in until somebody goes: %s", error)
            self._loop.forget(self._listener.fileno())
            return
        self._clients.add(client)
        self._loop.watch_channel(client.line, client.read)

    def _follow(self, client: Conversation) -> None:
        """A client's forked child may hold its socket open: its end is what counts."""
        try:
            client.pidfd = os.pidfd_open(client.pid)
        except (ProcessLookupError, ValueError):
            return  # it is gone already, or lives where we cannot see it; its socket tells
        self._loop.watch(client.pidfd, client.end)

    def _open(self, client: Conversation, request: Open, fds: list[int]) -> None:
        if self._end_at is not None:
            raise RequestRefused("the daemon is draining; start another, or wait")
        if client in self._openings:
            raise ProtocolError("a second stream on one connection")
        self._last_id += 1
        spec_fd, bundle_fd = (*fds, None)[:2]
        assert spec_fd is not None
        opening = Opening(
            self._last_id,
            client,
            request,
            spec_fd,
            bundle_fd,
            self._settings,
            self._caches,
            self._room,
            self._opened,
        )
        self._openings[client] = opening
        self._loop.watch_channel(opening.opener.line, opening.read)

    def _room(self) -> Room:
        rings = [stream.ring_bytes for stream in self._streams.values()]
        rings += [opening.ring_bytes for opening in self._openings.values()]
        return Room(self._settings.memory - sum(rings), segment.free())

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
        self._perform(self._scheduler.open(stream.id, stream.shape, opening.start))

    def _end_opening(self, client: Conversation) -> None:
        opening = self._openings.pop(client, None)
        if opening is None:
            return
        self._loop.forget(opening.opener.line.fileno())
        opening.end()

    def _plan(self, client: Conversation, plan: Plan) -> None:
        assert client.stream is not None
        self._perform(self._scheduler.plan(client.stream, plan.want, plan.then))

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
        if self._end_at is None and not self._loop.watches(self._listener.fileno()):
            self._loop.watch(self._listener.fileno(), self._accept)
        if client in self._openings:
            self._end_opening(client)
        if client.stream is not None:
            self._close(self._streams.pop(client.stream))

    def _close(self, stream: Stream) -> None:
        stream.close()
        for worker in self._pool.workers.values():
            if stream.id in worker.attached:
                worker.attached.remove(stream.id)
                self._detach(worker, stream.id)
        self._perform(self._scheduler.close(stream.id))

    def _detach(self, worker: Worker, stream: int) -> None:
        try:
            worker.child.line.send(Detach(stream))
        except Closed:
            log.debug("worker %d died with its streams", worker.pid)
