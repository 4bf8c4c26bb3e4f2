"""Messages to the service manager, if there is one: systemd's ``sd_notify`` protocol.

A message is one datagram to the socket that ``NOTIFY_SOCKET`` names. The manager may be gone or
restarting, which must not disturb the daemon, so nothing here raises.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")

TIMEOUT_SECONDS = 1.0
"""How long a manager may take to accept a datagram."""


class Notifier:
    """Tells the service manager how the daemon is; does nothing where there is none.

    Args:
        environ: the process's variables. Those of the protocol are taken out of it: children
            that inherit them, or the user's code in them, could speak in our name. So it is
            made before the first child is.
    """

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        said, microseconds, pid = (environ.pop(name, "") for name in VARIABLES)
        # "@" is how a null byte, with which names that are no files begin, is written.
        self._address = "\0" + said[1:] if said.startswith("@") else said
        self._pause: float | None = None
        if microseconds.isdecimal() and int(microseconds) and pid in ("", str(os.getpid())):
            self._pause = int(microseconds) / 2e6
        self._next_feed = 0.0

    def ready(self) -> None:
        """Says that the daemon serves; also ends what ``reloading`` began."""
        self._say("READY=1")

    def reloading(self) -> None:
        """Says that the settings are read anew; ``ready`` must follow in any case."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._say("RELOADING=1", f"MONOTONIC_USEC={now}")

    def stopping(self) -> None:
        """Says that the daemon is about to end."""
        self._say("STOPPING=1")

    def feed(self, now: float) -> None:
        """Feeds the watchdog, twice as often as it asks for; to be called often."""
        if self._pause is not None and now >= self._next_feed and self._say("WATCHDOG=1"):
            self._next_feed = now + self._pause

    def _say(self, *lines: str) -> bool:
        """Returns whether the manager got it."""
        if self._address[:1] not in ("/", "\0"):
            return False
        with (
            contextlib.suppress(OSError, ValueError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock,
        ):
            sock.settimeout(TIMEOUT_SECONDS)
            sock.connect(self._address)
            sock.send("\n".join(lines).encode(errors="replace"))
            return True
        return False
