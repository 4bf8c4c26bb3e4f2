"""Descriptors of a process whose standard streams are closed."""

from __future__ import annotations

import fcntl
import os


def high(fd: int) -> int:
    """Moves a descriptor out of the way of 0 to 2, which a child gets anew."""
    if fd > 2:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(fd)
