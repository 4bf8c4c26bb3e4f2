"""The one loop of the daemon: it waits for sockets and deaths, and acts on what comes.

::

    clients ── requests ─┐                        ┌── Ready, BatchFailed ──► clients
    workers ── events ───┼──► scheduler: actions ─┤
    signals ─────────────┘                        └── Attach, Chunk ──► workers

The scheduler alone decides, and keeps the only ledger of who holds which chunk. This module
is the only one that carries events to it and performs its actions. It never reads a pixel, and
never blocks for long: openers list and reserve, signals only wake the loop.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import time
from collections.abc import Callable, Iterable

from loaderd.child import init
from loaderd.config import Settings
from loaderd.errors import DaemonError, Draining, LoaderdError, NoWorkers
from loaderd.forkserver import entries
from loaderd.ipc import descriptors, segment
from loaderd.ipc.messages import Ack, Bad, Open, Plan
from loaderd.ipc.prefetch import Run
from loaderd.ipc.process import JOB_SIGNALS
from loaderd.ipc.text import readable
from loaderd.supervisor.actions import Action
from loaderd.supervisor.bad_images import BadImages
from loaderd.supervisor.children import ForkServer
from loaderd.supervisor.clients import ClientConnection, Clients, Requests
from loaderd.supervisor.listener import Listener
from loaderd.supervisor.load_follower import LoadFollower
from loaderd.supervisor.loop import Loop
from loaderd.supervisor.owner import Owner
from loaderd.supervisor.performer import Performer
from loaderd.supervisor.remote_servers import RemoteServers
from loaderd.supervisor.scheduler import Scheduler
from loaderd.supervisor.sharing import SharedStreams, shared_name
from loaderd.supervisor.snapshot_builder import SnapshotBuilder
from loaderd.supervisor.stream_opener import StreamOpener
from loaderd.supervisor.streams import OpenStream
from loaderd.supervisor.systemd import Notifier
from loaderd.supervisor.web_page import WebPage
from loaderd.supervisor.worker_processes import Work, WorkerProcesses
from loaderd.supervisor.workers import WorkerEvents, Workers

log = logging.getLogger("loaderd")

LATE_SECONDS = 1.0
"""The supervisor itself has stood still when it looks later than it should by more."""

MAX_DESCRIPTORS = 2**16
"""Descriptors of the supervisor, if the system allows as many."""

FIXED = (
    *("name", "socket", "cache_dir", "user_code", "http", "metrics_open", "ray", "ray_workers"),
    *("owner", "control_fd", "ready_fd"),
)
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
    notifier = Notifier(os.environ)  # before the first child, which must not inherit it
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # it may be inherited as ignored
    descriptors.raise_limit(MAX_DESCRIPTORS)
    private = settings.control_fd is not None
    with (
        Loop() as loop,
        ForkServer(loop) as forks,
        Listener(loop, settings.socket, settings.name, required=not private) as listener,
    ):
        supervisor = Supervisor(settings, loop, forks, listener, on_ready, work)
        handlers: dict[int, Callable[[], object]] = {signal.SIGCHLD: forks.reap}
        if settings.owner is None:  # else what was inherited is meant for the trainer
            supervisor.notifier = notifier
            handlers[signal.SIGTERM] = handlers[signal.SIGINT] = supervisor.drain
            handlers[signal.SIGHUP] = lambda: supervisor.renew(reload)
        # A private one ends with its trainer, and ignores what is sent to the whole job.
        init.ignore(JOB_SIGNALS - handlers.keys())
        loop.on_signals(handlers)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])  # some may be inherited as blocked
        segment.prepare()
        log.info("serving %s with %d workers", settings.socket, settings.workers)
        supervisor.run()


def _merged(old: Settings, new: Settings) -> Settings:
    """New settings, but for those that clients rely on: they need a new daemon."""
    fixed = {name: getattr(old, name) for name in FIXED}
    for name, value in fixed.items():
        if name not in ("owner", "control_fd", "ready_fd") and getattr(new, name) != value:
            stays = str(value).lower() if isinstance(value, bool) else value
            log.warning("%s stays %s until the daemon is started again", name, stays)
    return dataclasses.replace(new, **fixed)


def _worker_events(
    scheduler: Scheduler,
    perform: Callable[[Iterable[Action]], None],
    ready: Callable[[int], None],
    bad_image: Callable[[Bad], None],
) -> WorkerEvents:
    """Has the scheduler told what happens to workers, and what follows performed."""
    return WorkerEvents(
        ready=ready,
        done=lambda worker, done: perform(
            scheduler.done(worker, done.ticket, done.total - done.waited, done.skipped)
        ),
        failed=lambda worker, failed: perform(
            scheduler.failed(worker, failed.ticket, failed.kind, failed.text)
        ),
        in_hand=lambda worker, said: scheduler.ledger.in_hand(worker, said.ticket, said.row),
        bad_image=bad_image,
        waiting=lambda worker: perform(scheduler.waiting(worker)),
        answered=lambda worker: perform(scheduler.answered(worker)),
        recalled=lambda worker, tickets: perform(scheduler.recall(worker, tickets)),
        declined=lambda worker, said: perform(scheduler.decline(worker, said.stream, said.ticket)),
        retired=lambda worker: perform(scheduler.retire(worker)),
        died=lambda *death: perform(scheduler.worker_down(*death)),
    )


class Supervisor:
    """The daemon, on a loop.

    Args:
        settings: how to run.
        loop: waits for sockets and signals.
        forks: where children come from.
        listener: where clients come from.
        on_ready: called once, when the first worker is up.
        work: what a worker process runs on its end of the socket.

    Attributes:
        notifier: tells the service manager how the daemon is; replaced if there is one.
    """

    def __init__(
        self,
        settings: Settings,
        loop: Loop,
        forks: ForkServer,
        listener: Listener,
        on_ready: Callable[[], None],
        work: Work = entries.work,
    ) -> None:
        self.notifier = Notifier({})
        self._settings = settings
        self._loop = loop
        self._forks = forks
        self._listener = listener
        self._on_ready: Callable[[], None] | None = on_ready
        self._scheduler = scheduler = Scheduler()
        self._bad = BadImages()
        self._end_at: float | None = None
        self._next_check = 0.0
        self._remotes: RemoteServers | None = None
        if settings.ray is not None:
            self._remotes = RemoteServers(loop, forks, settings.ray, settings.ray_workers)
        self._processes = WorkerProcesses(settings, forks, work, self._remotes)
        perform = self._perform = (performer := Performer(self._bad)).perform
        self._workers = performer.workers = Workers(
            self._processes,
            loop,
            scheduler.ledger.held,
            _worker_events(scheduler, perform, self._worker_ready, self._note_bad),
        )
        sharing = SharedStreams(scheduler, perform)
        self._streams = performer.streams = StreamOpener(
            settings, loop, forks, sharing, self._stream_opened, self._stream_closed
        )
        self._load = LoadFollower(self._processes, scheduler, self._streams.subscribers)
        self._snapshots = SnapshotBuilder(
            listener, scheduler, self._workers, self._streams, self._bad
        )
        requests = Requests(
            observe=lambda: self._snapshots.build(self._settings, self._end_at is not None),
            describe=self._snapshots.describe,
            set_workers=self._processes.set_count,
            stop=self.drain,
            list_bad=self._bad.page,
            open=self._open,
            plan=self._plan,
            took=self._took,
            leave=self._leave,
            gone=self._gone,
        )
        self._clients = Clients(loop, listener, requests)
        self._page = WebPage(settings, listener.path)
        self._owner = Owner(settings, loop, self._clients.adopt, self.drain, self._owner_gone)

    def run(self) -> None:
        """Lets clients in and serves until the end, which ends all streams.

        Raises:
            DaemonError: no worker can start.
        """
        self._listener.watch(self._clients.accept)
        try:
            while not self._ended():
                for _ in range(self._processes.missing(time.monotonic())):
                    if self._processes.start_exhausted:
                        self._fail_streams()
                    self._workers.start()
                for _ in range(self._processes.missing_remote(time.monotonic())):
                    self._workers.start(remote=True)
                self._loop.turn(self._timeout())
                self._check()
                if self._on_ready is not None:
                    self._tell_ready()
        finally:
            self._page.stop()
            self._clients.end()
            self._streams.stop()

    # -- the end, and what must be looked at -----------------------------------------

    def drain(self) -> None:
        """Finishes the batches that are begun and then ends; asked twice, ends at once."""
        now = time.monotonic()
        log.info("draining" if self._end_at is None else "ending at once")
        self.notifier.stopping()
        self._end_at = now + self._settings.grace if self._end_at is None else now
        self._scheduler.drain()

    def _owner_gone(self) -> None:
        self._end_at = 0.0

    def _ended(self) -> bool:
        if self._end_at is None:
            return False
        return self._scheduler.idle or time.monotonic() >= self._end_at

    def _timeout(self) -> float:
        """Seconds until something must be done though nothing happens."""
        now = time.monotonic()
        moments = [self._next_check, self._processes.next_start(now)]
        if self._end_at is not None:
            moments.append(self._end_at)
        return max(0.0, min(moments) - now)

    def _check(self) -> None:
        """Looks, about once a second, for processes and storage that are silent or gone."""
        now = time.monotonic()
        if now < self._next_check:
            return
        late = now - self._next_check if self._next_check else 0.0
        if late > LATE_SECONDS:  # frozen, or put to sleep: the silence was ours
            self._workers.extend_deadlines(late)
        self._next_check = now + self._settings.silence
        self._forks.check()
        self._workers.check(now)
        self._owner.check()
        self._page.check(now)
        self._load.check(now)
        self.notifier.feed(now)
        self._streams.check_storage(self._workers.waits, now)
        for stream in list(self._streams.streams.values()):
            limit = self._settings.share_lag
            self._streams.sharing.check(stream, self._streams.subscribers, limit)
        self._clients.check(now)
        if self._end_at is None:
            self._listener.resume()  # after a lack of descriptors
            self._listener.check()

    def renew(self, reload: Callable[[], Settings] | None) -> None:
        """Takes in new settings, if they are valid, and replaces the workers one by one."""
        self.notifier.reloading()
        try:
            if reload is not None:
                self._settings = _merged(self._settings, reload())
                self._streams.adopt(self._settings)
            self._workers.renew(self._settings)
        except LoaderdError as error:
            log.error("the settings stay as they are: %s", error)
        self.notifier.ready()

    # -- workers ---------------------------------------------------------------------

    def _worker_ready(self, worker: int) -> None:
        is_remote = worker in self._processes.remote
        self._perform(self._scheduler.worker_up(worker, is_remote))

    def _tell_ready(self) -> None:
        """Tells whoever has started the daemon, once it can serve as it should.

        Raises:
            NoCluster: the cluster cannot be joined, or does not give the workers that must be.
        """
        is_there = self._remotes is None or self._processes.remotes_are_there()
        if self._on_ready is not None and is_there and self._processes.is_any_up:
            self._on_ready()
            self._on_ready = None
            self.notifier.ready()

    def _fail_streams(self) -> None:
        """Ends all streams, as no worker can start, or the daemon, if none was ever up."""
        if self._on_ready is not None:
            raise DaemonError(
                f"no worker can start: {self._processes.trouble}; the log says more above"
            )
        for subscriber in list(self._streams.subscribers.values()):
            subscriber.client.fail(_no_workers(self._processes))

    def _note_bad(self, bad: Bad) -> None:
        stream = self._streams.streams.get(bad.stream)
        if stream is None:
            return
        if self._bad.add(bad.path, bad.reason, stream.folder, lacking=bad.lacking):
            log.warning("bad image %s: %s", readable(bad.path), bad.reason)
        if stream.note_bad(bad):
            log.error("stream %d ends: too many bad images", stream.id)
            for subscriber in self._streams.subscribers.of(stream.id).values():
                subscriber.client.fail(stream.too_many_bad())

    # -- clients ---------------------------------------------------------------------

    def _open(self, client: ClientConnection, request: Open, fds: list[int]) -> None:
        if self._end_at is not None:
            raise Draining("the daemon is draining; start another, or wait")
        if self._processes.start_exhausted:
            raise _no_workers(self._processes)
        self._streams.request(client, request, fds)

    def _stream_opened(self, stream: OpenStream, run: Run) -> None:
        is_shared = bool(shared_name(stream.request))
        shape, is_small = stream.shape, stream.is_small
        self._perform(self._scheduler.open(stream.id, shape, run, is_small, is_shared))

    def _stream_closed(self, stream: int) -> None:
        self._workers.detach(stream)
        self._perform(self._scheduler.close(stream))

    def _plan(self, number: int, plan: Plan) -> None:
        stream = self._streams.subscribers[number].stream.id
        self._perform(self._scheduler.plan(stream, plan.want, plan.run))

    def _took(self, number: int, took: Ack) -> None:
        subscriber = self._streams.subscribers[number]
        subscriber.note(took, time.monotonic())
        stream = subscriber.stream.id
        self._perform(self._scheduler.took(stream, took.taken, took.released, number))

    def _leave(self, number: int) -> None:
        self._streams.sharing.detach(number, self._streams.subscribers[number])

    def _gone(self, client: ClientConnection) -> None:
        self._clients.remove(client)
        if self._end_at is None:
            self._listener.resume()
        self._streams.leave(client)


def _no_workers(processes: WorkerProcesses) -> NoWorkers:
    return NoWorkers(
        f"no worker can start: {processes.trouble}; the daemon's log says more, and it goes on "
        "trying"
    )
