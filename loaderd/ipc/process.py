"""Another process of this machine, identified by pid and start time."""

from __future__ import annotations

import contextlib
import os
import signal
from time import monotonic, sleep
from typing import NamedTuple

POLL_SECONDS = 0.01

JOB_SIGNALS = frozenset(
    {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU}
)
"""Signals that terminals and batch systems send to all processes of a job, meant for one."""


class Process:
    """A process that need not be a child of this one. Needs no pidfd, which sandboxes may forbid.

    The start time distinguishes it from a later process with the same pid.

    Args:
        pid: of a running process.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._started = _state(pid).started

    @property
    def alive(self) -> bool:
        """Whether it runs; a zombie does not."""
        now = _state(self.pid)
        if not now.started or not self._started:  # it has ended, or /proc is hidden
            return _exists(self.pid)
        return now.started == self._started and not now.dead

    def send(self, number: signal.Signals) -> None:
        """Sends a signal, if the process runs and permissions allow."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, number)

    def wait(self, seconds: float) -> bool:
        """Waits at most ``seconds`` for its end; returns whether it has ended."""
        end = monotonic() + seconds
        while self.alive:
            if monotonic() >= end:
                return False
            sleep(POLL_SECONDS)
        return True


def cpu_times(pid: int) -> tuple[int, int]:
    """Nanoseconds that a process's first thread was on a CPU, and that it waited for one.

    Zeros where the kernel does not count them, or there is no such process.
    """
    try:
        with open(f"/proc/{pid}/schedstat", "rb") as file:
            running, waiting, _ = file.read().split()
        return int(running), int(waiting)
    except (OSError, ValueError):
        return 0, 0


class _State(NamedTuple):
    """The state of a process in /proc.

    Attributes:
        dead: whether its first thread, and so all others, have ended.
        started: its start time in clock ticks; empty if there is no such process.
    """

    dead: bool
    started: str


def _state(pid: int) -> _State:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            text = file.read()
    except OSError:
        return _State(True, "")
    # The name, in brackets, may itself hold brackets and spaces.
    fields = text[text.rindex(")") + 2 :].split()
    return _State(fields[0] in "ZX" and int(fields[17]) <= 1, fields[19])


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
