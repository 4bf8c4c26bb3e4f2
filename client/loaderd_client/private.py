"""A daemon of the trainer's own, for when nobody has started one.

It watches its trainer through a pidfd and ends when that does, however that ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import select
import subprocess
import sys

from loaderd.errors import NoDaemon
from loaderd.wire import address

START_SECONDS = 30.0
_numbers = itertools.count()


def _high(fd: int) -> int:
    """Moves a descriptor out of the way of 0 to 2, which the child gets anew."""
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(fd)
    return moved


class PrivateDaemon:
    """A running private daemon.

    Attributes:
        path: its socket.

    Raises:
        NoDaemon: it could not start; the text holds the end of its log.
    """

    def __init__(self) -> None:
        name = f"private-{os.getpid()}"
        number = next(_numbers)
        self.path = address.socket_path(name=f"{name}-{number}" if number else name)
        self._owner = os.getpid()
        self._log = _high(os.memfd_create("loaderd-log"))
        ready, theirs = (_high(end) for end in os.pipe())
        try:
            self._process = self._start(theirs)
            os.close(theirs)
            self._await(ready)
        finally:
            os.close(ready)

    def _start(self, ready_fd: int) -> subprocess.Popen[bytes]:
        flags = ["--socket", self.path, "--owner", str(self._owner), "--ready-fd", str(ready_fd)]
        return subprocess.Popen(
            [sys.executable, "-m", "loaderd", "serve", *flags],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            pass_fds=[ready_fd],
            start_new_session=True,  # Ctrl-C is the trainer's alone
            cwd="/",  # no module of the folder that we are in may take a module's place
        )

    def _await(self, ready: int) -> None:
        if select.select([ready], [], [], START_SECONDS)[0] and os.read(ready, 1):
            return
        self._process.kill()
        self._process.wait()
        end = os.pread(self._log, 2**16, 0).decode(errors="replace").strip().splitlines()[-5:]
        raise NoDaemon("the private daemon could not start: " + "\n".join(end))

    @property
    def ended(self) -> bool:
        """Whether it is gone though nobody stopped it."""
        return os.getpid() == self._owner and self._process.poll() is not None

    def stop(self) -> None:
        """Ends the daemon and waits until it is gone; in a forked child, does nothing."""
        if os.getpid() != self._owner:
            return
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5.0)
        self._process.kill()
        self._process.wait()
        os.close(self._log)
