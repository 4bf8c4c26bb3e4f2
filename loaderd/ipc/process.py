"""Another process of this machine, known by more than its number."""

from __future__ import annotations

import contextlib
import os
import signal
from time import monotonic, sleep
from typing import NamedTuple

POLL_SECONDS = 0.01

JOB_SIGNALS = frozenset(
    {
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGXCPU,
    }
)
"""What terminals and batch systems send to all processes of a job, to tell one of them."""


class Process:
    """A process that need not be a child of ours. Needs no pidfd, which sandboxes may forbid.

    The kernel uses numbers again: a later process of the same number is told apart by the
    time at which it was started.

    Args:
        pid: its number, while it lives.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._started = _state(pid).started

    @property
    def alive(self) -> bool:
        """Whether it has not ended; one that only waits for its parent to take notice has."""
        now = _state(self.pid)
        if not now.started or not self._started:  # it is gone, or /proc hides it from us
            return _exists(self.pid)
        return now.started == self._started and not now.dead

    def send(self, number: signal.Signals) -> None:
        """Sends a signal, if the process lives and is ours to signal."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, number)

    def wait(self, seconds: float) -> bool:
        """Waits for its end, so many seconds at most; returns whether it has ended."""
        end = monotonic() + seconds
        while self.alive:
            if monotonic() >= end:
                return False
            sleep(POLL_SECONDS)
        return True


class _State(NamedTuple):
    """What /proc says of a process.

    Attributes:
        dead: whether it has ended: its first thread, and with it all others.
        started: when it was started, in clock ticks; empty if there is no such process.
    """

    dead: bool
    started: str


def _state(pid: int) -> _State:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            text = file.read()
    except OSError:
        return _State(True, "")
    # The name, in brackets, may hold anything, also brackets and spaces.
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
