"""File descriptors: copies, closing, and the error where none is left."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Iterable, Iterator

from loaderd.errors import NoDescriptor

_LACK = (errno.EMFILE, errno.ENFILE)


@contextlib.contextmanager
def needed(purpose: str) -> Iterator[None]:
    """Turns a lack of descriptors within the block into NoDescriptor.

    Raises:
        NoDescriptor: none is left for this purpose.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _LACK or isinstance(error, NoDescriptor):
            raise
        raise lack(purpose, error.errno) from error


def lack(purpose: str, number: int | None = errno.EMFILE) -> NoDescriptor:
    """The error where no descriptor is left.

    Args:
        purpose: what it was for.
        number: EMFILE for this process's limit, ENFILE for the system's.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    whose = "the system has too many files open"
    if number != errno.ENFILE:
        whose = f"this process has too many files open (ulimit -n is {limit})"
    return NoDescriptor(f"no descriptor is left for {purpose}: {whose}; close some, or raise that")


def close_all(fds: Iterable[int]) -> None:
    """Closes descriptors."""
    for fd in fds:
        os.close(fd)


def copies(fds: Iterable[int]) -> tuple[int, ...]:
    """Duplicates descriptors: all or none.

    Raises:
        OSError: too few are left.
    """
    made: list[int] = []
    try:
        made.extend(map(os.dup, fds))
    except OSError:
        close_all(made)
        raise
    return tuple(made)


def raise_limit(most: int) -> None:
    """Raises this process's limit of descriptors to ``most``, or to its hard limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
