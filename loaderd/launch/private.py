"""A daemon of this process's own, which needs no place where it could be found.

::

    trainer ──── control socket ────► daemon
       │  Connect + an end of a new socket pair: one connection more
       │  Stop: finish what is begun, and end
       └─ its end, as all who held it are gone: end at once

The trainer's forked children have the control socket too, and connect by it as well. It is
closed when the trainer executes another program. For ``loaderd-stat`` the daemon also listens in
the usual folder, if it can.
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
from loaderd.launch.launch import Launch, last_lines
from loaderd.launch.low import high

STOP_SECONDS = 5.0
"""What a daemon may take to end; after that it is killed."""

CLEAN_SECONDS = 1.0
POLL_SECONDS = 0.01
_LINES = 5
_numbers = itertools.count()


class PrivateDaemon:
    """A running private daemon.

    Args:
        words: further options of ``loaderd serve``.
        name: what people call it; None for a name that nobody else has.

    Attributes:
        name: the same.
        path: where people find it, if the usual folder can be used.
        pid: its process.

    Raises:
        NoDaemon: it could not start; the text holds the end of its log.
        NoDescriptor: too many files are open.
    """

    def __init__(self, words: Sequence[str] = (), name: str | None = None) -> None:
        self.name = name or _new_name()
        self.path = _place(self.name)
        self._words = words
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
        except BaseException:  # which a notebook keeps, and us with it
            close_control()
            close_log()
            raise
        self.pid = self._process.pid

    def _start(self, control: int) -> Process:
        mine = [f"--name={self.name}", f"--owner={self._owner}", f"--control-fd={control}"]
        numbers = ",".join(map(str, sorted(cpus.of_the_program())))
        launch = Launch([*self._words, *mine, f"--cpus={numbers}"], self._log, [control])
        try:
            came_up = launch.wait()
        except BaseException:  # Ctrl-C
            self._clean()
            raise
        if not came_up or launch.process is None:
            self._clean()
            said = "; ".join(self.last_lines(_LINES)) or f"it {launch.failure}"
            raise NoDaemon(f"the private daemon could not start: {printable(said)}")
        return launch.process

    def last_lines(self, most: int) -> list[str]:
        """The end of its log."""
        return last_lines(self._log, most=most)

    @property
    def ended(self) -> bool:
        """Whether it is gone though nobody stopped it; forked children see it too."""
        return self.ends_within(0.0)

    def ends_within(self, seconds: float) -> bool:
        """Waits until it is gone, so many seconds at most; returns whether it is."""
        # Its end of the control socket only it has, and what was forked just as it was started.
        poll = select.poll()
        poll.register(self._control, 0)  # the kernel tells unasked
        return bool(poll.poll(seconds * 1000)) or not self._process.alive

    def connect(self, timeout: float | None = None) -> Channel:
        """A connection that has said hello.

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
            # Both ends are ours in the kernel's eyes; who answers is known.
            line = Channel(ours, Peer(self.pid, os.geteuid(), os.getegid()))
            try:
                self._say(Connect(), [theirs.fileno()])
                theirs.close()
                dial.greet(line, self.path, timeout)
            except BaseException:
                line.close()
                raise
        return line

    def _say(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Sends one packet, which is whole and in order, whoever else sends at the time."""
        try:
            with descriptors.needed("a connection to the daemon"):
                socket.send_fds(self._control, [messages.encode(message)], list(fds))
        except TimeoutError as error:
            raise dial.silent(self.path, self.pid) from error
        except ConnectionError as error:
            raise NoDaemon(f"the private daemon (pid {self.pid}) went away") from error

    def again(self) -> PrivateDaemon:
        """Another in place of this one, which ended; a forked child gets one of its own.

        Raises:
            NoDaemon: it could not start.
        """
        self.stop()
        mine = os.getpid() == self._owner
        return PrivateDaemon(self._words, self.name if mine else None)

    def stop(self) -> None:
        """Ends the daemon and waits until it is gone; in a forked child, does nothing."""
        if os.getpid() != self._owner:
            return
        with contextlib.suppress(NoDaemon):  # it is gone, or must be killed
            self._say(Stop())
        if not self.ends_within(STOP_SECONDS):
            self._process.send(signal.SIGKILL)
        self._process.wait(STOP_SECONDS)
        self._clean()

    def _clean(self) -> None:
        """Removes what it leaves behind if it was killed, once the kernel has let go of it."""
        end = monotonic() + CLEAN_SECONDS
        while self.path and not lock.remove_stale(self.path) and monotonic() < end:
            sleep(POLL_SECONDS)


def _close_with(owner: PrivateDaemon, close: Callable[[], object]) -> Callable[[], object]:
    """Closes with the object; at the end of the process the kernel does, after ``stop``.

    Returns:
        What closes before that.
    """
    with_owner = weakref.finalize(owner, close)
    with_owner.atexit = False
    return with_owner


def _new_name() -> str:
    name, number = f"private-{os.getpid()}", next(_numbers)
    return f"{name}-{number}" if number else name


def _place(name: str) -> str:
    try:
        return address.socket_path(name)
    except InvalidArgument:
        return ""
