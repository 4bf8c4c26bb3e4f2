"""The worker processes: started, watched and replaced."""

from __future__ import annotations

import logging
import math
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import psutil

from loaderd.config import Settings
from loaderd.forkserver import entries
from loaderd.ipc.messages import Done
from loaderd.supervisor.actions import Death
from loaderd.supervisor.children import Child, ForkServer

log = logging.getLogger("loaderd")

Work = Callable[[socket.socket, Settings], None]

_PAUSES = (0.05, 0.1, 0.3, 1.0, 3.0)
"""Seconds before workers are started again, by how many rounds of them failed in a row."""

SLOW_SECONDS = 1.0
"""A chunk is long overdue then: what is queued behind it goes to others."""

STOPPED = "it was stopped"

STORAGE = "storage did not answer"

LINGER_SECONDS = 3.0
"""For so long workers that stand in for others stay when those are back."""

UP_SECONDS = 60.0
"""A worker that is not up by then is killed."""

LAST_WORDS_SECONDS = 0.5
"""What a worker has to write its stack to the log, before it is killed."""

_FAULTS = frozenset(
    {
        signal.SIGABRT,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGSEGV,
        signal.SIGSYS,
        signal.SIGTRAP,
    }
)
"""Signals that a process gets for what it does itself. All others somebody has sent."""


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
        return self.child.pid

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
        forks: where they come from.
        work: what a worker process runs on its end of the socket.
    """

    def __init__(self, settings: Settings, forks: ForkServer, work: Work = entries.work) -> None:
        self.settings = settings
        self._forks = forks
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
            started = self._forks.spawn(self._work, self.settings, revocable=True)
        except OSError as error:
            log.error("%s", error)
            self.trouble = str(error)
            self._pause()
            return None
        new = Worker(self._ids, started, time.monotonic(), self.settings.sample_timeout)
        self.workers[new.id] = new
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
        code = worker.child.code
        cause = worker.fate or worker.child.trouble or _cause(code)
        worker.child.close()
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


def _death(worker: Worker, code: int | None) -> Death:
    """One that somebody has stopped, or that storage has, is no more to blame than one killed."""
    by_us = worker.fate not in ("", STOPPED, STORAGE)
    if not by_us and (worker.fate or not _is_fault(code)):
        return Death.KILLED
    attaching = worker.in_hand and worker.in_hand[0] in worker.attaching
    return Death.ATTACHING if attaching else Death.CRASHED


def _is_fault(code: int | None) -> bool:
    """Whether the process itself has brought its end about."""
    return code is not None and (code >= 0 or -code in _FAULTS)


def _cause(code: int | None) -> str:
    if code is None:
        return "how is not known"
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:  # one of those that have no name
        return f"signal {-code}"
