"""Keep descriptors out of 0 to 2, in a process whose standard streams are closed."""

from __future__ import annotations

import fcntl
import os


def high(fd: int) -> int:
    """Duplicate a descriptor below 3 to a higher one, as a child gets other files at 0 to 2."""
    if fd > 2:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(fd)
