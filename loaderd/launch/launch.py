"""Start a daemon's process, detach it, and wait until it answers.

::

    starter ── Popen ──► boot ── fork ──► loaderd serve
       ▲                  │ pid, ends        │
       └───── a pipe ◄────┴──────────────────┘ READY

The daemon is no child of its starter: a program that waits for all its children, or is replaced
by another (``exec``), is not affected.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
from collections.abc import Sequence
from time import monotonic

from loaderd.errors import NoDaemon, NoDescriptor
from loaderd.ipc import descriptors
from loaderd.ipc.process import JOB_SIGNALS, Process
from loaderd.launch import interpreter, search_path

READY = b"1"
"""What the daemon writes to its ``--ready-fd`` once it answers."""

START_SECONDS = 30.0
"""Seconds within which a daemon must answer after its start."""

END_SECONDS = 5.0
_MAX_TAIL = 64 * 1024

_DETACH = """\
pid = os.fork()
if pid:
    os.write({tell}, b"%d\\n" % pid)
    os._exit(0)
os.setsid()
"""
_SERVE = "from loaderd.cli.main import main; sys.exit(main())"


class Launch:
    """Starts ``loaderd serve`` in a detached process; ``wait`` returns it once it answers.

    Args:
        arguments: its options.
        log: descriptor that it writes its log to.
        pass_fds: descriptors that it inherits, not among 0 to 2.

    Attributes:
        process: the daemon, once it is known.
        failure: why it does not answer, if it does not.

    Raises:
        NoDaemon: no process can be started.
        NoDescriptor: too many files are open.
    """

    def __init__(self, arguments: Sequence[str], log: int, pass_fds: Sequence[int] = ()) -> None:
        self.process: Process | None = None
        self.failure = ""
        self._booting: subprocess.Popen[bytes] | None = None
        self._received = b""
        with descriptors.needed("a daemon"):
            self._ready, tell = map(high, os.pipe())
        try:
            try:
                self._start(arguments, log, tell, pass_fds)
            finally:
                os.close(tell)
        except BaseException:  # also Ctrl-C: the daemon would have no owner
            self.kill()
            raise

    def _start(
        self, arguments: Sequence[str], log: int, tell: int, pass_fds: Sequence[int]
    ) -> None:
        command = interpreter.command()
        # Signals to the whole job, such as Ctrl-C, stay pending until the daemon can handle them.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, JOB_SIGNALS)
        try:
            with descriptors.needed("a daemon"):
                self._booting = subprocess.Popen(
                    [*command, "serve", *arguments, f"--ready-fd={tell}"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[tell, *pass_fds],
                    env=interpreter.environment(
                        search_path.entries(), _SERVE, _DETACH.format(tell=tell)
                    ),
                )
        except NoDescriptor:
            raise
        except OSError as error:
            raise NoDaemon(
                f"no process could be started for a daemon: {error}; `ulimit -u` may be too low"
            ) from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def wait(self) -> Process | None:
        """Wait until the daemon answers; return None if it ended before, or takes too long."""
        try:
            end = monotonic() + START_SECONDS
            while not self._received.endswith(b"\n" + READY):
                if not self._read(end - monotonic()):
                    self.failure = "ended before it answered"
                    if monotonic() >= end:
                        self.failure = f"did not answer within {START_SECONDS:.0f} s and was killed"
                    self.kill()
                    return None
            return self.process
        except BaseException:
            self.kill()
            raise
        finally:
            self._close()

    def _read(self, seconds: float) -> bool:
        """Read from the pipe; return False if nothing more comes within ``seconds``."""
        poll = select.poll()
        poll.register(self._ready, select.POLLIN)
        if not poll.poll(max(0.0, seconds) * 1000):
            return False
        data = os.read(self._ready, 64)
        self._received += data
        if self.process is None and b"\n" in self._received:
            self.process = Process(int(self._received.split(b"\n")[0]))
            self._end_booting()
        return bool(data)

    def kill(self) -> None:
        """Kill the daemon and what starts it, and wait until they are gone."""
        if self._ready >= 0 and self.process is None:
            with contextlib.suppress(OSError):
                self._read(END_SECONDS)  # its pid may not have been read yet
        self._end_booting()
        if self.process is not None:
            self.process.send(signal.SIGKILL)
            self.process.wait(END_SECONDS)
        self._close()

    def _end_booting(self) -> None:
        if self._booting is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._booting.wait(END_SECONDS)
            self._booting.kill()
            self._booting.wait()

    def _close(self) -> None:
        if self._ready >= 0:
            os.close(self._ready)
            self._ready = -1


def last_lines(log: int, begin: int = 0, max_lines: int = 20) -> list[str]:
    """The last lines of a log.

    Args:
        log: its descriptor.
        begin: offset in bytes; what is before it is left out.
        max_lines: how many at most.
    """
    begin = max(begin, os.fstat(log).st_size - _MAX_TAIL)
    tail = os.pread(log, _MAX_TAIL, begin).decode(errors="backslashreplace")
    return tail.strip().expandtabs().splitlines()[-max_lines:]


def high(fd: int) -> int:
    """Duplicate a descriptor below 3 to a higher one, as a child gets other files at 0 to 2.

    A process whose standard streams are closed gets such descriptors.
    """
    if fd > 2:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(fd)
