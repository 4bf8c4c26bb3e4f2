"""The lock beside a daemon's socket: whoever holds it serves the address.

It is an ``flock``, which ends with its holder, however that ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os

from loaderd.errors import DaemonError, DaemonRunning


def path_of(socket: str) -> str:
    """Where the lock of a socket lies."""
    return socket.removesuffix(".sock") + ".lock"


def take(socket: str) -> int:
    """Locks an address, and returns the descriptor that holds the lock.

    Raises:
        DaemonRunning: another daemon holds it.
        DaemonError: the file cannot be made.
    """
    path = path_of(socket)
    while True:
        fd = _lock(path, socket)
        if is_at(fd, path):
            return fd
        os.close(fd)  # its last holder has removed it on leaving, in between


def is_at(fd: int, path: str) -> bool:
    """Whether the open file is the one that bears the name now."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except OSError:
        return False


def remove_stale(socket: str) -> bool:
    """Removes a socket whose daemon is dead, and its lock.

    Returns:
        Whether nothing is left; False if the daemon lives.
    """
    if not os.path.lexists(socket) and not os.path.lexists(path_of(socket)):
        return True
    try:
        fd = take(socket)
    except DaemonRunning:
        return False
    except (DaemonError, OSError):  # others remove it too
        return True
    with contextlib.suppress(OSError):
        os.unlink(socket)
    release(fd, socket)
    return True


def release(fd: int, socket: str) -> None:
    """Removes the lock, and gives the address up.

    Cleaners of runtime folders may have been faster, and another daemon may be there by now.
    """
    if is_at(fd, path_of(socket)):
        with contextlib.suppress(OSError):
            os.unlink(path_of(socket))
    os.close(fd)


def _lock(path: str, socket: str) -> int:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise DaemonError(f"{path} cannot be made: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise DaemonRunning(f"a daemon already serves {socket}: `loaderd stop` ends it") from error
    return fd
