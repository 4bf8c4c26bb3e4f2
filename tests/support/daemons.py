"""Real daemons, and what becomes of them."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from types import FunctionType
from typing import Any

import psutil

from loaderd.ipc import dial
from loaderd.ipc.snapshot import Snapshot
from loaderd_client import Session
from loaderd_client.core.stream import Stream

Serve = Callable[..., contextlib.AbstractContextManager["Daemon"]]

DEADLINE = 30.0


def eventually(what: Callable[[], bool], deadline: float = DEADLINE) -> None:
    """Polls until it is so; fails when it takes too long."""
    end = time.monotonic() + deadline
    while not what():
        assert time.monotonic() < end, f"not so within {deadline} s: {what}"
        time.sleep(0.01)


def gone(process: psutil.Process) -> bool:
    """Ended; where no init reaps orphans, a zombie may remain."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def family(pid: int) -> list[psutil.Process]:
    """A process and all that it has started."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


class Daemon:
    """A real daemon in a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes], path: str, log: str) -> None:
        self.process = process
        self.path = path
        self._log = log

    @property
    def log(self) -> str:
        """What all daemons of this test have logged so far."""
        return _read(self._log)

    def snapshot(self) -> Snapshot:
        return dial.observe(self.path)

    def workers(self) -> list[int]:
        return [worker.pid for worker in self.snapshot().workers]


@contextlib.contextmanager
def running(
    words: Callable[[int], list[str]], runtime: str, before: Sequence[str] = ()
) -> Iterator[Daemon]:
    """A daemon, from when it is ready until it and its children are gone.

    Args:
        words: module and arguments, given the descriptor on which it tells that it is ready.
        runtime: where its socket lies.
        before: what goes before the command.
    """
    ready, tell = os.pipe()
    log = os.path.join(runtime, "daemon.log")
    with open(log, "ab") as file:
        process = subprocess.Popen(
            [*before, sys.executable, "-m", *words(tell)], pass_fds=[tell], stderr=file
        )
    os.close(tell)
    try:
        assert select.select([ready], [], [], DEADLINE)[0]
        assert os.read(ready, 1), f"the daemon ended before it was ready: {_read(log)}"
        members = family(process.pid)
        yield Daemon(process, os.path.join(runtime, "loaderd", "default.sock"), log)
    finally:
        os.close(ready)
        process.terminate()
        process.wait(DEADLINE)
        sys.stderr.write(_read(log))  # which pytest shows if the test fails
    eventually(lambda: all(gone(member) for member in members))


@contextlib.contextmanager
def shared(*flags: str) -> Iterator[Daemon]:
    """A daemon for several tests, in a folder of its own."""
    folder = tempfile.mkdtemp(prefix="ld-")
    os.mkdir(os.path.join(folder, "loaderd"), 0o700)
    socket = f"--socket={folder}/loaderd/default.sock"
    words = ["loaderd", "serve", "--workers=2", socket, *flags]
    try:
        with running(lambda tell: [*words, f"--ready-fd={tell}"], folder) as daemon:
            yield daemon
    finally:
        shutil.rmtree(folder)


def _read(log: str) -> str:
    with open(log, errors="backslashreplace") as file:
        return file.read()


def private_pid(session: Session) -> int:
    """The private daemon of a session."""
    assert session._private is not None
    return session._private.pid


def kill_private(session: Session) -> None:
    """Kills it, and waits for its end."""
    daemon = psutil.Process(private_pid(session))
    daemon.kill()
    eventually(lambda: gone(daemon))


def stream_of(sequence: Any) -> Stream:
    """The stream that a sequence reads at the moment."""
    stream = sequence._supply._stream
    assert isinstance(stream, Stream)
    return stream


def as_if_ours(function: Any) -> FunctionType:
    """The function as if the client had it: only its own calls can own something."""
    module = {**function.__globals__, "__name__": "loaderd_client.invented"}
    return FunctionType(function.__code__, module, None, None, function.__closure__)


def serving(word: str) -> list[psutil.Process]:
    """Daemons whose command line holds a word."""
    found = psutil.process_iter(["cmdline"])
    return [one for one in found if word in (one.info["cmdline"] or ()) and not gone(one)]
