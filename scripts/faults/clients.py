"""The processes beside the daemon: trainers, one that misbehaves, and the reference."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from scripts.faults import census, daemons

RECONNECT_SECONDS = 120
"""Seconds that a trainer waits for a daemon that is away."""

MAX_SILENT = 45.0
"""Seconds without a batch after which a trainer counts as hanging."""

END_SECONDS = 60.0


class Client:
    """A process that talks to the daemon.

    Args:
        name: of its files, and in findings.
        folder: of its files: ``NAME.log``, and ``NAME.history`` for the batches that it gets.
        path: the daemon's socket.
        words: the module and its arguments.

    Attributes:
        history: the path of its log of batches.
        batches: how many it got so far.
        longest_silence: the longest time between two of them, in seconds.
        descriptors: how many it had open at each look, since its first batch.
        findings: what is wrong, one sentence each.
    """

    def __init__(self, name: str, folder: Path, path: str, *words: str) -> None:
        self.name = name
        self.history = folder / f"{name}.history"
        self.history.touch()
        self.batches = 0
        self.longest_silence = 0.0
        self.descriptors: list[int] = []
        self.findings: list[str] = []
        self._log = folder / f"{name}.log"
        self._read = 0
        self._heard = time.monotonic()
        self._given_up = False
        self._process = self._spawn(path, words)

    def _spawn(self, path: str, words: tuple[str, ...]) -> subprocess.Popen[bytes]:
        environ = daemons.environ(
            LOADERD_SOCKET=path,
            LOADERD_HISTORY=str(self.history),
            LOADERD_RECONNECT_TIMEOUT=str(RECONNECT_SECONDS),
            CUDA_VISIBLE_DEVICES="-1",
            TF_CPP_MIN_LOG_LEVEL="3",
        )
        with open(self._log, "ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environ,
                start_new_session=True,
            )

    @property
    def session(self) -> int:
        """The session of this process and all that it starts."""
        return self._process.pid

    @property
    def last_words(self) -> str:
        """The last line that it has printed."""
        lines = self._log.read_text(errors="backslashreplace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "nothing")

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def look(self, *, trains: bool = True) -> None:
        """Update the figures since the last look.

        Args:
            trains: whether batches are expected of it.
        """
        if not self.running:
            self._give_up(f"ended with code {self._process.returncode}: {self.last_words}")
        elif trains:
            self._count()
            self._count_descriptors()
            if time.monotonic() - self._heard > MAX_SILENT:
                self._give_up(f"got no batch for {MAX_SILENT:g} s")

    def _give_up(self, why: str) -> None:
        if not self._given_up:
            self.findings.append(f"{self.name} {why}")
        self._given_up = True

    def _count(self) -> None:
        with open(self.history, "rb") as file:
            file.seek(self._read)
            new = file.read()
        now = time.monotonic()
        if new:
            self.batches += new.count(b"\n")
            self._read += len(new)
        if self.batches:
            silence = now - self._heard
            self.longest_silence = max(self.longest_silence, silence)
        if new or not self.batches:
            self._heard = now

    def _count_descriptors(self) -> None:
        open_now = census.descriptors(self.session)
        if self.batches and open_now:  # 0 if it has just ended
            self.descriptors.append(open_now)

    def await_first(self, seconds: float) -> bool:
        """Whether it gets a batch, or ends, within these seconds."""

        def begun() -> bool:
            self.look()
            return self.batches > 0 or not self.running

        return census.eventually(begun, seconds)

    def ask_to_end(self) -> None:
        """Have it end; a trainer does so at the end of its epoch."""
        self.signal(signal.SIGTERM)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it has not ended."""
        if self.running:
            self._process.send_signal(number)

    def await_end(self, seconds: float = END_SECONDS) -> None:
        """Wait until it has ended; a timeout or an exit code is a finding."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._give_up(f"had not ended after {seconds:g} s")
            return
        self._count()
        if code:
            self._give_up(f"ended with code {code}: {self.last_words}")

    def kill(self) -> None:
        """Kill it and all that it started."""
        daemons.end_all([self.session])
        self._process.wait()
