"""A daemon's process on its way: started, detached, awaited.

::

    starter ── Popen ──► boot ── fork ──► loaderd serve
       ▲                  │ pid, ends        │
       └───── a pipe ◄────┴──────────────────┘ READY

The daemon is no child of its starter: a program that waits for all its children, or is replaced
by another (``exec``), never meets it.
"""

from __future__ import annotations

import contextlib
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
from loaderd.launch.low import high

READY = b"1"
"""What the daemon writes to its ``--ready-fd`` once it answers."""

START_SECONDS = 30.0
"""Within which it does."""

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
    """Starts ``loaderd serve`` in a process of its own; ``wait`` says whether it came up.

    Args:
        words: its options.
        log: descriptor that it writes its log to.
        pass_fds: descriptors that it inherits, not among 0 to 2.

    Attributes:
        process: the daemon, once it is known.
        failure: what came of it, if it did not come up.

    Raises:
        NoDaemon: no process can be started.
        NoDescriptor: too many files are open.
    """

    def __init__(self, words: Sequence[str], log: int, pass_fds: Sequence[int] = ()) -> None:
        self.process: Process | None = None
        self.failure = ""
        self._booting: subprocess.Popen[bytes] | None = None
        self._said = b""
        with descriptors.needed("a daemon"):
            self._ready, tell = map(high, os.pipe())
        try:
            try:
                self._start(words, log, tell, pass_fds)
            finally:
                os.close(tell)
        except BaseException:  # Ctrl-C, too: nobody would own it
            self.kill()
            raise

    def _start(self, words: Sequence[str], log: int, tell: int, pass_fds: Sequence[int]) -> None:
        command = interpreter.command()
        # A signal to the whole job, or Ctrl-C, that comes before the daemon can deal with it,
        # waits until then.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, JOB_SIGNALS)
        try:
            with descriptors.needed("a daemon"):
                self._booting = subprocess.Popen(
                    [*command, "serve", *words, f"--ready-fd={tell}"],
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

    def wait(self) -> bool:
        """Waits until the daemon answers; False if it ended before, or takes too long."""
        seconds = START_SECONDS
        try:
            end = monotonic() + seconds
            while not self._said.endswith(b"\n" + READY):
                if not self._hear(end - monotonic()):
                    self.failure = "ended before it answered"
                    if monotonic() >= end:
                        self.failure = f"did not answer within {seconds:.0f} s and was killed"
                    self.kill()
                    return False
            return True
        except BaseException:
            self.kill()
            raise
        finally:
            self._close()

    def _hear(self, seconds: float) -> bool:
        """Takes in what the daemon says; False if nothing more comes."""
        poll = select.poll()
        poll.register(self._ready, select.POLLIN)
        if not poll.poll(max(0.0, seconds) * 1000):
            return False
        said = os.read(self._ready, 64)
        self._said += said
        if self.process is None and b"\n" in self._said:
            self.process = Process(int(self._said.split(b"\n")[0]))
            self._end_booting()
        return bool(said)

    def kill(self) -> None:
        """Makes sure that nothing is left of it."""
        if self._ready >= 0 and self.process is None:
            with contextlib.suppress(OSError):
                self._hear(END_SECONDS)  # whose number we may not have read yet
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


def last_lines(log: int, begin: int = 0, most: int = 20) -> list[str]:
    """The end of a log.

    Args:
        log: its descriptor.
        begin: bytes that are older, and of no interest.
        most: lines.
    """
    begin = max(begin, os.fstat(log).st_size - _MAX_TAIL)
    tail = os.pread(log, _MAX_TAIL, begin).decode(errors="backslashreplace")
    return tail.strip().expandtabs().splitlines()[-most:]
