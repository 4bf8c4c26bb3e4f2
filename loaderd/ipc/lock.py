"""The lock file of a daemon's socket: the process that holds it serves the address.

The kernel releases the ``flock`` when its holder ends in any way.
"""

from __future__ import annotations

import contextlib
import fcntl
import os

from loaderd.errors import DaemonError, DaemonRunning


def path_of(socket: str) -> str:
    """The path of a socket's lock."""
    return socket.removesuffix(".sock") + ".lock"


def take(socket: str) -> int:
    """Locks an address, and returns the descriptor that holds the lock.

    Raises:
        DaemonRunning: another daemon holds it.
        DaemonError: the file cannot be created.
    """
    path = path_of(socket)
    while True:
        fd = _lock(path, socket)
        if is_at(fd, path):
            return fd
        os.close(fd)  # its last holder removed the file in between


def is_at(fd: int, path: str) -> bool:
    """Whether the open file is still the one at ``path``."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except OSError:
        return False


def remove_stale(socket: str) -> bool:
    """Removes a socket whose daemon is dead, and its lock.

    Returns:
        Whether nothing is left; False if the daemon runs.
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
    """Removes the lock file, and releases the lock.

    The file may be another daemon's by now, if a cleaner of runtime folders removed ours.
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
