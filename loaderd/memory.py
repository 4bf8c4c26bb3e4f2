"""The private memory that this process may still allocate (``RLIMIT_DATA``)."""

from __future__ import annotations

import resource

from loaderd.errors import NoRoom

_MIN_LEFT = 2**22
"""Bytes. With less left, any failure is most likely due to lack of memory."""


def taken() -> int:
    """Bytes that count against the limit, with all that libraries reserve."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        lines = dict(line.split(":", 1) for line in file)
    return int(lines["VmData"].split()[0]) * 1024


def is_used_up() -> bool:
    """Whether less than ``_MIN_LEFT`` is left of the limit, if there is one; never raises."""
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    try:
        return limit != resource.RLIM_INFINITY and limit - taken() < _MIN_LEFT
    except MemoryError:
        return True
    except OSError:  # no descriptor is left
        return False


def no_room(name: str) -> NoRoom:
    """The error of a worker that has too little memory for a file."""
    return NoRoom(
        f"{name}: the worker has too little memory for it; raise the daemon's "
        "--worker-memory (LOADERD_WORKER_MEMORY)"
    )
