"""Disks that stop answering, for tests; where FUSE cannot be mounted, the tests are skipped."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from tests.faults import fuse

Way = Literal["killable", "unkillable"]
"""Whether a process that waits for the disk can be killed, as on most, or only by its answer."""


class Disk:
    """A mounted mirror of a folder, whose requests can be held; a context releases them.

    Attributes:
        path: where it is mounted.
    """

    def __init__(self, source: Path, path: Path) -> None:
        self.path = path
        self._words = [sys.executable, "-m", "tests.faults.fuse", str(source), str(path)]
        self._mounts = 0
        self.mount()

    def mount(self) -> None:
        """Mounts it, also in the place of one that has failed; skips where that is not allowed."""
        pipe = subprocess.PIPE
        self._server = subprocess.Popen(
            self._words, stdin=pipe, stdout=pipe, stderr=pipe, text=True
        )
        assert self._server.stdout is not None
        if not self._server.stdout.readline():
            pytest.skip(f"no FUSE here: {self._server.communicate()[1].splitlines()[-1]}")
        self._mounts += 1

    def fail(self) -> None:
        """Ends the server: whoever waits for it, and whoever asks, gets an error."""
        self._server.kill()
        self._server.communicate()

    def unmount(self) -> None:
        """Takes it away."""
        self.fail()
        for _ in range(self._mounts):
            fuse.unmount(str(self.path))

    def __enter__(self) -> Disk:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _tell(self, command: str) -> int:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(command + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def hold(self, way: Way = "killable", name: str = "") -> None:
        """Answers nothing about paths that hold ``name`` any more."""
        self._tell(f"hold {way} {name}")

    def release(self) -> None:
        """Answers again, also what was asked meanwhile."""
        self._tell("release")

    def delay(self, seconds: float) -> None:
        """Takes so long for every read."""
        self._tell(f"delay {seconds}")

    @property
    def held(self) -> int:
        """Requests that wait for an answer."""
        return self._tell("held")


@contextlib.contextmanager
def mounted(source: Path, at: Path) -> Iterator[Disk]:
    """A disk that holds what a folder holds; skips the test where there can be none."""
    at.mkdir()
    disk = Disk(source, at)
    try:
        yield disk
    finally:
        disk.unmount()
