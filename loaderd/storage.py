"""What this process waits for: noted before storage is asked, and taken back when it has answered.

A disk that does not answer holds a process in a system call, where it can neither say so nor do
anything else. So who asks storage notes what for, and a thread of the process that has one
(:mod:`loaderd.child.storage_watch`) can tell. A note costs a fifth of a microsecond, as it is
made for every image.

One note for each process: it is of what the main thread does, and nothing relies on it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterator, Sequence
from time import perf_counter_ns

Path = bytes | str
Asked = tuple[Path, int]
"""A path, and since when (``perf_counter_ns``); a tuple of its own for each time."""

GONE = frozenset(
    {
        errno.ENOTCONN,  # a FUSE server that has ended
        errno.ESTALE,  # an NFS server that has other files now
        errno.ETIMEDOUT,  # a mount that does not wait ("soft")
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
    }
)
"""Errors that say nothing about a file, but that whoever has it cannot be asked."""

_asked: Asked | None = None


def ask(path: Path) -> None:
    """Storage is asked for something of ``path``; ``answered`` follows, whatever comes of it."""
    global _asked
    _asked = path, perf_counter_ns()


def answered() -> None:
    """Storage has answered."""
    global _asked
    _asked = None


def asked() -> Asked | None:
    """What this process waits for, if it does."""
    return _asked


def is_gone(error: BaseException | None) -> bool:
    """Whether an error means that storage cannot be asked now, and may be later."""
    return isinstance(error, OSError) and error.errno in GONE


@contextlib.contextmanager
def asking(path: Path) -> Iterator[None]:
    """Both, around a block; slower, for what is not done for every image."""
    ask(path)
    try:
        yield
    finally:
        answered()


def close(descriptors: Sequence[int]) -> None:
    """Closes files without waiting for their disk, which may write first what is not yet there."""
    try:
        threading.Thread(target=_close, args=(descriptors,), daemon=True).start()
    except RuntimeError:  # no thread is left
        _close(descriptors)


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        with contextlib.suppress(OSError):  # what could not be written was told when it was
            os.close(descriptor)
