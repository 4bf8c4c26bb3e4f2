"""One worker process as the supervisor knows it, here or on another machine; and how it died."""

from __future__ import annotations

import math
import signal
from dataclasses import dataclass, field

import psutil

from loaderd.ipc.messages import Done
from loaderd.supervisor.actions import Death
from loaderd.supervisor.children import Child

STOPPED = "it was stopped"

STORAGE = "storage did not answer"

UP_SECONDS = 60.0
"""A worker that is not up by then is killed."""

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
    is_remote: bool = False
    """Whether it runs on another machine."""
    host: str = ""
    """That machine, once it is up."""
    remote_pid: int = 0
    declined: dict[int, str] = field(default_factory=dict)
    """Open streams that it does not serve, and why."""
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
        """The process id, on its machine."""
        return self.remote_pid if self.is_remote else self.child.pid

    @property
    def label(self) -> str:
        """What it is called in messages."""
        if not self.is_remote:
            return f"worker {self.pid}"
        return f"worker {self.pid} on {self.host}" if self.host else "a worker of the cluster"

    def max_silence(self, stream: int | None) -> float:
        """Seconds without a message after which it counts as hanging.

        Args:
            stream: the stream of its chunk in hand; None if it has no chunk.
        """
        if self.up_at is None:  # the cluster may have no CPU for it yet
            return math.inf if self.is_remote else UP_SECONDS
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
        """Whether the process, one of this machine, is stopped: by SIGSTOP or by a debugger."""
        if self.is_remote:
            return False
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


def death_of(worker: Worker, code: int | None, attaching: bool) -> Death:
    """A worker that was stopped, or waited for storage, counts as killed: no sample is to blame."""
    by_us = worker.exit_reason not in ("", STOPPED, STORAGE)
    of_itself = code is not None and (code >= 0 or -code in _FAULTS)
    if not by_us and (worker.exit_reason or not of_itself):
        return Death.KILLED
    return Death.ATTACHING if attaching else Death.CRASHED


def cause_of(code: int | None) -> str:
    """An exit code as text; -N is signal N."""
    if code is None:
        return "how is not known"
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:  # a signal without a name
        return f"signal {-code}"
