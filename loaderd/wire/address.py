"""Where a daemon's socket lies."""

from __future__ import annotations

import os

from loaderd.errors import InvalidArgument

DEFAULT_NAME = "default"
_LONGEST = 107
"""``sun_path`` on Linux holds 108 bytes, the last of which is zero."""


def runtime_dir() -> str:
    """The folder of this user's sockets: ``$XDG_RUNTIME_DIR/loaderd`` or ``/tmp/loaderd-UID``."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    return os.path.join(base, "loaderd") if base else f"/tmp/loaderd-{os.getuid()}"


def socket_path(name: str | None = None, socket: str | None = None) -> str:
    """The socket of the daemon called ``name``, or ``socket`` itself where it is given.

    Left out, they come from ``LOADERD_SOCKET`` and ``LOADERD_NAME``.

    Raises:
        InvalidArgument: the name cannot be a file name, or the path is too long.
    """
    if socket is None and name is None:
        socket = os.environ.get("LOADERD_SOCKET")
    if socket is None:
        socket = _named(name or os.environ.get("LOADERD_NAME") or DEFAULT_NAME)
    path = os.path.abspath(socket)
    if len(os.fsencode(path)) > _LONGEST:
        raise InvalidArgument(f"the socket's path is longer than {_LONGEST} bytes: {path}")
    return path


def _named(name: str) -> str:
    if not name or "/" in name or name.startswith("."):
        raise InvalidArgument(f"a daemon's name must be a plain file name, got {name!r}")
    return os.path.join(runtime_dir(), f"{name}.sock")
