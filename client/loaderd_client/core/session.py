"""The client's side of a daemon, a running or a private one.

A session has an address and the streams that were opened through it. Every stream has a connection
of its own, or that of a spare stream. Sequences use the innermost open session, and make one if
there is none.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import weakref
from collections.abc import Iterator, Sequence
from typing import Self

from loaderd.errors import (
    DaemonError,
    DaemonGone,
    Draining,
    ForeignDaemon,
    LoaderdError,
    NoAnswer,
    NoDaemon,
    ProtocolError,
    RoomTaken,
    StreamClosed,
    from_wire,
)
from loaderd.ipc import address as addresses
from loaderd.ipc import descriptors
from loaderd.ipc.bundle import Bundle
from loaderd.ipc.channel import Channel, Closed
from loaderd.ipc.dial import SOON, dial, observe_on
from loaderd.ipc.messages import (
    IDLE_SECONDS,
    BatchFailed,
    Indexing,
    Message,
    Open,
    Opened,
    Ready,
    Refused,
    Share,
    Stalled,
)
from loaderd.ipc.prefetch import WHOLE, Run
from loaderd.ipc.snapshot import Snapshot
from loaderd.ipc.text import printable
from loaderd.launch.private import PrivateDaemon
from loaderd.spec import spec as specs
from loaderd.spec.spec import Spec
from loaderd_client.core import deadline, open_streams, spare_streams
from loaderd_client.core.deadline import Deadline
from loaderd_client.core.guard import Caller, Guard
from loaderd_client.core.indexing_bar import IndexingBar
from loaderd_client.core.spare_streams import is_cramped, kind_of
from loaderd_client.core.stream import Stream, StreamRequest, warn

LONG_SECONDS = 20.0
"""Seconds of waiting for an answer after which a warning is printed."""

ROOM_SECONDS = IDLE_SECONDS + 1
"""Seconds for which a ring that does not fit is tried again, while idle rings are freed."""

ENDING_SECONDS = 0.5
"""Seconds of waiting for the end of a private daemon that hung up."""

_sessions: list[Session] = []
_making = Guard()


class Session:
    """Streams from one daemon; a context manager, whose end closes them all.

    Sequences use the innermost open session. At the end of the program open sessions are closed.

    Args:
        address: None takes the daemon at the default address (``LOADERD_SOCKET``, ``LOADERD_NAME``,
            else the name ``default``); if none answers there, it starts a private one, and says so
            on stderr. ``"auto"`` takes the same daemon and never starts one. Any other text is the
            path of a daemon's socket.
        reconnect_timeout: seconds for which sequences wait for a daemon that went away; 0 does not
            wait. None takes ``LOADERD_RECONNECT_TIMEOUT``, else 60. A private daemon that died is
            started again at once. Ctrl-C ends the wait, but within TensorFlow's ``fit`` only when
            it is over: there the main thread is TensorFlow's.

    Attributes:
        path: path of the daemon's socket.
        reconnect_timeout: seconds for which its sequences wait for a daemon that went away.

    Raises:
        InvalidArgument: a value is not allowed (also a ``ValueError``).
        NoDaemon: no daemon answers there.
        VersionMismatch: the daemon speaks another protocol.
    """

    def __init__(self, address: str | None = None, reconnect_timeout: float | None = None) -> None:
        self.reconnect_timeout = deadline.reconnect_timeout(reconnect_timeout)
        self._guard = Guard()
        self._warned: dict[str, Caller] = {}
        self._closed = False
        self._streams: weakref.WeakSet[Stream] = weakref.WeakSet()
        self._private: PrivateDaemon | None = None
        self.path = addresses.socket_path(socket=None if address == "auto" else address)
        try:
            dial(self.path).close()
        except NoDaemon as error:
            if address is not None:
                raise
            self._private = PrivateDaemon()
            _warn_private(self.path, error)
            self.path = self._private.path
        _sessions.append(self)

    def open(
        self,
        spec: Spec,
        slots: int,
        run: Run = WHOLE,
        bundles: Sequence[Bundle] = (),
        share: Share | None = None,
    ) -> Stream:
        """Opens a stream; sequences do this for you.

        Args:
            spec: decides the bytes of the batches.
            slots: requested slots of the ring; the daemon may give fewer.
            run: the batches that are made ahead.
            bundles: the arrays that the spec refers to.
            share: the shared stream to join or open; None for a stream of its own.

        Raises:
            OutOfStep: the shared stream is not near to the run's first batch.
            DatasetNotFound: the directory is missing.
            EmptyDataset: it holds no image.
            NoRoom: the ring does not fit.
            NoDaemon: the daemon went away.
            RequestRefused: the daemon runs no user code.
            Draining: the daemon is about to end.
            StreamClosed: the session was closed.
        """
        self._restart_private()
        request = StreamRequest(spec, slots, run, bundles, share)
        left, restarted = Deadline(ROOM_SECONDS), False
        while True:
            try:
                stream = self._open(request, None)
                if not self._is_cramped(stream, slots):
                    return stream
            except RoomTaken:
                if not self._close_idle():
                    if left.over:
                        raise
                    left.pause()
            except (NoDaemon, DaemonGone):
                private = None if restarted else self._private
                if private is None or not private.ends_within(ENDING_SECONDS):
                    raise  # else it is a private daemon that is ending, and will be replaced
                self._restart_private()
                restarted = True

    def reopen(self, request: StreamRequest, left: Deadline) -> Stream | None:
        """Opens a stream in place of one that ended, or waits once for its daemon.

        Args:
            request: what the stream is opened for.
            left: deadline for the daemon, or for memory.

        Returns:
            The stream; None if there was no daemon or no memory, and the caller should retry.

        Raises:
            DaemonGone: it did not come back in time.
            NoRoom: the ring does not fit.
        """
        self._restart_private()  # raises at once if a private daemon cannot start
        try:
            stream = self._open(request, left.left)
        except (NoDaemon, DaemonGone, Draining) as error:
            self.wait(left, error)
            return None
        except RoomTaken as error:  # perhaps by the lost ring, which other processes still map
            if self._close_idle():
                return None
            if left.over:
                raise
            self._warn_once(f"no room yet ({error}); waiting up to {left.seconds:g} s for it")
            left.pause()
            return None
        self._warned.clear()
        return None if self._is_cramped(stream, request.slots) else stream

    def wait(self, left: Deadline, error: DaemonError) -> None:
        """Pauses after a failed attempt to reach the daemon; warns once.

        Raises:
            DaemonGone: it did not come back in time.
        """
        if self._closed:
            raise error
        if left.over and isinstance(error, NoAnswer):
            raise DaemonGone(f"{error}; then go on, nothing is lost") from error
        if left.over:
            waited = f" and did not come back within {left.seconds:g} s" if left.seconds else ""
            raise DaemonGone(
                f"the daemon at {self.path} went away{waited}: start one with "
                f"`{addresses.start_command(self.path)}` and go on, nothing is lost"
            ) from error
        here, time = f"the daemon at {printable(self.path)}", f"{left.seconds:g} s"
        if isinstance(error, NoAnswer):
            self._warn_once(f"{here} does not answer; waiting up to {time} for it")
        elif self._private is None:
            self._warn_once(f"{here} went away; waiting up to {time} for it to come back")
        left.pause()

    @property
    def is_private(self) -> bool:
        """Whether its daemon serves this program alone."""
        return self._private is not None

    def _warn_once(self, words: str) -> None:
        """Warns once of each reason to wait, in one thread only."""
        me = Caller()
        about = words.partition("(")[0]  # figures change from one attempt to the next
        if self._warned.setdefault(about, me) is me:
            warn(words)

    def _open(self, request: StreamRequest, timeout: float | None) -> Stream:
        if self._closed:
            raise StreamClosed("the session was closed")
        request = request._replace(spec=specs.seeded(request.spec))
        kind = kind_of(self.path, request)
        spare = spare_streams.take(kind)
        stream = None if spare is None else _open_on(spare, request)
        if stream is None:
            stream = _open(self._dial(timeout), request)
        stream.kind = kind
        self._streams.add(stream)
        return stream

    def _close_idle(self) -> bool:
        """Closes a spare or idle stream; returns whether there was one."""
        return spare_streams.close_one() or open_streams.close_idle()

    def _is_cramped(self, stream: Stream, slots: int) -> bool:
        """Whether its ring is too small, and a retry gets more, as an idle stream was closed."""
        if stream.first is not None:  # its ring is of the size that somebody else has asked for
            return False
        if not is_cramped(stream, slots) or not self._close_idle():
            return False
        stream.close()
        return True

    def _dial(self, timeout: float | None) -> Channel:
        private = self._private
        return dial(self.path, timeout) if private is None else private.connect(timeout)

    def observe(self) -> Snapshot:
        """The daemon as it is now, as ``loaderd stat --json`` shows it.

        Raises:
            NoDaemon: it went away, or does not answer.
        """
        with contextlib.closing(self._dial(SOON)) as connection:
            return observe_on(connection, self.path)

    def _restart_private(self) -> None:
        """Starts a private daemon again if it has died; one thread does so."""
        if self._private is not None:
            self._guard.run(self._replace_ended)

    def _replace_ended(self) -> None:
        if self._private is not None and self._private.ended:
            self._private = self._private.again()
            self.path = self._private.path
            warn("the private daemon went away; started another")

    def close(self) -> None:
        """Closes all streams, and ends the daemon if it is a private one."""
        self._closed = True
        for stream in list(self._streams):
            stream.close()
        if self in _sessions:
            _sessions.remove(self)
        me = Caller()
        self._guard.enter(me)
        private, self._private = self._private, None
        self._guard.give_back()
        if private is not None:
            private.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _warn_private(path: str, error: NoDaemon) -> None:
    path = printable(path)
    found = f"no daemon at {path}"
    if isinstance(error, NoAnswer):
        found = f"the daemon at {path} (pid {error.pid}) does not answer"
    if isinstance(error, ForeignDaemon):
        found = printable(str(error))
    warn(f"{found}; started a private one for this process (`loaderd start` keeps one running)")


def _open(channel: Channel, request: StreamRequest) -> Stream:
    """Opens a stream on a new connection."""
    try:
        with _closed_on_error(channel):
            _ask(channel, request)
            return _opened(channel, request, *_answer(channel, request.spec))
    except Closed as error:
        raise DaemonGone("the daemon went away while it opened the stream") from error


def _open_on(channel: Channel, request: StreamRequest) -> Stream | None:
    """Opens a stream on the connection of one that has ended.

    Returns None on any error: a retry on a new connection reports it.
    """
    with contextlib.suppress(LoaderdError, Closed, OSError), _closed_on_error(channel):
        channel.settimeout(SOON)
        _ask(channel, request)
        answer, fds = _receive(channel)
        while isinstance(answer, (Ready, BatchFailed)):  # of the stream that has ended
            descriptors.close_all(fds)
            answer, fds = _receive(channel)
        return _opened(channel, request, answer, fds)
    return None


@contextlib.contextmanager
def _closed_on_error(channel: Channel) -> Iterator[None]:
    try:
        yield
    except BaseException:
        channel.close()
        raise


def _opened(channel: Channel, request: StreamRequest, answer: Message, fds: list[int]) -> Stream:
    match answer, fds:
        case Opened(), [ring, manifest]:
            with descriptors.needed("a stream"):
                return Stream(channel, request.spec, request.run, answer, ring, manifest)
    descriptors.close_all(fds)
    if isinstance(answer, Refused):
        raise from_wire(answer.kind, answer.text)
    raise ProtocolError(
        f"the daemon answered Open with {type(answer).__name__} and {len(fds)} descriptors"
    )


def _answer(channel: Channel, spec: Spec) -> tuple[Message, list[int]]:
    """The answer to ``Open``; warns if listing the directory takes long."""
    channel.settimeout(LONG_SECONDS)
    try:
        return _receive(channel)
    except TimeoutError:
        warn(f"still waiting for the daemon to list {printable(spec.source.directory)}")
    channel.settimeout(None)
    return _receive(channel)


def _receive(channel: Channel) -> tuple[Message, list[int]]:
    """The next message but those that only tell the user something."""
    with IndexingBar() as bar:
        message, fds = channel.receive_with_fds()
        while isinstance(message, (Indexing, Stalled)):
            descriptors.close_all(fds)
            if isinstance(message, Indexing):
                bar.show(message)
            else:  # storage does not respond
                warn(printable(message.text))
            message, fds = channel.receive_with_fds()
        return message, fds


def _ask(channel: Channel, request: StreamRequest) -> None:
    data = specs.encode(request.spec)
    with descriptors.needed("a stream"):
        fd = os.memfd_create("loaderd-spec")
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
        sizes = tuple(bundle.nbytes for bundle in request.bundles)
        message = Open(len(data), sizes, request.slots, request.run, request.share)
        channel.send(message, [fd, *(bundle.fd for bundle in request.bundles)])
    finally:
        os.close(fd)


def connect(address: str | None = None, reconnect_timeout: float | None = None) -> Session:
    """Connects to a daemon; generators and datasets made afterwards load through it.

    Args:
        address: see :class:`Session`.
        reconnect_timeout: see :class:`Session`.

    Returns:
        An open :class:`Session`.

    Example::
        with loaderd_client.connect() as session:
            train = ImageDataGenerator().flow_from_directory("data/train")
            model.fit(train)
    """
    return Session(address, reconnect_timeout)


def current() -> Session:
    """The innermost open session; a new one where there is none."""
    return _making.run(lambda: _sessions[-1] if _sessions else Session())


@atexit.register
def _close_all() -> None:
    for session in reversed(_sessions):
        with contextlib.suppress(Exception):  # at interpreter exit; close the others too
            session.close()
