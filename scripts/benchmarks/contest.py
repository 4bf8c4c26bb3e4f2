"""Contestants as processes, and their turns.

Each is started once for a workload, in a process group of its own, and asked in turn. While
one is measured the others rest: after a turn it is waited for until what it makes ahead is
made; who goes on working then is stopped (SIGSTOP) until its next turn.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from scripts.benchmarks.peers.protocol import Task

READY_S = 900.0  # conversion, compilation, and the first epoch
ANSWER_S = 300.0  # more than a turn of the slowest
CALM_S = 4.0  # for buffers to fill
LOOK_S = 0.25
CALM_SHARE = 0.06  # of one CPU
LOGS = Path(".bench/logs")


class Failed(Exception):
    """A contestant could not do its part; says why."""


class Contestant:
    """One peer's process group.

    Args:
        python: its interpreter.
        module: below ``scripts.benchmarks.peers``.
        task: what it is to deliver.
        name: of its log.

    Attributes:
        looks: what its batches look like.
        packages: the versions of what is installed beside it.
    """

    def __init__(self, python: str, module: str, task: Task, name: str) -> None:
        LOGS.mkdir(parents=True, exist_ok=True)
        self._log = LOGS / f"{name}.log"
        self._stopped = False
        self._unread = b""
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [python, "-m", f"scripts.benchmarks.peers.{module}", json.dumps(asdict(task))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                env=_environment(),
            )
        try:
            ready = self._answer(READY_S)
        except BaseException:
            self.close()
            raise
        self.looks: dict[str, Any] = ready["ready"]
        self.packages: dict[str, str] = ready["packages"]
        self.rest()

    def turn(self, seconds: float) -> float:
        """Images a second, measured for so many seconds.

        Raises:
            Failed: it says so, or says nothing.
        """
        if self._stopped:
            os.killpg(self._process.pid, signal.SIGCONT)
            self._stopped = False
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"go": seconds}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Failed(f"it ended: {self._last_words()}") from None
        rate = float(self._answer(ANSWER_S + seconds)["rate"])
        self.rest()
        return rate

    def rest(self) -> None:
        """Returns when its processes do nothing; stops those that go on."""
        deadline = time.monotonic() + CALM_S
        before = self._cpu_s()
        while time.monotonic() < deadline:
            time.sleep(LOOK_S)
            now = self._cpu_s()
            if now - before < CALM_SHARE * LOOK_S:
                return
            before = now
        os.killpg(self._process.pid, signal.SIGSTOP)
        self._stopped = True

    def close(self) -> None:
        """Asks it to end, and ends what is left of it."""
        if self._stopped:
            os.killpg(self._process.pid, signal.SIGCONT)
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _answer(self, timeout: float) -> dict[str, Any]:
        line = self._line(time.monotonic() + timeout)
        answer: dict[str, Any] = json.loads(line)
        if "failed" in answer:
            raise Failed(answer["failed"])
        return answer

    def _line(self, deadline: float) -> bytes:
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        while b"\n" not in self._unread:
            if not select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise Failed("it did not answer in time")
            data = os.read(pipe, 1 << 16)
            if not data:
                raise Failed(f"it ended: {self._last_words()}")
            self._unread += data
        line, self._unread = self._unread.split(b"\n", 1)
        return line

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").split("\n")
        return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "no word")

    def _cpu_s(self) -> float:
        return sum(_cpu_of(process) for process in _group(self._process.pid))


def _group(group: int) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getpgid(process.pid) == group:
                yield process


def _cpu_of(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.Error):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0


def _environment() -> dict[str, str]:
    """Variables that hide accelerators and silence TensorFlow."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("LOADERD_")}
    return kept | {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "2"}
