"""File descriptors: closing those that came along, and what is told where none is left."""

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
    """What the block lacks in descriptors is raised as the error that says so.

    Args:
        purpose: what they are for, as people read it.

    Raises:
        NoDescriptor: there is none left.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _LACK or isinstance(error, NoDescriptor):
            raise
        raise lack(purpose, error.errno) from error


def lack(purpose: str, number: int | None = errno.EMFILE) -> NoDescriptor:
    """The error for it.

    Args:
        purpose: what was wanted.
        number: EMFILE where this process has too many files open, ENFILE where the system has.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    whose = "the system has too many files open"
    if number != errno.ENFILE:
        whose = f"this process has too many files open (ulimit -n is {limit})"
    return NoDescriptor(f"no descriptor is left for {purpose}: {whose}; close some, or raise that")


def close_all(fds: Iterable[int]) -> None:
    """Closes descriptors that nobody needs any more."""
    for fd in fds:
        os.close(fd)


def copies(fds: Iterable[int]) -> tuple[int, ...]:
    """The same descriptors once more, all of them.

    Raises:
        OSError: there are too few left.
    """
    made: list[int] = []
    try:
        made.extend(map(os.dup, fds))
    except OSError:
        close_all(made)
        raise
    return tuple(made)


def raise_limit(most: int) -> None:
    """Lets this process have so many descriptors, as far as its hard limit goes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
