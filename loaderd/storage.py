"""Records the path that this process is accessing on storage, for as long as it takes.

A disk that does not respond blocks a process in a system call, where it cannot report it. So code
that accesses storage records the path, and a watch thread (:mod:`loaderd.child.storage_watch`)
reports it. A record takes 0.2 µs, as there is one for every image.

A process has one record, for its main thread; nothing but that report depends on it.
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
        errno.ENOTCONN,  # the FUSE server has ended
        errno.ESTALE,  # the NFS server has other files now
        errno.ETIMEDOUT,  # a "soft" mount
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
    }
)
"""Errors that mean that a file's storage cannot be reached, not that the file is bad."""

_asked: Asked | None = None


def ask(path: Path, grace_s: float = 0) -> None:
    """Records an access to ``path``; :func:`answered` must follow, also after an error.

    Args:
        path: what is accessed.
        grace_s: seconds that it may take without being waited for.
    """
    global _asked
    _asked = path, perf_counter_ns() + int(grace_s * 1e9)


def describe(path: Path) -> None:
    """Says more of what is accessed, since when it is."""
    global _asked
    if _asked is not None:
        _asked = path, _asked[1]


def resume(access: Asked | None) -> None:
    """Records an access again that goes on, after another one within it."""
    global _asked
    _asked = access


def answered() -> None:
    """Clears the record: the access is over."""
    global _asked
    _asked = None


def asked() -> Asked | None:
    """The access that this process waits for; None if it does not."""
    return _asked


def is_gone(error: BaseException | None) -> bool:
    """Whether an error means that storage cannot be reached now, but may be later."""
    return isinstance(error, OSError) and error.errno in GONE


@contextlib.contextmanager
def asking(path: Path) -> Iterator[None]:
    """Records an access within the block; slower, so not for each image."""
    ask(path)
    try:
        yield
    finally:
        answered()


def close(descriptors: Sequence[int]) -> None:
    """Closes files in a thread, as a disk may flush data first."""
    try:
        threading.Thread(target=_close, args=(descriptors,), daemon=True).start()
    except RuntimeError:  # no thread is left
        _close(descriptors)


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        with contextlib.suppress(OSError):  # write errors were reported by the writes
            os.close(descriptor)
