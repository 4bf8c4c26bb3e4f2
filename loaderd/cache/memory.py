"""A cache in memory, as an opener gets it: the supervisor has made it, and keeps it."""

from __future__ import annotations

import os

from loaderd.cache import layout
from loaderd.cache.index import Granted, Index, taking_turns
from loaderd.cache.layout import Head
from loaderd.sources.file_identity import FileStates


def open_cache(
    cache: int, turn: int, empty: Head, files: FileStates, room: int
) -> tuple[int, Granted]:
    """Makes room for the files in a cache, and marks it as in use.

    Args:
        cache: the supervisor's descriptor of it.
        turn: that of what openers lock to take turns.
        empty: the header of a new one.
        files: those that shall have a row.
        room: bytes that the cache may take.

    Returns:
        A descriptor of its own, whose lock lasts as long as any copy of it, and the rows.

    Raises:
        OSError: there is no memory; see ``layout.is_full``.
    """
    with taking_turns(_opened(turn)):
        fd = _opened(cache)
        try:
            index = Index(fd, layout.read_head(fd) or empty, files)
            return fd, index.grant(room)
        except BaseException:
            os.close(fd)
            raise


def _opened(fd: int) -> int:
    """A descriptor of its own: the lock on the supervisor's would be the supervisor's."""
    return os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
