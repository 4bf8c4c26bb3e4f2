"""The worker processes: started, watched and replaced.

Children come from a forkserver, a clean process with the decoders loaded, in a few
milliseconds; never from a fork of the supervisor. Each has a socket for chunks and
a pidfd, which the kernel makes readable when the process is dead and its memory is gone:
only then may others write what it was writing.
"""

from __future__ import annotations

import contextlib
import logging
import math
import multiprocessing
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from typing import Any

import psutil

from loaderd.config import Settings
from loaderd.daemon import child
from loaderd.daemon.actions import Death
from loaderd.errors import ProtocolError
from loaderd.wire import channel
from loaderd.wire.channel import Channel, Closed
from loaderd.wire.messages import Done, Message

log = logging.getLogger("loaderd")

Messages = list[tuple[Message, list[int]]]
"""What was said, and the descriptors that came along."""

Work = Callable[[socket.socket, Settings], None]

_context = multiprocessing.get_context("forkserver")

_PAUSES = (0.05, 0.1, 0.3, 1.0, 3.0)
"""Seconds before workers are started again, by how many rounds of them failed in a row."""

UNKNOWN = 255
"""What ``multiprocessing`` gives as exit code when the forkserver is dead; its children are too."""

SLOW_SECONDS = 1.0
"""A chunk is long overdue then: what is queued behind it goes to others."""

STOPPED = "it was stopped"

STORAGE = "storage did not answer"

LINGER_SECONDS = 3.0
"""For so long workers that stand in for others stay when those are back."""

UP_SECONDS = 60.0
"""A worker that is not up by then is killed."""

LAST_SECONDS = 1.0
"""For so long those that were killed are waited for at the end: one in a read may not die yet."""

LAST_WORDS_SECONDS = 0.5
"""What a worker has to write its stack to the log, before it is killed."""


def warm() -> None:
    """Starts the forkserver, which loads the decoders while we go on."""
    _context.set_forkserver_preload([*child.PRELOAD])
    # It ignores Ctrl-C, but not while it loads. The tracker that it needs unblocks what we block.
    multiprocessing.resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass(slots=True)
class Child:
    """A process of ours, the supervisor's end of its socket, and its pidfd."""

    process: ForkServerProcess
    line: Channel
    pidfd: int
    inbox: Channel | None = None
    """The child's own end, from which we can take back what it has not read yet."""

    def kill(self) -> None:
        """Kills the process, if it still lives."""
        self.send(signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to the process, if it still lives."""
        with contextlib.suppress(OSError):  # it is dead already
            signal.pidfd_send_signal(self.pidfd, number)

    def wait_dead(self, seconds: float) -> bool:
        """Waits until the kernel says that the process is dead."""
        poll = select.poll()  # select() takes no descriptors from 1024 on
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def reap(self) -> int | None:
        """Frees what belongs to a dead process; returns its exit code, -N for signal N."""
        _wake_forkserver()  # which alone knows how it ended
        self.process.join(1.0)
        code = self.process.exitcode
        self.line.close()
        if self.inbox is not None:
            self.inbox.close()
        os.close(self.pidfd)
        return code

    def take_back(self) -> Messages:
        """What the child was sent and has not read: the kernel gives each message out once."""
        back: Messages = []
        while self.inbox is not None:
            try:
                # Not settimeout(0), which would be the child's as well.
                back.append(self.inbox.receive_with_fds(socket.MSG_DONTWAIT))
            except ProtocolError:  # there was no descriptor left for those that came along
                self.kill()
                break
            except (BlockingIOError, Closed):
                break
        return back


def spawn(target: Callable[..., None], *args: Any, revocable: bool = False) -> Child:
    """Starts ``target(socket, *args)`` in a new process.

    Args:
        target: a function of a module.
        args: for it.
        revocable: whether messages may be taken back. Then the end of the child's end of the
            socket is not seen, only the child's.

    Raises:
        OSError: there is no descriptor or process left, or the forkserver died over it.
    """
    ours, theirs = channel.pair()
    with theirs:
        inbox = Channel(theirs.dup()) if revocable else None
        process = _context.Process(target=target, args=(theirs, *args), daemon=True)
        try:
            _wake_forkserver()
            process.start()
        except (OSError, EOFError) as error:
            ours.close()
            if inbox is not None:
                inbox.close()
            raise OSError(f"no process could be started: {error!r}") from error
    line = Channel(ours)
    line.settimeout(0)
    assert process.pid is not None
    return Child(process, line, _pidfd(process.pid), inbox)


def _wake_forkserver() -> None:
    """One that somebody has stopped would hold up the supervisor, which asks it for a child."""
    pid = getattr(multiprocessing.forkserver._forkserver, "_forkserver_pid", None)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):  # it is dead, and another one is started
            os.kill(pid, signal.SIGCONT)


def _pidfd(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        # It is dead and reaped already: a pipe without writer reads as dead for ever.
        end, writer = os.pipe()
        os.close(writer)
        return end


@dataclass(slots=True)
class Worker:
    """A worker and what it has done."""

    id: int
    child: Child
    since: float
    """When it was last heard of, or got something to do: its sample in hand is not older."""
    sample_timeout: float
    """Seconds, as it knows them itself."""
    up_at: float | None = None
    attached: set[int] = field(default_factory=set)
    attaching: set[int] = field(default_factory=set)
    """Streams that it was told of, and has not said yet that it can write."""
    in_hand: deque[int] = field(default_factory=deque)
    """The streams of its chunks; the first is the one in hand."""
    condemned_at: float | None = None
    """When it was told to die since it gave no sign of life."""
    fate: str = ""
    """Why it is ended by us; empty if it is not."""
    dismissed: bool = False
    chunks: int = 0
    rows: int = 0
    cached: int = 0
    stage_ns: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    busy_ns: int = 0

    @property
    def pid(self) -> int:
        """The process id."""
        return self.child.process.pid or 0

    @property
    def patience(self) -> float:
        """Seconds within which it should be heard of: to load the user's code takes longer."""
        if self.up_at is None:
            return UP_SECONDS
        if not self.in_hand:
            return math.inf
        attaching = self.in_hand[0] in self.attaching
        return max(self.sample_timeout, UP_SECONDS) if attaching else self.sample_timeout

    @property
    def stop_patience(self) -> float:
        """The same if somebody has stopped it: it loads nothing then."""
        return self.sample_timeout if self.in_hand else math.inf

    def condemn(self, now: float, fate: str) -> None:
        """Tells it to write its stack to the log and to die; ``finish`` makes sure of that."""
        self.fate, self.condemned_at = fate, now
        self.child.send(signal.SIGABRT)

    def end(self, now: float, fate: str) -> None:
        """Kills it, for a reason that its stack would not tell."""
        self.fate, self.condemned_at = fate, now
        self.child.kill()

    def finish(self, now: float) -> None:
        """Kills it if it was told to die and does not: a stopped process cannot."""
        if self.condemned_at is not None and now - self.condemned_at > LAST_WORDS_SECONDS:
            self.child.kill()

    @property
    def stopped(self) -> bool:
        """Whether somebody has stopped the process (SIGSTOP), or a debugger has."""
        try:
            status: str = psutil.Process(self.pid).status()
        except psutil.Error:
            return False
        return status in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)

    def count(self, done: Done) -> None:
        """Keeps what a chunk took."""
        self.chunks += 1
        self.rows += done.rows
        self.cached += done.cached
        self.busy_ns += done.total
        stages = self.stage_ns
        stages[0] += done.read
        stages[1] += done.decode
        stages[2] += done.resize
        stages[3] += done.augment


class Pool:
    """As many workers as wanted, however many die.

    Args:
        settings: how many workers there are, and what they may do; may be set anew, and
            count for workers that start from then on.
        work: what a worker process runs on its end of the socket.
    """

    def __init__(self, settings: Settings, work: Work = child.work) -> None:
        self.settings = settings
        self._work = work
        self.workers: dict[int, Worker] = {}
        self.restarts = 0
        self.trouble = ""
        self._stand_ins = 0
        self._needed_at = 0.0
        self._ids = 0
        self._stillborn = 0
        self._resume_at = 0.0

    @property
    def wanted(self) -> int:
        """Number of workers."""
        return self.settings.workers

    @property
    def complete(self) -> bool:
        """Whether all workers that are wanted are up."""
        return sum(worker.up_at is not None for worker in self.workers.values()) >= self.wanted

    def stand_in(self, waiting: int, now: float) -> None:
        """Has as many more workers as wait for storage, and no more than there are workers."""
        needed = min(waiting, self.wanted)
        if needed >= self._stand_ins or now - self._needed_at > LINGER_SECONDS:
            self._stand_ins = needed
            self._needed_at = now

    @property
    def surplus(self) -> int:
        """How many workers are there that nobody needs any more."""
        return len(self.workers) - self.wanted - self._stand_ins

    def missing(self, now: float) -> int:
        """How many workers to start now."""
        return -self.surplus if now >= self._resume_at else 0

    def pause(self, now: float) -> float | None:
        """Seconds until a worker that could not start may be tried again."""
        if self.surplus >= 0 or now >= self._resume_at:
            return None
        return self._resume_at - now

    def start(self) -> Worker | None:
        """Starts one worker; None if that does not work now."""
        self._ids += 1
        try:
            started = spawn(self._work, self.settings, revocable=True)
        except OSError as error:
            log.error("%s", error)
            self.trouble = str(error)
            self._pause()
            return None
        new = Worker(self._ids, started, time.monotonic(), self.settings.sample_timeout)
        self.workers[new.id] = new
        with contextlib.suppress(ProcessLookupError):  # dead already, which is noticed later
            os.setpriority(os.PRIO_PROCESS, new.pid, self.settings.nice)
        return new

    def up(self, worker: Worker) -> None:
        """The worker has said that it is ready."""
        worker.up_at = worker.since = time.monotonic()
        self._stillborn = 0
        self.trouble = ""

    def bury(self, worker: Worker) -> tuple[Death, str]:
        """Forgets a dead worker; returns how it died, and the same for people."""
        del self.workers[worker.id]
        self.restarts += not worker.dismissed
        code = worker.child.reap()
        cause = worker.fate or _cause(code)
        if worker.dismissed:
            log.info("worker %d is dismissed", worker.pid)
        else:
            log.warning("worker %d is dead (%s); replacing it", worker.pid, cause)
        if worker.up_at is None:
            self.trouble = f"a worker died before it was up ({cause})"
            self._pause()
        return _death(worker, code), cause

    def _pause(self) -> None:
        """Those that fail together count once."""
        now = time.monotonic()
        if now >= self._resume_at:
            self._stillborn += 1
            self._resume_at = now + _PAUSES[min(self._stillborn, len(_PAUSES)) - 1]

    @property
    def hopeless(self) -> bool:
        """Whether no worker is up, and several tries to start one have failed."""
        return self._stillborn >= len(_PAUSES) and not any(
            worker.up_at for worker in self.workers.values()
        )

    def stop(self) -> None:
        """Kills all workers, and the forkserver, and waits a moment until they are dead."""
        for worker in self.workers.values():
            worker.child.kill()
        end = time.monotonic() + LAST_SECONDS
        for worker in self.workers.values():
            if worker.child.wait_dead(max(0.0, end - time.monotonic())):
                worker.child.reap()
            else:
                log.warning("worker %d cannot be ended yet: %s", worker.pid, STORAGE)
        self.workers.clear()
        # The forkserver would end by itself when we do, but a moment after.
        servers = psutil.Process().children()
        for server in servers:
            server.kill()
        psutil.wait_procs(servers, 1.0)


def _death(worker: Worker, code: int | None) -> Death:
    """One that somebody has stopped, or that storage has, is no more to blame than one killed."""
    by_us = worker.fate not in ("", STOPPED, STORAGE)
    if not by_us and (worker.fate or code in (-signal.SIGKILL, -signal.SIGTERM, UNKNOWN, None)):
        return Death.KILLED
    attaching = worker.in_hand and worker.in_hand[0] in worker.attaching
    return Death.ATTACHING if attaching else Death.CRASHED


def _cause(code: int | None) -> str:
    if code == UNKNOWN:
        return "with the forkserver"
    if code is None:
        return "how is not known"
    if code >= 0:
        return f"exit code {code}"
    return f"signal {signal.Signals(-code).name}"
