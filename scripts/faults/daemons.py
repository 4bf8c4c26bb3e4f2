"""The daemon of a trial: started, ended by signals, and started again at one address."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from loaderd.errors import LoaderdError
from loaderd.ipc import dial
from loaderd.ipc.snapshot import Snapshot
from scripts.faults import census

START_SECONDS = 60.0
END_SECONDS = 30.0
"""A drain ends within --grace; the rest is for a busy machine."""

LAST_SECONDS = 1.0
"""Within which all of a killed daemon must be gone; a second, where the machine is idle."""


class DaemonFailed(Exception):
    """The daemon does not start."""


def environ(**more: str) -> dict[str, str]:
    """This process's variables without those of loaderd, and ``more``."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("LOADERD_")}
    return {**ours, **more}


class Daemon:
    """One address, and the daemon that serves it now.

    Args:
        folder: where socket and log lie.
        flags: of ``loaderd serve``.

    Attributes:
        path: the socket.
        log: the log of all daemons that were started here.
        sessions: their sessions; the last is that of the running one.
        ends: how often it was ended on purpose, by the signal's name.
        longest_down: the longest time from a signal until a daemon answered again, in seconds.
        longest_end: the longest time until all of a killed one was gone, in seconds.
        findings: what is wrong, one sentence each.
    """

    def __init__(self, folder: Path, *flags: str) -> None:
        self.path = str(folder / "daemon.sock")
        self.log = folder / "daemon.log"
        self.sessions: list[int] = []
        self.ends = {"SIGTERM": 0, "SIGKILL": 0}
        self.longest_down = self.longest_end = 0.0
        self.findings: list[str] = []
        self._flags = flags
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the daemon that runs, or ran last."""
        return self.sessions[-1]

    @property
    def ended(self) -> bool:
        """Whether there is none, though there should be."""
        return self._process is None or self._process.poll() is not None

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            DaemonFailed: it does not.
        """
        ready, tell = os.pipe()
        try:
            self._process = self._spawn(tell)
        finally:
            os.close(tell)
        self.sessions.append(self._process.pid)
        answers = select.select([ready], [], [], START_SECONDS)[0] and os.read(ready, 1)
        os.close(ready)
        if not answers:
            raise DaemonFailed(f"the daemon does not start; its log is {self.log}")

    def _spawn(self, tell: int) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "loaderd", "serve", f"--socket={self.path}"]
        with open(self.log, "ab") as log:
            return subprocess.Popen(
                [*words, f"--ready-fd={tell}", *self._flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[tell],
                env=environ(),
                start_new_session=True,  # no Ctrl-C for it; its children share the session
            )

    def snapshot(self) -> Snapshot | None:
        """A snapshot; None if no daemon answers."""
        try:
            return dial.observe(self.path)
        except (LoaderdError, OSError):
            return None

    def is_complete(self) -> bool:
        """Whether all workers are up and no stream is open."""
        now = self.snapshot()
        return now is not None and len(now.workers) == now.workers_wanted and not now.streams

    def restart(self, number: signal.Signals) -> None:
        """End it by a signal and start another at the same address."""
        began = time.monotonic()
        self.ends[number.name] += 1
        self._end(number)
        self.start()
        self.longest_down = max(self.longest_down, time.monotonic() - began)

    def start_again(self) -> None:
        """Start another in place of one that ended by itself, which is a finding."""
        code = self._process.returncode if self._process else None
        self.findings.append(f"the daemon ended by itself with code {code}")
        self.start()

    def _end(self, number: signal.Signals) -> None:
        assert self._process is not None
        began = time.monotonic()
        self._process.send_signal(number)
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.findings.append(f"the daemon had not ended {END_SECONDS:g} s after {number.name}")
            self._process.kill()
            self._process.wait()
        if not census.eventually(lambda: not census.members({self.pid}), LAST_SECONDS):
            self.findings.append(f"of a daemon that got {number.name}, {self._left()} were left")
        if number == signal.SIGKILL:
            self.longest_end = max(self.longest_end, time.monotonic() - began)

    def _left(self) -> str:
        return f"processes {census.members({self.pid})}"

    def stop(self) -> None:
        """End it."""
        if not self.ended:
            self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill what is left of all that were started."""
        end_all(self.sessions)
        if self._process is not None:
            self._process.wait()

    @property
    def tracebacks(self) -> int:
        """Tracebacks in the log; the stacks of crashed workers look different."""
        return self.log.read_bytes().count(b"Traceback (most recent call last)")


def end_all(sessions: list[int]) -> None:
    """Kill all processes of these sessions."""
    for pid in census.members(set(sessions)):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
