"""A daemon that belongs to this process, and is reached by an inherited socket.

::

    trainer ──── control socket ────► daemon
       │  Connect + an end of a new socket pair: one more connection
       │  Stop: drain, and end
       └─ end of file, when all holders are gone: end at once

Forked children of the trainer inherit the control socket and connect by it too. It is closed on
``exec``. For ``loaderd stat`` the daemon also listens in the default folder, if it can.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import signal
import socket
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic, sleep

from loaderd.errors import InvalidArgument, NoDaemon
from loaderd.ipc import address, channel, descriptors, dial, lock, messages
from loaderd.ipc.channel import Channel, Peer
from loaderd.ipc.messages import Connect, Message, Stop
from loaderd.ipc.process import Process
from loaderd.ipc.text import printable
from loaderd.launch import cpus
from loaderd.launch.launch import Launch, high, last_lines

STOP_SECONDS = 5.0
"""Seconds that a daemon may take to end before it is killed."""

CLEAN_SECONDS = 1.0
POLL_SECONDS = 0.01
_LINES = 5
_numbers = itertools.count()


class PrivateDaemon:
    """A running private daemon.

    Args:
        arguments: further options of ``loaderd serve``.
        name: its name; None for a new one.

    Attributes:
        name: the same.
        path: its socket in the default folder; empty if that cannot be used.
        pid: its process.

    Raises:
        NoDaemon: it could not start; the text holds the end of its log.
        NoDescriptor: too many files are open.
    """

    def __init__(self, arguments: Sequence[str] = (), name: str | None = None) -> None:
        self.name = name or _new_name()
        self.path = ""
        with contextlib.suppress(InvalidArgument):
            self.path = address.socket_path(self.name)
        self._arguments = arguments
        self._owner = os.getpid()
        with descriptors.needed("a private daemon"):
            self._log = high(os.memfd_create("loaderd-log"))
            close_log = _close_with(self, partial(os.close, self._log))
            self._control, theirs = (
                socket.socket(fileno=high(end.detach())) for end in channel.pair()
            )
        close_control = _close_with(self, self._control.close)
        self._control.settimeout(dial.TIMEOUT)
        try:
            with theirs:
                self._process = self._start(theirs.fileno())
        except BaseException:  # a notebook keeps the traceback, and with it this object
            close_control()
            close_log()
            raise
        self.pid = self._process.pid

    def _start(self, control: int) -> Process:
        own = [f"--name={self.name}", f"--owner={self._owner}", f"--control-fd={control}"]
        numbers = ",".join(map(str, sorted(cpus.of_the_program())))
        launch = Launch([*self._arguments, *own, f"--cpus={numbers}"], self._log, [control])
        try:
            process = launch.wait()
            if process is None:
                reason = "; ".join(self.last_lines(_LINES)) or f"it {launch.failure}"
                raise NoDaemon(f"the private daemon could not start: {printable(reason)}")
        except BaseException:  # also Ctrl-C
            self._clean()
            raise
        return process

    def last_lines(self, max_lines: int) -> list[str]:
        """The end of its log."""
        return last_lines(self._log, max_lines=max_lines)

    @property
    def ended(self) -> bool:
        """Whether its process is gone; also right in forked children."""
        return self.ends_within(0.0)

    def ends_within(self, seconds: float) -> bool:
        """Wait until its process is gone, for ``seconds`` at most; return whether it is."""
        # Only the daemon holds its end of the control socket, or a process forked in that moment.
        poll = select.poll()
        poll.register(self._control, 0)  # POLLHUP is always reported
        return bool(poll.poll(seconds * 1000)) or not self._process.alive

    def connect(self, timeout: float | None = None) -> Channel:
        """Open a connection, which has said hello.

        Args:
            timeout: seconds within which the daemon must answer; None for the usual.

        Raises:
            NoDaemon: it is gone.
            NoAnswer: it does not answer.
            NoDescriptor: too many files are open.
        """
        with descriptors.needed("a connection to the daemon"):
            ours, theirs = channel.pair()
        with theirs:
            # The kernel would name us as the peer of our own socket pair.
            connection = Channel(ours, Peer(self.pid, os.geteuid(), os.getegid()))
            try:
                self._send(Connect(), [theirs.fileno()])
                theirs.close()
                dial.greet(connection, self.path, timeout)
            except BaseException:
                connection.close()
                raise
        return connection

    def _send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send one packet; packets of several threads and processes never mix."""
        try:
            with descriptors.needed("a connection to the daemon"):
                socket.send_fds(self._control, [messages.encode(message)], list(fds))
        except TimeoutError as error:
            raise dial.silent(self.path, self.pid) from error
        except ConnectionError as error:
            raise NoDaemon(f"the private daemon (pid {self.pid}) went away") from error

    def again(self) -> PrivateDaemon:
        """Start another in place of this one, which has ended; in a forked child, a new one.

        Raises:
            NoDaemon: it could not start.
        """
        self.stop()
        is_owner = os.getpid() == self._owner
        return PrivateDaemon(self._arguments, self.name if is_owner else None)

    def stop(self) -> None:
        """End the daemon and wait until it is gone; in a forked child, do nothing."""
        if os.getpid() != self._owner:
            return
        with contextlib.suppress(NoDaemon):  # it is gone, or is killed below
            self._send(Stop())
        if not self.ends_within(STOP_SECONDS):
            self._process.send(signal.SIGKILL)
        self._process.wait(STOP_SECONDS)
        self._clean()

    def _clean(self) -> None:
        """Remove the socket and lock of a killed daemon, once the kernel has released the lock."""
        end = monotonic() + CLEAN_SECONDS
        while self.path and not lock.remove_stale(self.path) and monotonic() < end:
            sleep(POLL_SECONDS)


def _close_with(owner: PrivateDaemon, close: Callable[[], object]) -> Callable[[], object]:
    """Call ``close`` when ``owner`` is collected, but not at exit, where ``stop`` comes first.

    Returns:
        A function that closes at once.
    """
    with_owner = weakref.finalize(owner, close)
    with_owner.atexit = False
    return with_owner


def _new_name() -> str:
    name, number = f"private-{os.getpid()}", next(_numbers)
    return f"{name}-{number}" if number else name
