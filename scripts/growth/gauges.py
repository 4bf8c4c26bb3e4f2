"""What processes hold at one moment, by their part in the run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import psutil

from loaderd.ipc.snapshot import Snapshot
from scripts.faults import census

MIB = 2**20

PROCESS = ("RSS", "private", "shared", "descriptors", "threads", "maps", "processes")
"""What is measured of processes; the first three are MiB.

``private`` is memory that no other process sees. ``shared`` is shared memory that is held by
descriptors or mappings, whether it was written or not. ``maps`` are lines of ``/proc/PID/maps``.
"""

DAEMON = ("streams", "rings", "caches")
"""Figures of the daemon's snapshot; the last two are MiB."""

Reading = Mapping[str, float]


@dataclass(frozen=True)
class Sample:
    """The measurements of one moment.

    Attributes:
        seconds: since the first flow.
        flows: how many were made by then.
        readings: by the part.
    """

    seconds: float
    flows: int
    readings: Mapping[str, Reading]


def of_client(pid: int) -> Reading | None:
    """What a client holds; None if it is gone.

    Args:
        pid: the process, which leads a session.
    """
    return _sum([pid], processes=len(census.members({pid})))


def of_daemon(pid: int, now: Snapshot | None) -> dict[str, Reading]:
    """What the processes of a daemon hold, and what it says of itself.

    Args:
        pid: the supervisor.
        now: the daemon's snapshot; None if it does not answer.
    """
    found: dict[str, Reading] = {}
    if now is None:
        return found
    workers = {worker.pid for worker in now.workers}
    parts: dict[str, list[int]] = {"supervisor": [], "workers": [], "fork server": []}
    parts |= {"resource tracker": [], "opener": []}
    for member in census.members({pid}):
        parts[_part(member, pid, workers)].append(member)
    for name, pids in parts.items():
        reading = _sum(pids, processes=len(pids))
        if reading is not None:
            found[name] = reading
    host = now.host
    figures = (len(now.streams), host.ring_bytes / MIB, host.cache_bytes / MIB)
    return {**found, "daemon": dict(zip(DAEMON, figures, strict=True))}


def _part(pid: int, supervisor: int, workers: Collection[int]) -> str:
    if pid == supervisor:
        return "supervisor"
    if pid in workers:
        return "workers"
    try:
        process = psutil.Process(pid)
        words, parent = " ".join(process.cmdline()), process.ppid()
    except psutil.NoSuchProcess:
        return "opener"  # nothing else ends
    if parent != supervisor:
        return "opener"
    return "resource tracker" if "resource_tracker" in words else "fork server"


def _sum(pids: Collection[int], processes: int) -> Reading | None:
    """The sum over these processes; None if none of them lives."""
    readings = [one for pid in pids for one in _of_process(pid)]
    if not readings:
        return None
    total = {name: sum(one[name] for one in readings) for name in readings[0]}
    shared = census.shared(pids) / MIB
    values = {**total, "shared": shared, "processes": float(processes)}
    return {name: values[name] for name in PROCESS}


def _of_process(pid: int) -> Iterator[dict[str, float]]:
    """One reading, or none of a process that has ended."""
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/status", errors="replace") as file:
            status = dict(line.split(":", 1) for line in file)
        with open(f"/proc/{pid}/maps", "rb") as file:
            maps = sum(1 for _ in file)
        if "VmRSS" in status:  # a zombie has none
            yield {
                "RSS": _kib(status["VmRSS"]) * 1024 / MIB,
                "private": _kib(status["RssAnon"]) * 1024 / MIB,
                "descriptors": float(len(os.listdir(f"/proc/{pid}/fd"))),
                "threads": float(status["Threads"]),
                "maps": float(maps),
            }


def _kib(text: str) -> float:
    return float(text.split()[0])
