"""Opens a cache in memory, which the supervisor creates and owns."""

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
        turn: the supervisor's descriptor of the openers' lock.
        empty: the header of a new one.
        files: those that need a row.
        room: the cache's limit in bytes.

    Returns:
        As :func:`loaderd.cache.folder.open_cache`: a new descriptor, and the rows.

    Raises:
        OSError: there is no memory; see ``layout.is_full``.
    """
    with taking_turns(_reopen(turn)):
        fd = _reopen(cache)
        try:
            index = Index(fd, layout.read_head(fd) or empty, files)
            return fd, index.grant(room)
        except BaseException:
            os.close(fd)
            raise


def _reopen(fd: int) -> int:
    """Reopens a file: a lock on the supervisor's own descriptor would last as long as that."""
    return os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
