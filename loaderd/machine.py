"""What this process may use of the machine: its CPUs and its memory, also within a cgroup."""

from __future__ import annotations

import os
from collections.abc import Iterator

import psutil


def cpus(root: str = "") -> int:
    """The CPUs that this process may really use: affinity and cgroup quota, at least 1."""
    return max(1, min(len(os.sched_getaffinity(0)), *_cpu_quotas(root), 2**31))


def ram(root: str = "") -> int:
    """Bytes of memory that this process may use: the machine's, or its cgroup's if lower."""
    return min(psutil.virtual_memory().total, *_memory_limits(root), 2**63)


def _cpu_quotas(root: str) -> Iterator[int]:
    for group in _groups(root, "cpu"):
        old = (_read(f"{group}/cpu.cfs_{part}_us") for part in ("quota", "period"))
        quota, _, period = (_read(f"{group}/cpu.max") or " ".join(old)).partition(" ")
        if quota.isdecimal() and period.isdecimal() and int(period):
            yield int(quota) // int(period)


def _memory_limits(root: str) -> Iterator[int]:
    for group in _groups(root, "memory"):
        limit = _read(f"{group}/memory.max") or _read(f"{group}/memory.limit_in_bytes")
        if limit.isdecimal() and int(limit):
            yield int(limit)


def _groups(root: str, controller: str) -> Iterator[str]:
    """Folders of this process's cgroups of both versions, each with all that enclose it."""
    for line in _read(f"{root}/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2, alone or beside version 1
            tops = ("", "/unified")
        elif controller in controllers.split(","):
            tops = (f"/{controllers}", f"/{controller}")
        else:
            continue
        for top in tops:
            yield from _upwards(f"{root}/sys/fs/cgroup{top}", path)


def _upwards(top: str, path: str) -> Iterator[str]:
    """In a container the path is the host's and only the top exists: it is our group then."""
    while path.strip("/"):
        yield top + path
        path = os.path.dirname(path)
    yield top


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
