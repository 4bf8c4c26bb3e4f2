"""The one loop of the daemon: it waits for sockets and deaths, and acts on what comes.

::

    clients ── requests ─┐                        ┌── Ready, Spoilt ──► clients
    workers ── events ───┼──► scheduler: actions ─┤
    signals ─────────────┘                        └── Attach, Chunk ──► workers

The scheduler alone decides, and keeps the only ledger of who holds which chunk. This module
carries events to it and performs its actions; nobody else does. It never touches a pixel, and
never blocks for long: openers list and reserve, signals only wake the loop.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable

from loaderd.child import init
from loaderd.config import Settings
from loaderd.errors import (
    DaemonError,
    Draining,
    LoaderdError,
    NoWorkers,
    ProtocolError,
    RequestRefused,
    RingReclaimed,
)
from loaderd.forkserver import entries
from loaderd.ipc import descriptors, segment
from loaderd.ipc.channel import Channel, Closed
from loaderd.ipc.messages import (
    IDLE_SECONDS,
    Bad,
    Connect,
    Done,
    Open,
    Plan,
    Ready,
    Spoilt,
    Stalled,
    Stop,
    Took,
    fitting,
)
from loaderd.ipc.prefetch import Run
from loaderd.ipc.process import JOB_SIGNALS, Process
from loaderd.ipc.text import readable
from loaderd.supervisor import request_limits
from loaderd.supervisor.actions import Action, Assign, Deliver, Dismiss, Isolate, Spoil
from loaderd.supervisor.bad_images import BadImages
from loaderd.supervisor.children import ForkServer
from loaderd.supervisor.clients import Conversation, Requests, accept, adopt
from loaderd.supervisor.listener import Listener
from loaderd.supervisor.loop import Loop
from loaderd.supervisor.memory_caches import MemoryCaches
from loaderd.supervisor.opener_processes import Openers
from loaderd.supervisor.scheduler import Scheduler
from loaderd.supervisor.slots import State
from loaderd.supervisor.snapshot_builder import Photographer
from loaderd.supervisor.storage_waits import Wait, timeout
from loaderd.supervisor.streams import MOST_BUNDLES, Opening, Room, Stream
from loaderd.supervisor.systemd import Notifier
from loaderd.supervisor.worker_processes import Work, WorkerProcesses
from loaderd.supervisor.workers import WorkerEvents, Workers

log = logging.getLogger("loaderd")

LATE_SECONDS = 1.0
"""The supervisor itself has stood still when it looks so much later than it should."""

MAX_DESCRIPTORS = 2**16
"""Of the supervisor, if it may have so many."""

FIXED = ("name", "socket", "cache_dir", "user_code", "owner", "control_fd", "ready_fd")
"""Settings that stay until the daemon is started again."""


def serve(
    settings: Settings,
    on_ready: Callable[[], None],
    work: Work = entries.work,
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
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # whoever started us may have ignored it
    descriptors.raise_limit(MAX_DESCRIPTORS)
    private = settings.control_fd is not None
    with (
        Loop() as loop,
        ForkServer(loop) as forks,
        Listener(loop, settings.socket, settings.name, required=not private) as listener,
    ):
        supervisor = Supervisor(settings, loop, forks, listener, on_ready, work, notifier)
        # A private one leaves what is sent to the whole job to its trainer, with which it ends.
        people = _signals(supervisor, reload) if settings.owner is None else {}
        init.ignore(JOB_SIGNALS - people.keys())
        loop.on_signals({signal.SIGCHLD: forks.reap, **people})
        signal.pthread_sigmask(signal.SIG_SETMASK, [])  # whoever started us may have blocked any
        segment.prepare()
        supervisor.follow_owner()
        supervisor.listen()
        log.info("serving %s with %d workers", settings.socket, settings.workers)
        try:
            supervisor.run()
        finally:
            supervisor.shut_down()


def _signals(
    supervisor: Supervisor, reload: Callable[[], Settings] | None
) -> dict[int, Callable[[], object]]:
    """What comes of the signals that people send to a daemon."""
    return {
        signal.SIGTERM: supervisor.drain,
        signal.SIGINT: supervisor.drain,
        signal.SIGHUP: lambda: supervisor.renew(reload),
    }


class Supervisor:
    """The daemon, on a loop.

    Args:
        settings: how to run.
        loop: waits for sockets and signals.
        forks: where children come from.
        listener: where clients come from.
        on_ready: called once, when the first worker is up.
        work: what a worker process runs on its end of the socket.
        notifier: tells the service manager how we are.
    """

    def __init__(
        self,
        settings: Settings,
        loop: Loop,
        forks: ForkServer,
        listener: Listener,
        on_ready: Callable[[], None],
        work: Work = entries.work,
        notifier: Notifier | None = None,
    ) -> None:
        self._notifier = notifier or Notifier({})
        self._settings = settings
        self._loop = loop
        self._forks = forks
        self._listener = listener
        self._control: Channel | None = None
        self._owner: Process | None = None
        self._on_ready: Callable[[], None] | None = on_ready
        self._scheduler = Scheduler()
        self._clients: set[Conversation] = set()
        self._streams: dict[int, Stream] = {}
        self._openings: dict[Conversation, Opening] = {}
        self._caches = MemoryCaches(settings.memory_cache)
        self._openers = Openers(settings, forks)
        self._bad = BadImages()
        self._last_id = 0
        self._end_at: float | None = None
        self._next_check = 0.0
        events = WorkerEvents(
            ready=self._worker_ready,
            done=self._chunk_done,
            failed=self._chunk_failed,
            bad_image=self._note_bad,
            waiting=lambda worker: self._perform(self._scheduler.waiting(worker)),
            answered=lambda worker: self._perform(self._scheduler.answered(worker)),
            recalled=lambda worker, tickets: self._perform(self._scheduler.recall(worker, tickets)),
            retired=lambda worker: self._perform(self._scheduler.retire(worker)),
            died=lambda *death: self._perform(self._scheduler.worker_down(*death)),
        )
        self._processes = WorkerProcesses(settings, forks, work)
        self._workers = Workers(self._processes, loop, self._scheduler.held, events)
        self._photographer = Photographer(
            settings,
            listener,
            self._scheduler,
            self._workers,
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
            for _ in range(self._processes.missing(time.monotonic())):
                if self._processes.start_exhausted:
                    self._fail_streams()
                self._workers.start()
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
        owner, control = self._settings.owner, self._settings.control_fd
        if owner is not None:
            self._owner = Process(owner)
        if control is not None:
            self._control = Channel(socket.socket(fileno=control))
            self._control.settimeout(0)
            self._loop.watch(control, self._read_control)

    def _read_control(self) -> None:
        """Takes in what the owner, or a forked child of it, asks for."""
        assert self._control is not None
        try:
            message, fds = self._control.receive_with_fds()
        except BlockingIOError:
            return
        except Closed:  # all who had it are gone, or have executed another program
            self._loop.forget(self._control.fileno())
            self._end_now()
            return
        except LoaderdError as error:
            log.error("the owner's request is lost: %s", error)
            return
        match message, fds:
            case Connect(), [fd]:
                self._follow(adopt(fd, self._requests, self._clients))
            case Stop(), []:
                self.drain()
            case _:
                log.error("the owner sent %s", type(message).__name__)
                descriptors.close_all(fds)

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
        pause = self._processes.pause(now)
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
            self._workers.extend_deadlines(late)
        self._next_check = now + self._settings.silence
        self._forks.check()
        self._workers.check(now)
        if self._owner is not None and not self._owner.alive:
            self._end_now()
        self._notifier.feed(now)
        for stream in list(self._streams.values()):
            self._check_storage(stream, self._workers.waits.longest(stream.id), now)
        for opening in list(self._openings.values()):
            self._check_storage(opening, opening.wait, now)
        for client in list(self._clients):
            client.check(now)
        if self._end_at is None:
            self._listener.resume()  # after a lack of descriptors
            self._listener.check()

    def shut_down(self) -> None:
        """Ends all streams and gives all segments up."""
        for client in list(self._clients):
            client.end()
        self._openers.stop()

    # -- workers ---------------------------------------------------------------------

    def _fail_streams(self) -> None:
        """Ends all streams, as no worker can start.

        Raises:
            DaemonError: none ever was up.
        """
        if self._on_ready is not None:
            raise DaemonError(
                f"no worker can start: {self._processes.trouble}; the log says more above"
            )
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
            f"no worker can start: {self._processes.trouble}; the daemon's log says more, and "
            "it goes on trying"
        )

    def _worker_ready(self, worker: int) -> None:
        self._perform(self._scheduler.worker_up(worker))
        if self._on_ready is not None:
            self._on_ready()
            self._on_ready = None
            self._notifier.ready()

    def _chunk_done(self, worker: int, done: Done) -> None:
        self._perform(self._scheduler.done(worker, done.ticket, done.total, done.skipped))

    def _chunk_failed(self, worker: int, spoilt: Spoilt) -> None:
        self._perform(self._scheduler.spoilt(worker, spoilt.ticket, spoilt.kind, spoilt.text))

    def renew(self, reload: Callable[[], Settings] | None) -> None:
        """Takes in new settings, if they are well, and replaces the workers one by one."""
        self._notifier.reloading()
        try:
            if reload is not None:
                self._adopt(reload())
            self._workers.renew(self._settings)
        except LoaderdError as error:
            log.error("the settings stay as they are: %s", error)
        self._notifier.ready()

    def _adopt(self, new: Settings) -> None:
        """What clients know of the daemon, and what it promised them, needs a new one."""
        fixed = {name: getattr(self._settings, name) for name in FIXED}
        for name, value in fixed.items():
            if name not in ("owner", "control_fd", "ready_fd") and getattr(new, name) != value:
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
                case Assign(worker, chunk):
                    self._workers.assign(worker, chunk, self._streams[chunk.stream])
                case Deliver(stream, slot, place, attempt, skipped):
                    self._streams[stream].client.send(Ready(slot, *place, attempt, skipped))
                case Spoil():
                    self._spoil(action)
                case Isolate():
                    self._isolate(action)
                case Dismiss(worker):
                    self._workers.dismiss(worker)

    def _isolate(self, action: Isolate) -> None:
        """The sample is given away again, and every worker knows by then that it is bad."""
        stream = self._streams[action.stream]
        isolated = stream.quarantine(action.place, action.row, action.cause)
        path = stream.path(action.place, action.row)
        self._bad.add(path, isolated.reason, stream.folder, quarantined=True)
        log.error("quarantined %s: %s", readable(path), isolated.reason)
        self._workers.quarantine(isolated)

    def _spoil(self, action: Spoil) -> None:
        stream, error = self._streams[action.stream], action.error
        words = error.text
        if error.kind == "WorkerCrashed":
            if stream.spec.pipeline.function is not None:
                words += "; it may be its preprocessing_function"
            words += f": one of {stream.names(action.place, error.first, error.last)}"
        stream.client.send(Spoilt(error.kind, fitting(words), action.slot, *action.place))

    # -- clients ---------------------------------------------------------------------

    def listen(self) -> None:
        """Begins a conversation with whoever knocks."""
        self._listener.watch(self._accept)

    def _accept(self) -> None:
        try:
            sock = self._listener.accept()
        except OSError as error:
            log.error("nobody is let in for a while: %s", error)
            self._listener.pause()
            return
        self._follow(accept(sock, self._requests, self._clients))

    def _follow(self, client: Conversation | None) -> None:
        if client is not None:
            self._clients.add(client)
            self._loop.watch_channel(client.line, client.read)

    def _open(self, client: Conversation, request: Open, fds: list[int]) -> None:
        if self._end_at is not None:
            raise Draining("the daemon is draining; start another, or wait")
        if self._processes.start_exhausted:
            raise self._no_workers()
        if client in self._openings:
            raise ProtocolError("a second stream on one connection")
        if len(request.bundles) > MOST_BUNDLES:
            raise ProtocolError(f"more than {MOST_BUNDLES} bundles")
        if client.stream is not None and self._renew(client, request, fds):
            return
        self._make_number(client.pid)  # this may read what others want, and open it
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

    def _renew(self, client: Conversation, request: Open, fds: list[int]) -> bool:
        """Ends a client's stream for the next one, which gets its ring if it is like it."""
        assert client.stream is not None
        last = self._streams[client.stream]
        self._last_id += 1
        is_still = self._scheduler.is_still(last.id)
        stream = last.renewed(self._last_id, request, fds) if is_still else None
        client.stream = None
        self._close(self._streams.pop(last.id))
        if stream is not None:
            self._begin(stream, request.run)
        return stream is not None

    def _make_number(self, pid: int) -> None:
        """Makes sure that one more stream may be opened; idle ones give way."""
        for stream in self._idle_streams():
            try:
                request_limits.check_number(pid, self._holders())
                return
            except RequestRefused:
                self._reclaim(stream)
        request_limits.check_number(pid, self._holders())

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
        if self._streams.get(stream.id) is not stream:
            return
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
        self._end_opening(opening.client)
        if stream is not None:
            self._begin(stream, opening.run)

    def _begin(self, stream: Stream, run: Run) -> None:
        try:
            stream.client.send(stream.opened(), (stream.ring, stream.manifest))
        except OSError:
            stream.close()
            raise
        self._streams[stream.id] = stream
        stream.client.stream = stream.id
        stream.client.takes_descriptors = stream.is_small
        self._perform(self._scheduler.open(stream.id, stream.shape, run, stream.is_small))

    def _end_opening(self, client: Conversation) -> None:
        opening = self._openings.pop(client, None)
        if opening is None:
            return
        self._loop.forget(opening.opener.line.fileno())
        opening.end()

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
        if self._end_at is None:
            self._listener.resume()
        if client in self._openings:
            self._end_opening(client)
        if client.stream is not None:
            self._close(self._streams.pop(client.stream))

    def _close(self, stream: Stream) -> None:
        stream.close()
        self._workers.detach(stream.id)
        self._perform(self._scheduler.close(stream.id))
