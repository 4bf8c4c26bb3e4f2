"""The socket at the daemon's address, and one conversation per client.

A client says Hello first; then it may ask for snapshots, for the end of the daemon, or
for one stream, which lives as long as the connection. Whatever a client does wrong ends
its own conversation and nothing else.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import logging
import os
import resource
import socket
import stat
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from loaderd import __version__
from loaderd.errors import (
    DaemonError,
    DaemonRunning,
    LoaderdError,
    ProtocolError,
    RequestRefused,
)
from loaderd.wire import address
from loaderd.wire.channel import Channel, Closed, Unread
from loaderd.wire.messages import (
    PROTOCOL,
    BadList,
    Confirm,
    Confirmed,
    Hello,
    ListBad,
    Message,
    Observe,
    Observed,
    Open,
    Plan,
    Refused,
    Stop,
    Stopping,
    Took,
    Welcome,
    refusal,
)
from loaderd.wire.snapshot import Snapshot

log = logging.getLogger("loaderd")

HELLO_SECONDS = 5.0
"""A client that has not said Hello by then is dropped."""

MOST_CLIENTS = 1024
MOST_OF_ONE_PROCESS = 256
"""Connections; a process that loses count of its own leaves some to others."""

SPARE_DESCRIPTORS = 128
"""Kept for workers, openers and the streams of those who are in."""

_BACKLOG = 128


@contextlib.contextmanager
def listening(path: str) -> Iterator[socket.socket]:
    """The listening socket at ``path``, for this user only; guarded by a lock beside it.

    Raises:
        DaemonRunning: another daemon holds the address.
        DaemonError: the address cannot be used.
    """
    address.make_folder(path)
    with _locked(path), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        try:
            _bind(sock, path)
        except OSError as error:
            raise DaemonError(f"{path} cannot be the daemon's socket: {error}") from error
        _sweep(os.path.dirname(path))
        try:
            yield sock
        finally:
            _unlink(path)


def _bind(sock: socket.socket, path: str) -> None:
    if os.path.lexists(path) and not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise FileExistsError("it is there and is no socket")
    _unlink(path)  # stale: we hold the lock, so its maker is dead
    umask = os.umask(0o177)
    try:
        sock.bind(path)
    finally:
        os.umask(umask)
    sock.listen(_BACKLOG)
    sock.setblocking(False)


def _sweep(folder: str) -> None:
    """Removes what private daemons left here that were killed, and their trainers with them."""
    # Sockets come after their locks: one that is just being made is not touched.
    for path in glob.glob(os.path.join(glob.escape(folder), "private-*.sock")):
        lock = path.removesuffix(".sock") + ".lock"
        with contextlib.suppress(DaemonError, OSError):  # it lives, or others sweep too
            fd = _lock(lock, path)
            _unlink(path)
            _unlink(lock)
            os.close(fd)


def _unlink(path: str) -> None:
    """Cleaners of runtime folders may have been faster."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    lock = path.removesuffix(".sock") + ".lock"
    fd = _take(lock, path)
    try:
        yield
    finally:
        _unlink(lock)
        os.close(fd)


def _take(lock: str, path: str) -> int:
    """Locks the file that bears the name now: its last holder unlinks it on leaving."""
    while True:
        fd = _lock(lock, path)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), os.stat(lock)):
                return fd
        os.close(fd)


def _lock(lock: str, path: str) -> int:
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise DaemonError(f"{lock} cannot be made: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise DaemonRunning(f"a daemon already serves {path}: `loaderd stop` ends it") from error
    return fd


@dataclass(frozen=True, slots=True)
class Requests:
    """What a client may ask of the supervisor; every call may raise a LoaderdError."""

    observe: Callable[[], Snapshot]
    list_bad: Callable[[int], BadList]
    stop: Callable[[], None]
    open: Callable[[Conversation, Open, list[int]], None]
    plan: Callable[[Conversation, Plan], None]
    took: Callable[[Conversation, Took], None]
    gone: Callable[[Conversation], None]


class Conversation:
    """One client.

    Attributes:
        stream: the number of its stream, once that is open.
        pidfd: made readable by the kernel when the client's process is dead.
        heard_at: when it last said something.
    """

    def __init__(self, line: Channel, requests: Requests) -> None:
        self.line = line
        self.pid = line.peer.pid
        self.stream: int | None = None
        self.pidfd: int | None = None
        self._requests = requests
        self.heard_at = self._since = time.monotonic()
        self._greeted = False
        self._lost = False

    def read(self) -> bool:
        """Answers what the client has sent; ends the conversation if it must.

        Returns:
            Whether there may be more.
        """
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
            self.refuse(RequestRefused(f"a fault in the daemon, see its log: {error!r}"))
            self.end()
        return False

    def _read_one(self) -> None:
        if self.stream is not None:
            message = self.line.receive()
            self.heard_at = time.monotonic()
            self._serve(message, [])
            return
        message, fds = self.line.receive_with_fds()
        try:
            self._serve(message, fds)
        finally:
            for fd in fds:
                os.close(fd)

    def _serve(self, message: Message, fds: list[int]) -> None:
        if not self._greeted and not isinstance(message, Hello):
            raise ProtocolError(f"{type(message).__name__} before Hello")
        match message:
            case Took() if self.stream is not None:
                self._requests.took(self, message)
            case Plan() if self.stream is not None:
                self._requests.plan(self, message)
            case Confirm() if self.stream is not None:
                self.send(Confirmed())
            case Open() if self.stream is None and len(fds) == 1 + len(message.bundles):
                self._requests.open(self, message, fds)
            case Hello():
                self._greeted = True
                self.send(Welcome(PROTOCOL, __version__, os.getpid()))
            case Observe():
                self.send(Observed(self._requests.observe()))
            case ListBad(first):
                self.send(self._requests.list_bad(first))
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
            self.line.send(message, fds)
        except Unread:
            self._lose("it does not read what it is sent")
        except Closed:
            return
        except OSError as error:
            if fds:
                raise
            self._lose(str(error))

    def _lose(self, reason: str) -> None:
        """Drops the client when its socket is read next: whoever sends is in the midst of it."""
        if not self._lost:
            log.warning("client %d is dropped: %s", self.pid, reason)
        self._lost = True
        self.line.shut_down()

    def refuse(self, error: LoaderdError | Refused) -> None:
        """Tells the client that it does not get what it asked for."""
        self.send(error if isinstance(error, Refused) else refusal(error))

    def check(self, now: float) -> None:
        """Drops a client that says nothing; called about once a second."""
        if not self._greeted and now - self._since > HELLO_SECONDS:
            self._drop(ProtocolError(f"no Hello within {HELLO_SECONDS:g} seconds"))

    def _drop(self, error: ProtocolError) -> None:
        log.warning("client %d is dropped: %s", self.pid, error)
        self.refuse(error)
        self.end()

    def end(self) -> None:
        """Closes the connection and the stream that hangs on it."""
        self._requests.gone(self)
        self.line.hang_up()


def accept(
    listener: socket.socket, requests: Requests, clients: Collection[Conversation] = ()
) -> Conversation | None:
    """The next client, if it is this user, and there is room for it.

    Args:
        listener: where it knocks.
        requests: what it may ask for.
        clients: those who are in.

    Raises:
        OSError: there is no descriptor left, or the client gave up again.
    """
    sock, _ = listener.accept()
    sock.setblocking(False)
    line = Channel(sock)
    if line.peer.uid != os.getuid():
        log.warning("refused user %d (process %d)", line.peer.uid, line.peer.pid)
        line.close()
        return None
    reason = _too_many(line, clients)
    if reason:
        _turn_away(line, reason)
        return None
    return Conversation(line, requests)


def _too_many(line: Channel, clients: Collection[Conversation]) -> str:
    """Why there is no room for one more; empty if there is."""
    if len(clients) >= MOST_CLIENTS:
        return f"the daemon has {MOST_CLIENTS} connections, and takes no more"
    pid = line.peer.pid
    if sum(client.pid == pid for client in clients) >= MOST_OF_ONE_PROCESS:
        return f"process {pid} has {MOST_OF_ONE_PROCESS} connections, and gets no more"
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if line.fileno() >= limit - SPARE_DESCRIPTORS:  # the kernel gives the lowest that is free
        return f"the daemon has no descriptors left (ulimit -n is {limit})"
    return ""


def _turn_away(line: Channel, reason: str) -> None:
    log.warning("client %d is turned away: %s", line.peer.pid, reason)
    with contextlib.suppress(Closed):
        line.send(Refused(RequestRefused.__name__, f"{reason}: close some streams"))
    line.hang_up()
