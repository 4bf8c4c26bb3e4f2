"""Where a daemon's socket lies."""

from __future__ import annotations

import os
import stat

from loaderd.errors import DaemonError, InvalidArgument

DEFAULT_NAME = "default"
_LONGEST = 107
"""``sun_path`` on Linux holds 108 bytes, the last of which is zero."""


def runtime_dir() -> str:
    """The folder of this user's sockets: ``$XDG_RUNTIME_DIR/loaderd`` or ``/tmp/loaderd-UID``."""
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    usable = os.path.isabs(base)  # the XDG specification has relative paths ignored
    return os.path.join(base, "loaderd") if usable else f"/tmp/loaderd-{os.getuid()}"


def socket_path(name: str | None = None, socket: str | None = None) -> str:
    """The socket of the daemon called ``name``, or ``socket`` itself where it is given.

    Left out, they come from ``LOADERD_SOCKET`` and ``LOADERD_NAME``.

    Raises:
        InvalidArgument: the name cannot be a file name, or the path is too long.
    """
    if not socket and not name:
        socket = os.environ.get("LOADERD_SOCKET")
    if not socket:
        socket = _named(name or os.environ.get("LOADERD_NAME") or DEFAULT_NAME)
    path = os.path.abspath(socket)
    if "\0" in path:
        raise InvalidArgument(f"the socket's path holds a null byte: {path!r}")
    if len(os.fsencode(path)) > _LONGEST:
        raise InvalidArgument(
            f"the socket's path is longer than {_LONGEST} bytes: {path}; choose a shorter one "
            "with --socket or LOADERD_SOCKET, or set XDG_RUNTIME_DIR to a shorter folder"
        )
    return path


def _named(name: str) -> str:
    if not name or "/" in name or name.startswith("."):
        raise InvalidArgument(f"a daemon's name must be a plain file name, got {name!r}")
    return os.path.join(runtime_dir(), f"{name}.sock")


def make_folder(socket: str) -> None:
    """Makes the folder of a socket, for this user only.

    Raises:
        DaemonError: it cannot be made, or is the usual one and in somebody else's hands.
    """
    folder = os.path.dirname(socket)
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
        state = os.lstat(folder)
    except OSError as error:
        raise DaemonError(f"no folder for the socket: {error}") from error
    if folder != runtime_dir():
        return  # the user's own choice, with the access that the user gave it
    # /tmp is everybody's: whoever is first there may have laid a trap.
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid():
        raise DaemonError(f"{folder} belongs to another user: remove it, or set XDG_RUNTIME_DIR")
    os.chmod(folder, 0o700)
