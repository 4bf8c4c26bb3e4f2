"""Calling a daemon: connect, say hello, and the questions that need no stream."""

from __future__ import annotations

import contextlib
import os

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
from loaderd.ipc import address, channel, lock
from loaderd.ipc.channel import Channel, Closed
from loaderd.ipc.messages import (
    PROTOCOL,
    BadList,
    BadSample,
    Hello,
    ListBad,
    Message,
    Observe,
    Observed,
    Refused,
    Stop,
    Stopping,
    Welcome,
)
from loaderd.ipc.snapshot import Snapshot

TIMEOUT = 10.0
"""Seconds within which a daemon that lives answers."""

SOON = 5.0
"""The same where a person or a health check waits for the answer."""


def dial(path: str, timeout: float | None = None) -> Channel:
    """A connection to the daemon at ``path`` that has said hello; it blocks.

    Args:
        path: the daemon's socket.
        timeout: seconds within which it must answer, here and later; None for the usual.

    Raises:
        NoDaemon: nobody is there.
        NoAnswer: somebody is there, and does not answer.
        ForeignDaemon: somebody is there who is another user, or could be.
        VersionMismatch: somebody answers in another protocol.
        NoDescriptor: too many files are open.
    """
    address.check_place(path)
    try:
        line = channel.connect(path, TIMEOUT if timeout is None else timeout)
    except NoDescriptor:
        raise
    except BlockingIOError as error:
        raise _crowded(path) from error
    except OSError as error:
        reason = "there is no such socket" if isinstance(error, FileNotFoundError) else error
        start = address.start_command(path)
        raise NoDaemon(f"no daemon at {path} ({reason}): start one with `{start}`") from error
    try:
        address.check_peer(line.peer.uid, path)
        greet(line, path, timeout)
    except BaseException:
        line.close()
        raise
    return line


def greet(line: Channel, path: str, timeout: float | None = None) -> None:
    """Says hello on a new connection, and hears whether the other end understands it.

    Args:
        line: the connection.
        path: the daemon's socket, as people know it.
        timeout: seconds within which it must answer, here and later; None for the usual.

    Raises:
        NoDaemon: it went away.
        NoAnswer: it does not answer.
        VersionMismatch: it answers in another protocol.
    """
    line.settimeout(TIMEOUT if timeout is None else timeout)
    _check(ask(line, Hello(PROTOCOL, __version__, os.getpid()), path), path)


def _check(answer: Message, path: str) -> None:
    if not isinstance(answer, Welcome):
        raise ProtocolError(f"the daemon at {path} answered Hello with {type(answer).__name__}")
    if answer.protocol != PROTOCOL:
        raise VersionMismatch(
            f"the daemon at {path} is loaderd {answer.version} (protocol {answer.protocol}), "
            f"this is {__version__} (protocol {PROTOCOL}): restart the daemon, or install "
            f"loaderd {answer.version} here"
        )


def silent(path: str, pid: int) -> NoAnswer:
    """The error for a daemon that does not answer in time.

    Args:
        path: its socket, as people know it.
        pid: its process.
    """
    return NoAnswer(
        f"the daemon at {path} (pid {pid}) does not answer: it is stopped or hangs; "
        f"`kill -CONT {pid}` continues one that was stopped, `loaderd stop` ends it",
        pid,
    )


def _crowded(path: str) -> NoAnswer:
    """The kernel takes no more connections for a daemon that has long let nobody in."""
    return NoAnswer(
        f"the daemon at {path} does not answer, nor can more wait for it: it is stopped or hangs; "
        f"`fuser -k {lock.path_of(path)}` kills it"
    )


def listener(path: str) -> int | None:
    """The process id of the daemon at ``path``, which may hang: the kernel answers; or None.

    Raises:
        NoAnswer: it is there, and not even the kernel answers for it.
        ForeignDaemon: it is another user's, or could be.
        DaemonError: the socket cannot be used.
        NoDescriptor: too many files are open.
    """
    address.check_place(path)
    try:
        line = channel.connect(path)
    except NoDescriptor:
        raise
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except BlockingIOError as error:
        raise _crowded(path) from error
    except OSError as error:
        raise DaemonError(f"the socket {path} cannot be reached: {error}") from error
    try:
        address.check_peer(line.peer.uid, path)
        return line.peer.pid
    finally:
        line.close()


def ask(line: Channel, message: Message, path: str) -> Message:
    """Sends one message and returns the answer; a refusal is raised as the error that it is.

    Raises:
        NoDaemon: the daemon went away.
        NoAnswer: it does not answer in time.
    """
    try:
        with contextlib.suppress(Closed):  # it may have said why
            line.send(message)
        answer = line.receive()
    except TimeoutError as error:
        raise silent(path, line.peer.pid) from error
    except Closed as error:
        raise NoDaemon(f"the daemon at {path} hung up: perhaps it ends; ask again") from error
    if isinstance(answer, Refused):
        raise from_wire(answer.kind, answer.text)
    return answer


def observe(path: str, timeout: float | None = None) -> Snapshot:
    """A snapshot of the daemon at ``path``.

    Args:
        path: the daemon's socket.
        timeout: seconds within which it must answer; None for the usual.

    Raises:
        NoDaemon: nobody is there, or does not answer.
        VersionMismatch: somebody answers in another protocol.
    """
    line = dial(path, timeout)
    try:
        answer = ask(line, Observe(), path)
    finally:
        line.close()
    if not isinstance(answer, Observed):
        raise ProtocolError(f"the daemon at {path} answered Observe with {type(answer).__name__}")
    return answer.snapshot


def list_bad(path: str) -> list[BadSample]:
    """The images that the daemon at ``path`` could not read, as far as it knows them by name.

    Raises:
        NoDaemon: nobody is there, or does not answer.
        VersionMismatch: somebody answers in another protocol.
    """
    line = dial(path)
    try:
        return list_bad_on(line, path)
    finally:
        line.close()


def list_bad_on(line: Channel, path: str) -> list[BadSample]:
    """The same by a connection that has said hello.

    Raises:
        NoDaemon: the daemon went away, or does not answer.
    """
    found: list[BadSample] = []
    while page := _page(ask(line, ListBad(len(found)), path), path):
        found += page
    return found


def _page(answer: Message, path: str) -> tuple[BadSample, ...]:
    """Some of them; none if there are no more."""
    if not isinstance(answer, BadList):
        raise ProtocolError(f"the daemon at {path} answered ListBad with {type(answer).__name__}")
    return answer.samples


def stop(path: str, timeout: float | None = None) -> int:
    """Asks the daemon at ``path`` to drain and end; returns its process id.

    Args:
        path: the daemon's socket.
        timeout: seconds within which it must answer; None for the usual.

    Raises:
        NoDaemon: nobody is there, or does not answer.
    """
    line = dial(path, timeout)
    try:
        pid = line.peer.pid
        if not isinstance(ask(line, Stop(), path), Stopping):
            raise ProtocolError(f"the daemon at {path} did not take Stop")
        return pid
    finally:
        line.close()
