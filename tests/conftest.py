"""What all tests share: small photos, real daemons, and nothing left behind."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import cv2
import numpy as np
import psutil
import pytest

from loaderd.ipc import dial
from loaderd.ipc.snapshot import Snapshot
from loaderd_client import Session
from loaderd_client.core.stream import Stream

DEADLINE = 30.0


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the long proofs too")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: a long proof, run with --long")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--long"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="long: run with --long"))


def eventually(what: Callable[[], bool], deadline: float = DEADLINE) -> None:
    """Polls until it is so; fails when it takes too long."""
    end = time.monotonic() + deadline
    while not what():
        assert time.monotonic() < end, f"not so within {deadline} s: {what}"
        time.sleep(0.01)


def stream_of(sequence: Any) -> Stream:
    """The stream that a sequence reads at the moment."""
    stream = sequence._supply._stream
    assert isinstance(stream, Stream)
    return stream


def as_if_ours(function: Any) -> FunctionType:
    """The function as if the client had it: only its own calls can own something."""
    module = {**function.__globals__, "__name__": "loaderd_client.invented"}
    return FunctionType(function.__code__, module, None, None, function.__closure__)


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


def private_pid(session: Session) -> int:
    """The private daemon of a session."""
    assert session._private is not None
    return session._private.pid


def kill_private(session: Session) -> None:
    """Kills it, and waits for its end."""
    daemon = psutil.Process(private_pid(session))
    daemon.kill()
    eventually(lambda: gone(daemon))


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Sockets of every test lie in a folder of its own, with a short path."""
    folder = tempfile.mkdtemp(prefix="ld-")
    for name in [name for name in os.environ if name.startswith("LOADERD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
    yield folder
    shutil.rmtree(folder)


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
def running(words: Callable[[int], list[str]], runtime: str) -> Iterator[Daemon]:
    """A daemon, from when it is ready until it and its children are gone.

    Args:
        words: module and arguments, given the descriptor on which it tells that it is ready.
        runtime: where its socket lies.
    """
    ready, tell = os.pipe()
    log = os.path.join(runtime, "daemon.log")
    with open(log, "ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", *words(tell)], pass_fds=[tell], stderr=file
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


def _read(log: str) -> str:
    with open(log, errors="backslashreplace") as file:
        return file.read()


@pytest.fixture
def serve(runtime: str) -> Iterator[Callable[..., contextlib.AbstractContextManager[Daemon]]]:
    """Starts daemons: ``with serve(workers=3) as daemon``. Afterwards nothing may be left."""
    before = set(os.listdir("/dev/shm"))

    def start(workers: int = 2, *flags: str) -> contextlib.AbstractContextManager[Daemon]:
        def words(tell: int) -> list[str]:
            return ["loaderd", "serve", f"--workers={workers}", f"--ready-fd={tell}", *flags]

        return running(words, runtime)

    yield start
    eventually(lambda: set(os.listdir("/dev/shm")) <= before)


def write_photo(path: Path, number: int, size: tuple[int, int] = (60, 80)) -> None:
    """A small JPEG: a gradient of its own colours, with some grain."""
    rng = np.random.default_rng(number)
    corners = rng.integers(0, 256, (2, 2, 3)).astype(np.float32)
    photo = cv2.resize(corners, size[::-1]) + rng.normal(0, 8, (*size, 3))
    assert cv2.imwrite(str(path), np.clip(photo, 0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 41, 30 and 25 photos: 96 in all, and no class like another."""
    root = tmp_path_factory.mktemp("photos")
    number = 0
    for name, count in (("cat", 41), ("dog", 30), ("emu", 25)):
        (root / name).mkdir()
        for index in range(count):
            write_photo(root / name / f"{index:03}.jpg", number, (60 + number % 7, 80))
            number += 1
    return root
