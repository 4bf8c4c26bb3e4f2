"""Count what processes hold: those of the sessions of one run, and no others."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

import psutil

from loaderd.ipc import segment

_NAMED = "psm_"
"""Prefix of the names of Python's segments; other programs' are not counted."""

_SHARED = (f"{segment.SHM}/", "/memfd:")


@dataclass(frozen=True)
class Census:
    """What a family of processes holds at one moment.

    Attributes:
        processes: how many live.
        descriptors: open descriptors of the session's leader, which is the daemon.
        shared: bytes of shared memory that any of them holds.
    """

    processes: int
    descriptors: int
    shared: int

    def within(self, other: Census) -> bool:
        """Whether nothing here is more than there."""
        return (
            self.processes <= other.processes
            and self.descriptors <= other.descriptors
            and self.shared <= other.shared
        )


def take(pid: int) -> Census:
    """Count the session that ``pid`` leads."""
    pids = members({pid})
    return Census(len(pids), descriptors(pid), shared(pids))


def members(sessions: Collection[int]) -> list[int]:
    """The live processes of these sessions, without zombies, which no init may reap."""
    return [pid for pid in psutil.pids() if _session(pid) in sessions and not _is_zombie(pid)]


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return -1


def _is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def descriptors(pid: int) -> int:
    """Open descriptors of a process; 0 if it is gone."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def shared(pids: Collection[int]) -> int:
    """Bytes of shared memory that these processes hold by descriptors or mappings."""
    held: dict[int, int] = {}  # by inode
    for pid in pids:
        with contextlib.suppress(OSError):
            _add_mapped(pid, held)
            _add_open(pid, held)
    return sum(held.values())


def _add_mapped(pid: int, held: dict[int, int]) -> None:
    with open(f"/proc/{pid}/maps", errors="replace") as file:
        for line in file:
            words = line.split(maxsplit=5)
            if len(words) == 6 and words[5].startswith(_SHARED):
                begin, end = (int(bound, 16) for bound in words[0].split("-"))
                inode = int(words[4])
                held[inode] = max(held.get(inode, 0), end - begin)


def _add_open(pid: int, held: dict[int, int]) -> None:
    for number in os.listdir(f"/proc/{pid}/fd"):
        name = f"/proc/{pid}/fd/{number}"
        with contextlib.suppress(OSError):
            if os.readlink(name).startswith(_SHARED):
                state = os.stat(name)
                held[state.st_ino] = max(held.get(state.st_ino, 0), state.st_size)


def names() -> set[str]:
    """Named segments in shared memory: only those outlive their processes."""
    return {name for name in os.listdir(segment.SHM) if name.startswith(_NAMED)}


def used() -> int:
    """Bytes of shared memory that are used on this machine, by any program."""
    return segment.total() - segment.free()


def eventually(so: Callable[[], bool], seconds: float) -> bool:
    """Poll a condition; return whether it holds within ``seconds``."""
    end = time.monotonic() + seconds
    while not so():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
