"""The path of a daemon's socket, and checks of its owner and permissions."""

from __future__ import annotations

import contextlib
import os
import pwd
import shlex
import stat
from collections.abc import Iterator

from loaderd.errors import DaemonError, ForeignDaemon, InvalidArgument
from loaderd.ipc.text import printable

DEFAULT_NAME = "default"
_MAX_PATH = 107
"""``sun_path`` on Linux holds 108 bytes, the last of which is zero."""

_MAX_NAME = 80
"""Bytes of a file name whose full path is too long: it is reached by ``/proc/self/fd``."""

_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def runtime_dir() -> str:
    """The folder of this user's sockets: ``$XDG_RUNTIME_DIR/loaderd`` or ``/tmp/loaderd-UID``."""
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    usable = base and not why_unusable(base)
    return os.path.join(base, "loaderd") if usable else f"/tmp/loaderd-{os.geteuid()}"


def why_unusable(base: str) -> str:
    """The reason not to use ``$XDG_RUNTIME_DIR`` for sockets; empty if it is usable.

    Batch systems, ``sudo`` and containers pass on the value of another machine or user.
    """
    if not os.path.isabs(base):  # to be ignored, by the XDG specification
        return "it is no absolute path"
    try:
        state = os.stat(base)
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    if not stat.S_ISDIR(state.st_mode):
        return "it is no folder"
    if state.st_uid != os.geteuid():
        return f"it belongs to {user_name(state.st_uid)}"
    return "" if os.access(base, os.W_OK | os.X_OK) else "it cannot be written"


def socket_path(name: str | None = None, socket: str | None = None) -> str:
    """The socket of the daemon called ``name``, or ``socket`` itself if given.

    The defaults are ``LOADERD_SOCKET`` and ``LOADERD_NAME``.

    Raises:
        InvalidArgument: the name cannot be a file name, or the path cannot be used.
    """
    if not socket and not name:
        socket = os.environ.get("LOADERD_SOCKET")
    if not socket:
        socket = _named(name or os.environ.get("LOADERD_NAME") or DEFAULT_NAME)
    path = _absolute(socket)
    if "\0" in path:
        raise InvalidArgument(f"the socket's path holds a null byte: {path!r}")
    if _is_long(path) and len(os.fsencode(os.path.basename(path))) > _MAX_NAME:
        raise InvalidArgument(
            f"the socket's file name is longer than {_MAX_NAME} bytes: {path}; choose a shorter "
            "one with --name or --socket (LOADERD_NAME, LOADERD_SOCKET)"
        )
    return path


def start_command(path: str) -> str:
    """The shell command that starts a daemon at an address."""
    folder, file = os.path.split(path)
    name, extension = os.path.splitext(file)
    if folder != runtime_dir() or extension != ".sock":
        return f"loaderd start --socket {shlex.quote(printable(path))}"
    return "loaderd start" if name == DEFAULT_NAME else f"loaderd start --name {shlex.quote(name)}"


def _named(name: str) -> str:
    if not name or "/" in name or name.startswith("."):
        raise InvalidArgument(f"a daemon's name must be a plain file name, got {name!r}")
    return os.path.join(runtime_dir(), f"{name}.sock")


def _absolute(path: str) -> str:
    try:
        return os.path.abspath(path)
    except OSError as error:
        raise InvalidArgument(
            f"the socket's path is relative, and the working directory is gone: {path!r}"
        ) from error


def _is_long(path: str) -> bool:
    return len(os.fsencode(path)) > _MAX_PATH


@contextlib.contextmanager
def usable(path: str) -> Iterator[str]:
    """A path to the socket that fits ``sun_path``, however long ``path`` is.

    Raises:
        OSError: its folder cannot be opened.
    """
    if not _is_long(path):
        yield path
        return
    folder, name = os.path.split(path)
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)


def make_folder(socket: str) -> None:
    """Creates the folder of a socket, for this user only.

    Raises:
        DaemonError: it cannot be created.
        ForeignDaemon: it is the default one, and unsafe; see :func:`check_place`.
    """
    folder = os.path.dirname(socket)
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
        if folder != runtime_dir():
            return  # the user's own choice keeps its permissions
        state = os.lstat(folder)
        if stat.S_ISDIR(state.st_mode) and state.st_uid == os.geteuid():
            os.chmod(folder, 0o700)
    except OSError as error:
        raise DaemonError(f"no folder for the socket: {error}") from error
    check_place(socket)


def check_place(socket: str) -> None:
    """Checks that no other user can have created the socket, if it is in the default folder.

    /tmp is world-writable, so another user may have created the folder first. A folder
    that the user chose is not checked.

    Raises:
        ForeignDaemon: folder or socket belong to another user, or are writable by others.
    """
    folder = os.path.dirname(socket)
    if folder != runtime_dir():
        return
    for place in (folder, socket):
        try:
            state = os.lstat(place)
        except OSError:
            return  # missing, or not accessible: connecting raises the error
        if place == folder and not stat.S_ISDIR(state.st_mode):
            raise ForeignDaemon(f"{place} is no folder: remove it, or set XDG_RUNTIME_DIR")
        _check_owner(place, state)


def _check_owner(place: str, state: os.stat_result) -> None:
    if state.st_uid != os.geteuid():
        raise ForeignDaemon(
            f"{place} belongs to {user_name(state.st_uid)}: have it removed, or set "
            "XDG_RUNTIME_DIR to a folder of your own"
        )
    if state.st_mode & _WRITABLE_BY_OTHERS:
        raise ForeignDaemon(f"{place} can be written by other users: remove it, or `chmod go-w` it")


def check_peer(uid: int, path: str) -> None:
    """Checks that the listener at ``path`` runs as this user, before anything is sent to it.

    Raises:
        ForeignDaemon: it runs as another user.
    """
    if uid != os.geteuid():
        raise ForeignDaemon(
            f"the daemon at {path} is run by {user_name(uid)}, and nothing is sent to it: "
            "`loaderd start` starts one of your own; --name, --socket or XDG_RUNTIME_DIR choose "
            "another place"
        )


def user_name(uid: int) -> str:
    """The name and number of a user, for error texts."""
    try:
        return f"user {pwd.getpwuid(uid).pw_name} ({uid})"
    except KeyError:
        return f"user {uid}"
