"""The place where clients find the daemon: a socket at a path, guarded by a lock beside it.

Cleaners remove what lies long in runtime folders, and a logout removes the whole folder. The
daemon looks about once a second, and listens again.
"""

from __future__ import annotations

import contextlib
import glob
import logging
import os
import socket
import stat
from collections.abc import Callable
from typing import Self

from loaderd.errors import DaemonError
from loaderd.ipc import address, lock
from loaderd.supervisor.loop import Loop

log = logging.getLogger("loaderd")

_BACKLOG = 128


class Listener:
    """Listens at the daemon's address. A context manager: its end gives the address up.

    Args:
        loop: waits for clients.
        path: the address.
        name: the daemon's name, from which it has its address, unless somebody chose that.
        required: whether the daemon is of no use without an address.

    Attributes:
        path: where it listens, or last did.

    Raises:
        DaemonRunning: another daemon holds the address.
        DaemonError: the address cannot be used.
    """

    def __init__(self, loop: Loop, path: str, name: str = "", *, required: bool = True) -> None:
        self.path = path
        self._loop = loop
        self._name = name if path == _usual(name) else ""
        self._on_client: Callable[[], object] | None = None
        self._socket: socket.socket | None = None
        self._lock = -1
        self._trouble = ""
        try:
            self._open()
        except DaemonError as error:
            if required:
                raise
            self._complain(error)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def accept(self) -> socket.socket:
        """The next client's connection.

        Raises:
            OSError: there is no descriptor left, or the client gave up again.
        """
        assert self._socket is not None
        return self._socket.accept()[0]

    def watch(self, on_client: Callable[[], object]) -> None:
        """Has the loop call this whenever a client waits."""
        self._on_client = on_client
        self.resume()

    def pause(self) -> None:
        """Lets clients wait, until ``resume``."""
        if self._socket is not None:
            self._loop.forget(self._socket.fileno())

    def resume(self) -> None:
        """Ends a ``pause``; does nothing if there was none."""
        if self._socket is None or self._on_client is None:
            return
        if not self._loop.watches(self._socket.fileno()):
            self._loop.watch(self._socket.fileno(), self._on_client)

    def check(self) -> None:
        """To be called about once a second: listens again, if somebody removed the socket."""
        if self._is_there():
            return
        before, was_there = self.path, self._socket is not None
        self._close()
        if self._name:  # the usual folder is another one, if XDG_RUNTIME_DIR is gone
            self.path = _usual(self._name)
        try:
            self._open()
        except DaemonError as error:
            self._complain(error)
        else:
            if was_there:
                log.warning("the socket %s was removed", before)
            log.warning("listening at %s", self.path)
            self.resume()

    def _is_there(self) -> bool:
        return (
            self._socket is not None
            and lock.is_at(self._lock, lock.path_of(self.path))
            and self._inode == _inode(self.path)
        )

    def _open(self) -> None:
        address.make_folder(self.path)
        held = lock.take(self.path)
        try:
            self._socket = _bound(self.path)
        except OSError as error:
            lock.release(held, self.path)
            raise DaemonError(f"{self.path} cannot be the daemon's socket: {error}") from error
        self._lock, self._inode, self._trouble = held, _inode(self.path), ""
        _remove_others(os.path.dirname(self.path))

    def _close(self) -> None:
        if self._socket is not None:
            self.pause()
            self._socket.close()
            self._socket = None
            if self._inode == _inode(self.path):
                with contextlib.suppress(OSError):
                    os.unlink(self.path)
            lock.release(self._lock, self.path)

    def _complain(self, error: DaemonError) -> None:
        if str(error) != self._trouble:
            self._trouble = str(error)
            log.warning("no new client can find this daemon: %s", error)


def _usual(name: str) -> str:
    """Where a daemon of this name lies."""
    return os.path.join(address.runtime_dir(), f"{name}.sock") if name else ""


def _inode(path: str) -> tuple[int, int] | None:
    try:
        state = os.lstat(path)
    except OSError:
        return None
    return state.st_dev, state.st_ino


def _bound(path: str) -> socket.socket:
    """A listening socket at the path, for this user only. We hold the lock."""
    if os.path.lexists(path) and not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise FileExistsError("it is there and is no socket")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # its maker is dead
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    umask = os.umask(0o177)
    try:
        with address.usable(path) as short:
            made.bind(short)
        made.listen(_BACKLOG)
    except BaseException:
        made.close()
        raise
    finally:
        os.umask(umask)
    made.setblocking(False)
    return made


def _remove_others(folder: str) -> None:
    """Removes what private daemons left here that were killed, and their trainers with them."""
    for path in glob.glob(os.path.join(glob.escape(folder), "private-*.sock")):
        lock.remove_stale(path)
