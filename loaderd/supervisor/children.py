"""The daemon's children: started by a fork server, which also reports their ends.

A child has a socket to the supervisor, and a number that the supervisor gave it. The fork server,
whose child it is, tells when it is dead and its memory is gone: only then may others write what
it was writing. If the fork server dies, its children die with it; the supervisor has become
their parent by then, and sees their ends itself.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import psutil

from loaderd.child import init
from loaderd.errors import LoaderdError, NoDescriptor, ProtocolError
from loaderd.ipc import channel
from loaderd.ipc.channel import Channel, Closed
from loaderd.ipc.messages import Ended, Fork, Forked, Message, Signal
from loaderd.supervisor.loop import Loop
from loaderd.supervisor.server_process import FORKS, Program, ServerProcess, pickled

log = logging.getLogger("loaderd")

Messages = list[tuple[Message, list[int]]]
"""What was said, and the descriptors that came along."""

LAST_SECONDS = 1.0
"""How long killed children are waited for at the end: one in a read may not die yet."""

POLL_SECONDS = 0.005


class Child:
    """A child process, and the supervisor's end of its socket.

    Attributes:
        channel: the socket.
        inbox: the child's own end, from which messages can be taken back.
        pid: its process id; 0 until it has told.
        ended: whether it is dead, and its memory is gone.
        code: its exit code then, -N for signal N; None where it is not known.
        trouble: why it could not be started.
    """

    def __init__(self, channel: Channel, send: Callable[[signal.Signals], None]) -> None:
        self.channel = channel
        self.inbox: Channel | None = None
        self.pid = 0
        self.ended = False
        self.code: int | None = None
        self.trouble = ""
        self._on_end: Callable[[], object] = lambda: None
        self._send = send

    def kill(self) -> None:
        """Kills the process, if it still lives."""
        self.send(signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to the process, if it still lives."""
        if not self.ended:
            self._send(number)

    @property
    def hung_up(self) -> bool:
        """Whether it has closed its end of the socket, as it does when it ends."""
        poll = select.poll()
        poll.register(self.channel.fileno(), 0)  # the kernel tells unasked
        return bool(poll.poll(0))

    def when_ended(self, callback: Callable[[], object]) -> None:
        """Calls back once it has ended; at once if it has already."""
        if self.ended:
            callback()
        self._on_end = callback

    def note_end(self, code: int | None) -> None:
        """It has ended."""
        self.ended, self.code = True, code
        self._on_end()

    def close(self) -> None:
        """Closes the socket; what the child was sent and has not read is lost."""
        self.channel.close()
        if self.inbox is not None:
            self.inbox.close()

    def take_back(self) -> Messages:
        """What the child was sent and has not read: the kernel gives each message out once."""
        back: Messages = []
        while self.inbox is not None:
            try:
                # Not settimeout(0), which would be the child's as well.
                back.append(self.inbox.receive_with_fds(socket.MSG_DONTWAIT))
            except (ProtocolError, NoDescriptor):  # those that came along are lost
                self.kill()
                break
            except (BlockingIOError, Closed):
                break
        return back


class ChildServer:
    """Has children started by a process that also tells when they end.

    Args:
        loop: waits for what that process says.
        program: what it runs.
    """

    def __init__(self, loop: Loop, program: Program) -> None:
        self._loop = loop
        self._program = program
        self._children: dict[int, Child] = {}
        self._last = 0
        self._server: ServerProcess | None = None

    def spawn(self, target: Callable[..., None], *args: Any, revocable: bool = False) -> Child:
        """Starts ``target(socket, *args)`` in a new process.

        Args:
            target: a function of a module.
            args: for it.
            revocable: whether messages may be taken back. Then the end of the child's end of the
                socket is not seen, only the child's.

        Raises:
            OSError: there is no descriptor left, or no server can be started.
        """
        server = self._running()
        work = pickled(target, args)
        try:
            ours, theirs = channel.pair()
            with theirs:
                number = self._last = self._last + 1
                new = Child(Channel(ours), partial(self._signal, number))
                try:
                    new.channel.settimeout(0)
                    if revocable:
                        new.inbox = Channel(theirs.dup())
                    self._say(server, Fork(number), [work, theirs.fileno()])
                except BaseException:
                    new.close()
                    raise
        finally:
            os.close(work)
        self._children[number] = new
        return new

    @property
    def count(self) -> int:
        """How many children there are."""
        return len(self._children)

    def close(self) -> None:
        """Kills the server, and all children with it."""
        if self._server is not None:
            self._loop.forget(self._server.channel.fileno())
            self._server.channel.close()
            self._server.process.kill()
            self._server.process.wait()
            self._server = None
        for one in self._children.values():
            one.close()
        self._children.clear()

    def wake(self) -> None:
        """Wakes a stopped server, which reports no ends; to be called about once a second."""
        if self._server is not None:
            self._server.send(signal.SIGCONT)

    def catch_up(self) -> None:
        """Takes in what the server has told by now."""
        if self._server is not None:
            self._read(self._server)

    def reaped(self, pid: int) -> bool:
        """Takes note of the server's end, if it is the child of ours that has ended."""
        if self._server is None or self._server.process.pid != pid:
            return False
        self._server_ended(self._server)
        return True

    def _running(self) -> ServerProcess:
        """The server, for another child.

        Raises:
            OSError: there is none, and none can be started.
        """
        return self._server_now()

    def _server_now(self) -> ServerProcess:
        """The server; another one, if it has died."""
        if self._server is None:
            server = self._server = ServerProcess(self._program)
            self._loop.watch_channel(server.channel, lambda: self._read(server))
        return self._server

    def _say(self, server: ServerProcess, message: Message, fds: list[int]) -> None:
        server.send(signal.SIGCONT)  # if it is stopped, no child could be started
        try:
            server.channel.send(message, fds)
        except Closed as error:
            name = self._program.name
            raise OSError(f"no process could be started: {name} has died") from error

    def _signal(self, number: int, what: signal.Signals) -> None:
        one = self._children.get(number)
        if self._server is not None:
            with contextlib.suppress(OSError):  # it has died, and its children with it
                self._say(self._server, Signal(number, what), [])
        elif one is not None and one.pid:  # it is our own by now
            with contextlib.suppress(ProcessLookupError):
                os.kill(one.pid, what)

    def _read(self, server: ServerProcess) -> None:
        try:
            while True:
                self._heard(server.channel.receive())
        except BlockingIOError:
            return
        except (Closed, ProtocolError):
            self._loop.forget(server.channel.fileno())
            server.send(signal.SIGKILL)  # the end of the process is what counts: see ``reaped``

    def _heard(self, message: Message) -> None:
        match message:
            case Forked(number, pid) if number in self._children:
                self._children[number].pid = pid
            case Ended(number, code, trouble) if number in self._children:
                self._children[number].trouble = trouble
                self._end(number, code)

    def _end(self, number: int, code: int | None) -> None:
        self._children.pop(number).note_end(code)

    def _server_ended(self, server: ServerProcess) -> None:
        """Its children are ours now, and die; their ends are seen like its own was."""
        self._read(server)  # what it told before still counts
        self._server = None
        self._loop.forget(server.channel.fileno())
        server.channel.close()
        code = server.process.wait()
        name = self._program.name
        log.warning("%s has ended (%d); its children end with it", name, code)
        for number, one in list(self._children.items()):
            if not one.pid:
                one.trouble = f"{name} died over it"
                self._end(number, None)
            elif not _is_ours(one.pid):
                self._end(number, None)
            else:
                os.kill(one.pid, signal.SIGKILL)


class ForkServer(ChildServer):
    """Starts children of this machine. A context manager: its end ends all of them.

    Args:
        loop: waits for what the fork server says.

    Attributes:
        others: further servers, whose processes are children of ours.
    """

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop, FORKS)
        self.others: list[ChildServer] = []
        init.adopt_orphans(True)

    def __enter__(self) -> ForkServer:
        with contextlib.suppress(OSError, LoaderdError):  # whoever needs a child says why
            self._running()
        return self

    def __exit__(self, *_: object) -> None:
        """Kills all children, and waits a moment until they are dead."""
        for server in (*self.others, self):
            server.close()
        for orphan in psutil.Process().children():  # also multiprocessing's resource tracker
            with contextlib.suppress(psutil.Error):
                orphan.kill()
        end = time.monotonic() + LAST_SECONDS
        with contextlib.suppress(ChildProcessError):  # none is left
            while time.monotonic() < end:
                if not os.waitpid(-1, os.WNOHANG)[0]:
                    time.sleep(POLL_SECONDS)
            log.warning("some workers cannot be ended yet: storage does not answer")
        init.adopt_orphans(False)

    def check(self) -> None:
        """Wakes stopped servers, and reaps; to be called about once a second."""
        for server in (self, *self.others):
            server.wake()
        self.reap()

    def reap(self) -> None:
        """Takes note of children of our own that have ended; to be called at SIGCHLD."""
        while (found := _ended()) is not None:
            if any(server.reaped(found.si_pid) for server in (self, *self.others)):
                continue
            code = os.waitstatus_to_exitcode(os.waitpid(found.si_pid, 0)[1])
            for number, one in list(self._children.items()):
                if one.pid == found.si_pid:
                    self._end(number, code)


def _ended() -> os.waitid_result | None:
    """A child of this process that has ended, and that is still to be waited for."""
    with contextlib.suppress(ChildProcessError):
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    return None


def _is_ours(pid: int) -> bool:
    """Whether a process, which may have ended, is a child of this one."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True
