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
import weakref

from loaderd.errors import NoDaemon
from loaderd.wire import address

START_SECONDS = 30.0
KILLED_SECONDS = 5.0
_numbers = itertools.count()


def _high(fd: int) -> int:
    """Moves a descriptor out of the way of 0 to 2, which the child gets anew."""
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(fd)
    return moved


class PrivateDaemon:
    """A running private daemon.

    Args:
        path: where its socket lies; None for a name of its own.

    Attributes:
        path: its socket.

    Raises:
        NoDaemon: it could not start; the text holds the end of its log.
    """

    def __init__(self, path: str | None = None) -> None:
        self.path = path or _new_path()
        self._owner = os.getpid()
        self._log = _high(os.memfd_create("loaderd-log"))
        weakref.finalize(self, os.close, self._log)
        ready, theirs = (_high(end) for end in os.pipe())
        try:
            try:
                self._process = self._start(theirs)
            finally:
                os.close(theirs)
            self._come_up(ready)
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

    def _come_up(self, ready: int) -> None:
        try:
            self._pidfd = _high(os.pidfd_open(self._process.pid))
            weakref.finalize(self, os.close, self._pidfd)
            self._await(ready)
        except BaseException:  # Ctrl-C, too: nobody would own it
            self._kill()
            raise

    def _await(self, ready: int) -> None:
        if select.select([ready], [], [], START_SECONDS)[0] and os.read(ready, 1):
            return
        self._kill()
        end = os.pread(self._log, 2**16, 0).decode(errors="replace").strip().splitlines()[-5:]
        raise NoDaemon("the private daemon could not start: " + "\n".join(end))

    @property
    def ended(self) -> bool:
        """Whether it is gone though nobody stopped it; forked children see it too."""
        watch = select.poll()
        watch.register(self._pidfd, select.POLLIN)
        return bool(watch.poll(0))

    def again(self) -> PrivateDaemon:
        """Another in place of this one, which ended; a forked child gets one of its own.

        Raises:
            NoDaemon: it could not start.
        """
        self.stop()
        return PrivateDaemon(self.path if os.getpid() == self._owner else None)

    def stop(self) -> None:
        """Ends the daemon and waits until it is gone; in a forked child, does nothing."""
        if os.getpid() != self._owner:
            return
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5.0)
        self._kill()

    def _kill(self) -> None:
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # its cache's disk does not answer
            self._process.wait(KILLED_SECONDS)
        self._clean()

    def _clean(self) -> None:
        """Removes what it leaves behind if it was killed; nobody else goes by its name."""
        for path in (self.path, self.path.removesuffix(".sock") + ".lock"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def _new_path() -> str:
    name, number = f"private-{os.getpid()}", next(_numbers)
    return address.socket_path(name=f"{name}-{number}" if number else name)
