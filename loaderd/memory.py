"""How much memory of its own this process may still take (``RLIMIT_DATA``)."""

from __future__ import annotations

import resource

from loaderd.errors import NoRoom

_LEAST = 2**22
"""Bytes. With less than that left, whatever fails has most likely failed for lack of memory."""


def taken() -> int:
    """Bytes that count against the limit: the libraries reserve a lot."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        lines = dict(line.split(":", 1) for line in file)
    return int(lines["VmData"].split()[0]) * 1024


def is_used_up() -> bool:
    """Whether next to nothing is left, if there is a limit; raises nothing."""
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    try:
        return limit != resource.RLIM_INFINITY and limit - taken() < _LEAST
    except MemoryError:
        return True
    except OSError:  # of descriptors there are none
        return False


def no_room(name: str) -> NoRoom:
    """The error where this process, a worker, has too little memory for a file."""
    return NoRoom(
        f"{name}: the worker has too little memory for it; raise the daemon's "
        "--worker-memory (LOADERD_WORKER_MEMORY)"
    )
