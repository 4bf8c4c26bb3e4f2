"""The connections of clients.

A client says Hello first; then it may ask for snapshots, for the end of the daemon, or
for a stream, which lives as long as the connection, or until another is opened on it.
An error of a client ends its own connection and nothing else.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from loaderd import __version__
from loaderd.errors import LoaderdError, ProtocolError, RequestRefused
from loaderd.ipc import descriptors
from loaderd.ipc.channel import Channel, Closed, Unread
from loaderd.ipc.messages import (
    PROTOCOL,
    Ack,
    BadList,
    Confirm,
    Confirmed,
    Describe,
    Described,
    Hello,
    Leave,
    ListBad,
    Message,
    Observe,
    Observed,
    Open,
    Plan,
    Refused,
    SetWorkers,
    Stop,
    Stopping,
    Welcome,
    refusal,
)
from loaderd.ipc.process import Process
from loaderd.ipc.snapshot import Snapshot
from loaderd.supervisor.listener import Listener
from loaderd.supervisor.loop import Loop

log = logging.getLogger("loaderd")

HELLO_SECONDS = 5.0
"""A client that has not said Hello by then is dropped."""

MAX_CLIENTS = 1024
MAX_OF_ONE_PROCESS = 256
"""Connections, so that a process that leaks its own leaves some to others."""

SPARE_DESCRIPTORS = 128
"""Kept for workers, openers and the streams of clients that are connected."""


@dataclass(frozen=True, slots=True)
class Requests:
    """What a client may ask of the supervisor; every call may raise a LoaderdError."""

    observe: Callable[[], Snapshot]
    list_bad: Callable[[int], BadList]
    describe: Callable[[int], tuple[Described, tuple[int, ...]]]
    set_workers: Callable[[int], None]
    stop: Callable[[], None]
    open: Callable[[ClientConnection, Open, list[int]], None]
    plan: Callable[[int, Plan], None]
    took: Callable[[int, Ack], None]
    leave: Callable[[int], None]
    gone: Callable[[ClientConnection], None]


class ClientConnection:
    """The connection of one client.

    Attributes:
        subscriber: its number as a subscriber, once a stream is open for it; that of the stream,
            unless it is shared.
        failed: whether the daemon has ended the connection, so that arrays may be alive.
        takes_descriptors: whether it may open a stream, or another one in place of its own.
        heard_at: when its last message came.
    """

    def __init__(self, channel: Channel, requests: Requests) -> None:
        self.channel = channel
        self.pid = channel.peer.pid
        self.subscriber: int | None = None
        self.failed = False
        self.takes_descriptors = True
        # One in another container has no pid here; the end of its socket is its end.
        self._process = Process(self.pid) if self.pid > 0 else None
        self._requests = requests
        self.heard_at = self._since = time.monotonic()
        self._greeted = False
        self._lost = False

    def read(self) -> bool:
        """Answers one message, or ends the connection; returns whether there may be more."""
        if self._lost:
            self.end()
            return False
        try:
            self._read_one()
            return True
        except BlockingIOError:
            return False
        except Closed:
            self.end()
        except ProtocolError as error:
            self._drop(error)
        except LoaderdError as error:
            self.refuse(error)
        except OSError as error:  # no descriptor or process left, or a descriptor of theirs is odd
            log.warning("client %d is refused: %s", self.pid, error)
            self.refuse(RequestRefused(f"the daemon could not do it: {error}"))
        except Exception as error:  # a fault of ours must not end the other streams
            log.exception("client %d is dropped", self.pid)
            self.fail(RequestRefused(f"a fault in the daemon, see its log: {error!r}"))
        return False

    def _read_one(self) -> None:
        if self.takes_descriptors:
            message, fds = self.channel.receive_with_fds()
        else:
            message, fds = self.channel.receive(), []  # in half the time
        self.heard_at = time.monotonic()
        try:
            self._serve(message, fds)
        finally:
            descriptors.close_all(fds)

    def _serve(self, message: Message, fds: list[int]) -> None:
        if not self._greeted and not isinstance(message, Hello):
            raise ProtocolError(f"{type(message).__name__} before Hello")
        match message:
            case Ack() if self.subscriber is not None:
                self._requests.took(self.subscriber, message)
            case Plan() if self.subscriber is not None:
                self._requests.plan(self.subscriber, message)
            case Leave() if self.subscriber is not None:
                self._requests.leave(self.subscriber)
            case Confirm() if self.subscriber is not None:
                self.send(Confirmed())
            case Open() if self.channel.unsent:  # each answer that waits holds descriptors
                self._lose("it does not read what it is sent")
            case Open() if len(fds) == 1 + len(message.bundles):
                self._requests.open(self, message, fds)
            case Hello():
                self._greeted = True
                self.send(Welcome(PROTOCOL, __version__, os.getpid()))
            case Observe():
                self.send(Observed(self._requests.observe()))
            case ListBad(first):
                self.send(self._requests.list_bad(first))
            case Describe(subscriber):
                self.send(*self._requests.describe(subscriber))
            case SetWorkers(count):
                self._requests.set_workers(count)
                self.send(Confirmed())
            case Stop():
                self.send(Stopping())
                self._requests.stop()
            case _:
                raise ProtocolError(f"{type(message).__name__} does not belong here")

    def send(self, message: Message, fds: tuple[int, ...] = ()) -> None:
        """Sends; a client that is gone is noticed when its socket is read.

        Raises:
            OSError: descriptors cannot be sent.
        """
        try:
            self.channel.send(message, fds)
        except Unread:
            self._lose("it does not read what it is sent")
        except Closed:
            return
        except OSError as error:
            if fds:
                raise
            self._lose(str(error))

    def _lose(self, reason: str) -> None:
        """Drops the client when its socket is read next, as the caller still uses its stream."""
        if not self._lost:
            log.warning("client %d is dropped: %s", self.pid, reason)
        self._lost = True
        self.channel.shut_down()

    def refuse(self, error: LoaderdError | Refused) -> None:
        """Tells the client that it does not get what it asked for."""
        self.send(error if isinstance(error, Refused) else refusal(error))

    def fail(self, error: LoaderdError) -> None:
        """Ends the connection with an error, which reaches the trainer after what is ready."""
        self.failed = True
        self.refuse(error)
        self.end()

    def check(self, now: float) -> None:
        """Drops a client that says nothing, or is dead; called about once a second.

        A forked child of it may hold its socket open: the end of the client is what counts.
        """
        if self._process is not None and not self._process.alive:
            self.end()
        elif not self._greeted and now - self._since > HELLO_SECONDS:
            self._drop(ProtocolError(f"no Hello within {HELLO_SECONDS:g} seconds"))

    def _drop(self, error: ProtocolError) -> None:
        log.warning("client %d is dropped: %s", self.pid, error)
        self.fail(error)

    def end(self) -> None:
        """Closes the connection and the stream that hangs on it."""
        self._requests.gone(self)
        self.channel.hang_up()


class Clients:
    """The connections of all clients.

    Args:
        loop: waits for what they say.
        listener: where they come from.
        requests: what they may ask for.

    Attributes:
        all: those that are open.
    """

    def __init__(self, loop: Loop, listener: Listener, requests: Requests) -> None:
        self.all: set[ClientConnection] = set()
        self._loop = loop
        self._listener = listener
        self._requests = requests

    def accept(self) -> None:
        """Lets in the client that waits at the listener, if it is this user."""
        try:
            channel = Channel(self._listener.accept())
        except OSError as error:
            log.error("nobody is let in for a while: %s", error)
            self._listener.pause()
            return
        if channel.peer.uid != os.geteuid():
            log.warning("refused user %d (process %d)", channel.peer.uid, channel.peer.pid)
            channel.close()
            return
        self._admit(channel)

    def adopt(self, fd: int) -> None:
        """Lets in the client at the other end of a socket that the daemon's owner sent.

        The trainer may have become another user since it started the daemon.

        Args:
            fd: the descriptor, which is ours from now on.
        """
        try:
            sock = socket.socket(fileno=fd)
        except OSError as error:
            log.error("the owner sent a descriptor that is no socket: %s", error)
            os.close(fd)
            return
        self._admit(Channel(sock))

    def _admit(self, channel: Channel) -> None:
        channel.settimeout(0)
        reason = self._too_many(channel)
        if reason:
            log.warning("client %d is turned away: %s", channel.peer.pid, reason)
            with contextlib.suppress(Closed):
                channel.send(Refused(RequestRefused.__name__, f"{reason}: close some streams"))
            channel.hang_up()
            return
        client = ClientConnection(channel, self._requests)
        self.all.add(client)
        self._loop.watch_channel(channel, client.read)

    def _too_many(self, channel: Channel) -> str:
        """Why there is no room for one more; empty if there is."""
        if len(self.all) >= MAX_CLIENTS:
            return f"the daemon has {MAX_CLIENTS} connections, and takes no more"
        pid = channel.peer.pid
        if sum(client.pid == pid for client in self.all) >= MAX_OF_ONE_PROCESS:
            return f"process {pid} has {MAX_OF_ONE_PROCESS} connections, and gets no more"
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        # The kernel gives the lowest descriptor that is free.
        if channel.fileno() >= limit - SPARE_DESCRIPTORS:
            return f"the daemon has no descriptors left (ulimit -n is {limit})"
        return ""

    def remove(self, client: ClientConnection) -> None:
        """Forgets a client that is gone."""
        self.all.discard(client)
        self._loop.forget(client.channel.fileno())

    def check(self, now: float) -> None:
        """Drops clients that are dead or say nothing; to be called about once a second."""
        for client in list(self.all):
            client.check(now)

    def end(self) -> None:
        """Ends all connections, and the streams that hang on them."""
        for client in list(self.all):
            client.end()
