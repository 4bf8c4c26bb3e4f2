"""The worker processes: started, watched and replaced."""

from __future__ import annotations

import logging
import math
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Container
from dataclasses import dataclass, field, replace

import psutil

from loaderd.config import Settings
from loaderd.errors import RequestRefused
from loaderd.forkserver import entries
from loaderd.ipc.messages import Done
from loaderd.setting_types import MAX_WORKERS
from loaderd.supervisor.actions import Death
from loaderd.supervisor.children import Child, ForkServer

log = logging.getLogger("loaderd")

Work = Callable[[socket.socket, Settings], None]

_PAUSES = (0.05, 0.1, 0.3, 1.0, 3.0)
"""Seconds before workers are started again, by the number of rounds that failed in a row."""

SLOW_SECONDS = 1.0
"""A chunk that takes longer is slow: what is queued behind it goes to other workers."""

STOPPED = "it was stopped"

STORAGE = "storage did not answer"

LINGER_SECONDS = 3.0
"""Workers that stand in for others stay for so long after those are back."""

UP_SECONDS = 60.0
"""A worker that is not up by then is killed."""

LAST_WORDS_SECONDS = 0.5
"""The time a worker has to write its stack to the log before it is killed."""

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
"""Signals that a process causes itself. All others were sent by another process."""


@dataclass(slots=True)
class Worker:
    """A worker process: what it was told, when it was last heard, and what it has done.

    Which chunks it holds is in the scheduler's ledger alone.
    """

    id: int
    child: Child
    heard_at: float
    """When it last sent a message, or got a chunk while it had none."""
    sample_timeout: float
    """Seconds; the setting that this process was started with."""
    up_at: float | None = None
    attached: set[int] = field(default_factory=set)
    """Open streams that it was told of."""
    attaching: set[int] = field(default_factory=set)
    """Streams that it was told of and has not confirmed with Attached."""
    aborted_at: float | None = None
    """When it was told to die because it was silent, or was killed for another reason of ours."""
    exit_reason: str = ""
    """Why the supervisor ends it; empty if it does not."""
    dismissed: bool = False
    chunks: int = 0
    rows: int = 0
    cached: int = 0
    read_ns: int = 0
    decode_ns: int = 0
    resize_ns: int = 0
    augment_ns: int = 0
    busy_ns: int = 0

    @property
    def pid(self) -> int:
        """The process id."""
        return self.child.pid

    def max_silence(self, stream: int | None) -> float:
        """Seconds without a message after which it counts as hanging.

        Args:
            stream: the stream of its chunk in hand; None if it has no chunk.
        """
        if self.up_at is None:
            return UP_SECONDS
        if stream is None:
            return math.inf
        if stream in self.attaching:  # loading the user's code takes longer than a sample
            return max(self.sample_timeout, UP_SECONDS)
        return self.sample_timeout

    def hangs(self, silent: float, stream: int | None) -> bool:
        """Whether it was silent for too long; a stopped process gets no time to load code."""
        if silent > self.max_silence(stream):
            return True
        return stream is not None and silent > self.sample_timeout and self.stopped

    def silence_reason(self, stream: int | None, waits: bool) -> str:
        """Why it was silent for too long; ``waits`` for storage."""
        if self.stopped:
            return STOPPED
        return STORAGE if waits else f"no sign of life for {self.max_silence(stream):g} s"

    def end(self, now: float, reason: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Ends it; with SIGABRT it writes its stack to the log first, if it is not stopped."""
        self.exit_reason, self.aborted_at = reason, now
        self.child.send(number)

    @property
    def stopped(self) -> bool:
        """Whether the process is stopped, by SIGSTOP or by a debugger."""
        try:
            status: str = psutil.Process(self.pid).status()
        except psutil.Error:
            return False
        return status in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)

    def count(self, done: Done) -> None:
        """Adds the counters of a finished chunk."""
        self.chunks += 1
        self.rows += done.rows
        self.cached += done.cached
        self.read_ns += done.read
        self.decode_ns += done.decode
        self.resize_ns += done.resize
        self.augment_ns += done.augment
        self.busy_ns += done.total


class WorkerProcesses:
    """Starts and counts worker processes, so that as many run as the settings ask for.

    Args:
        settings: how many workers there are, and what they may do.
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
        self._failed_starts = 0
        self._leaving: set[int] = set()
        self._to_renew: deque[int] = deque()
        self._renewing = 0
        self._resume_at = 0.0

    def stand_in(self, waiting: int, now: float) -> None:
        """Has one more worker for each that waits for storage; twice the workers at most."""
        needed = min(waiting, self.settings.workers)
        if needed >= self._stand_ins or now - self._needed_at > LINGER_SECONDS:
            self._stand_ins = needed
            self._needed_at = now

    @property
    def surplus(self) -> int:
        """How many workers there are beyond those that are needed; negative if some are missing."""
        return len(self.workers) - self.settings.workers - self._stand_ins

    def surplus_workers(self, waiting: Container[int]) -> list[int]:
        """Workers to retire, as those that they stood in for are back: the last that came first.

        Args:
            waiting: workers that wait for storage, and stay.
        """
        self._leaving &= self.workers.keys()
        leave: list[int] = []
        for worker in reversed(self.workers.values()):
            if self.surplus <= len(self._leaving):
                break
            busy = worker.id in waiting or worker.id in self._leaving
            if worker.up_at is not None and not busy:
                self._leaving.add(worker.id)
                leave.append(worker.id)
        return leave

    def renew(self, settings: Settings) -> None:
        """Has all workers replaced, one by one, by workers with these settings."""
        log.info("replacing %d workers one by one", len(self.workers))
        self.settings = settings
        self._to_renew = deque(self.workers)

    def set_count(self, count: int) -> None:
        """Sets how many workers there are, until ``renew``.

        Raises:
            RequestRefused: as many are not allowed.
        """
        if not 1 <= count <= MAX_WORKERS:
            raise RequestRefused(f"{count} workers are not allowed: from 1 to {MAX_WORKERS} are")
        log.info("%d workers instead of %d", count, self.settings.workers)
        self.settings = replace(self.settings, workers=count)

    def next_to_renew(self) -> int | None:
        """The worker to retire next, once all others are up; None if there is none now."""
        up = sum(worker.up_at is not None for worker in self.workers.values())
        if up < self.settings.workers or self._renewing in self.workers:
            return None
        while self._to_renew:
            worker = self.workers.get(self._to_renew.popleft())
            if worker is not None and worker.up_at is not None:
                self._renewing = worker.id
                return worker.id
        return None

    def missing(self, now: float) -> int:
        """How many workers to start now."""
        return -self.surplus if now >= self._resume_at else 0

    def next_start(self, now: float) -> float:
        """When a missing worker may be started; infinite if there is nothing to wait for."""
        return self._resume_at if self.surplus < 0 and now < self._resume_at else math.inf

    def start(self) -> Worker | None:
        """Starts one worker; returns None if that fails."""
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
        """Notes that a worker is ready."""
        worker.up_at = worker.heard_at = time.monotonic()
        self._failed_starts = 0
        self.trouble = ""

    def reap(self, worker: Worker, attaching: bool) -> tuple[Death, str]:
        """Forgets a dead worker.

        Args:
            worker: the worker.
            attaching: whether it was attaching the stream of its chunk in hand.

        Returns:
            How it died, and the same as text.
        """
        del self.workers[worker.id]
        self.restarts += not worker.dismissed
        code = worker.child.code
        cause = worker.exit_reason or worker.child.trouble or _cause(code)
        worker.child.close()
        if worker.dismissed:
            log.info("worker %d is dismissed", worker.pid)
        else:
            log.warning("worker %d is dead (%s); replacing it", worker.pid, cause)
        if worker.up_at is None:
            self.trouble = f"a worker died before it was up ({cause})"
            self._pause()
        return _death(worker, code, attaching), cause

    def _pause(self) -> None:
        """Delays the next start; starts that fail at the same time count once."""
        now = time.monotonic()
        if now >= self._resume_at:
            self._failed_starts += 1
            self._resume_at = now + _PAUSES[min(self._failed_starts, len(_PAUSES)) - 1]

    @property
    def start_exhausted(self) -> bool:
        """Whether no worker is up, and several tries to start one have failed."""
        return self._failed_starts >= len(_PAUSES) and not any(
            worker.up_at for worker in self.workers.values()
        )


def _death(worker: Worker, code: int | None, attaching: bool) -> Death:
    """A worker that was stopped, or waited for storage, counts as killed: no sample is to blame."""
    by_us = worker.exit_reason not in ("", STOPPED, STORAGE)
    of_itself = code is not None and (code >= 0 or -code in _FAULTS)
    if not by_us and (worker.exit_reason or not of_itself):
        return Death.KILLED
    return Death.ATTACHING if attaching else Death.CRASHED


def _cause(code: int | None) -> str:
    if code is None:
        return "how is not known"
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:  # a signal without a name
        return f"signal {-code}"
