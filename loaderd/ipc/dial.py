"""Connects to a daemon, and makes the requests that need no stream."""

from __future__ import annotations

import contextlib
import os
from typing import TypeVar

from loaderd import __version__
from loaderd.errors import (
    DaemonError,
    NoAnswer,
    NoDaemon,
    NoDescriptor,
    ProtocolError,
    VersionMismatch,
    from_wire,
)
from loaderd.ipc import address, channel, descriptors, lock
from loaderd.ipc.channel import Channel, Closed
from loaderd.ipc.messages import (
    PROTOCOL,
    BadList,
    BadSample,
    Confirmed,
    Describe,
    Described,
    Hello,
    ListBad,
    Message,
    Observe,
    Observed,
    Refused,
    SetWorkers,
    Stop,
    Stopping,
    Welcome,
)
from loaderd.ipc.snapshot import Snapshot

_Answer = TypeVar("_Answer", bound=Message)

TIMEOUT = 10.0
"""Seconds within which a healthy daemon answers."""

SOON = 5.0
"""The timeout where a person or a health check waits for the answer, in seconds."""


def dial(path: str, timeout: float | None = None) -> Channel:
    """Opens a blocking connection to the daemon at ``path``, and greets it.

    Args:
        path: the daemon's socket.
        timeout: seconds for this and later answers; None for ``TIMEOUT``.

    Raises:
        NoDaemon: no daemon listens there.
        NoAnswer: a daemon is there but does not answer.
        ForeignDaemon: the listener is another user, or could be.
        VersionMismatch: the daemon has another protocol version.
        NoDescriptor: too many files are open.
    """
    try:
        connection = _connect(path, TIMEOUT if timeout is None else timeout)
    except (NoDescriptor, NoDaemon):
        raise
    except OSError as error:
        reason = "there is no such socket" if isinstance(error, FileNotFoundError) else error
        start = address.start_command(path)
        raise NoDaemon(f"no daemon at {path} ({reason}): start one with `{start}`") from error
    try:
        greet(connection, path, timeout)
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(path: str, timeout: float) -> Channel:
    """A connection to a listener of this user, which has not been greeted yet."""
    address.check_place(path)
    try:
        connection = channel.connect(path, timeout)
    except BlockingIOError as error:  # the daemon has long accepted no connection
        raise NoAnswer(
            f"the daemon at {path} does not answer, nor can more wait for it: it is stopped or "
            f"hangs; `fuser -k {lock.path_of(path)}` kills it"
        ) from error
    try:
        address.check_peer(connection.peer.uid, path)
    except BaseException:
        connection.close()
        raise
    return connection


def greet(connection: Channel, path: str, timeout: float | None = None) -> None:
    """Exchanges Hello and Welcome on a new connection; the arguments are those of :func:`dial`.

    Raises:
        NoDaemon: the daemon went away.
        NoAnswer: it does not answer.
        VersionMismatch: it has another protocol version.
    """
    connection.settimeout(TIMEOUT if timeout is None else timeout)
    answer = _ask_for(Welcome, connection, Hello(PROTOCOL, __version__, os.getpid()), path)
    if answer.protocol != PROTOCOL:
        raise VersionMismatch(
            f"the daemon at {path} is loaderd {answer.version} (protocol {answer.protocol}), "
            f"this is {__version__} (protocol {PROTOCOL}): restart the daemon, or install "
            f"loaderd {answer.version} here"
        )


def silent(path: str, pid: int) -> NoAnswer:
    """The error for a daemon that does not answer in time."""
    return NoAnswer(
        f"the daemon at {path} (pid {pid}) does not answer: it is stopped or hangs; "
        f"`kill -CONT {pid}` continues one that was stopped, `loaderd stop` ends it",
        pid,
    )


def listener(path: str) -> int | None:
    """The process id of the daemon at ``path``, or None; from the kernel, as it may hang.

    Raises:
        NoAnswer: it is there, but its listen backlog is full.
        ForeignDaemon: it is another user's, or could be.
        DaemonError: the socket cannot be used.
        NoDescriptor: too many files are open.
    """
    try:
        with contextlib.closing(_connect(path, SOON)) as connection:
            return connection.peer.pid
    except (NoDescriptor, NoDaemon):
        raise
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except OSError as error:
        raise DaemonError(f"the socket {path} cannot be reached: {error}") from error


def ask(connection: Channel, message: Message, path: str) -> Message:
    """Sends one message and returns the answer; raises the error that a Refused carries.

    Raises:
        NoDaemon: the daemon went away.
        NoAnswer: it does not answer in time.
    """
    try:
        with contextlib.suppress(Closed):  # its last message may hold the reason
            connection.send(message)
        answer = connection.receive()
    except TimeoutError as error:
        raise silent(path, connection.peer.pid) from error
    except Closed as error:
        raise NoDaemon(f"the daemon at {path} hung up: perhaps it ends; ask again") from error
    if isinstance(answer, Refused):
        raise from_wire(answer.kind, answer.text)
    return answer


def _ask_for(kind: type[_Answer], connection: Channel, message: Message, path: str) -> _Answer:
    answer = ask(connection, message, path)
    if not isinstance(answer, kind):
        asked, told = type(message).__name__, type(answer).__name__
        raise ProtocolError(f"the daemon at {path} answered {asked} with {told}")
    return answer


def observe(path: str, timeout: float | None = None) -> Snapshot:
    """A snapshot of the daemon at ``path``, which must answer within ``timeout`` seconds.

    Raises:
        NoDaemon: no daemon is there, or it does not answer.
        VersionMismatch: it has another protocol version.
    """
    with contextlib.closing(dial(path, timeout)) as connection:
        return observe_on(connection, path)


def observe_on(connection: Channel, path: str) -> Snapshot:
    """:func:`observe` on a connection from :func:`dial`.

    Raises:
        NoDaemon: the daemon went away, or does not answer.
    """
    return _ask_for(Observed, connection, Observe(), path).snapshot


def set_workers(path: str, count: int) -> None:
    """Sets how many workers the daemon at ``path`` has, until it reads its settings again.

    Raises:
        NoDaemon: no daemon is there, or it does not answer.
        RequestRefused: as many are not allowed.
    """
    with contextlib.closing(dial(path, SOON)) as connection:
        _ask_for(Confirmed, connection, SetWorkers(count), path)


def describe(path: str, subscriber: int) -> tuple[Described, list[int]]:
    """What a stream of the daemon at ``path`` is rendered from.

    Returns:
        The description, and the descriptors of manifest and bundles, which are the caller's.

    Raises:
        NoDaemon: no daemon is there, or it does not answer.
        RequestRefused: there is no such stream.
    """
    with contextlib.closing(dial(path, SOON)) as connection:
        try:
            connection.send(Describe(subscriber))
            answer, fds = connection.receive_with_fds()
        except TimeoutError as error:
            raise silent(path, connection.peer.pid) from error
        except Closed as error:
            raise NoDaemon(f"the daemon at {path} hung up") from error
    if isinstance(answer, Refused):
        raise from_wire(answer.kind, answer.text)
    if not isinstance(answer, Described):
        descriptors.close_all(fds)
        raise ProtocolError(f"the daemon at {path} answered {type(answer).__name__}")
    return answer, fds


def list_bad(path: str) -> list[BadSample]:
    """The images that the daemon at ``path`` could not read, as far as it keeps their names.

    Raises:
        NoDaemon: no daemon is there, or it does not answer.
        VersionMismatch: it has another protocol version.
    """
    with contextlib.closing(dial(path)) as connection:
        return list_bad_on(connection, path)


def list_bad_on(connection: Channel, path: str) -> list[BadSample]:
    """:func:`list_bad` on a connection from :func:`dial`.

    Raises:
        NoDaemon: the daemon went away, or does not answer.
    """
    found: list[BadSample] = []
    while page := _ask_for(BadList, connection, ListBad(len(found)), path).samples:
        found += page  # the page after the last is empty
    return found


def stop(path: str, timeout: float | None = None) -> None:
    """Asks the daemon at ``path`` to drain and exit; it must answer within ``timeout`` seconds.

    Raises:
        NoDaemon: no daemon is there, or it does not answer.
    """
    with contextlib.closing(dial(path, timeout)) as connection:
        _ask_for(Stopping, connection, Stop(), path)
