"""The trainer's way to a daemon: one that runs, or a private one.

A session knows an address and the streams that were opened through it; every stream has
a connection of its own, or that of one before it which nobody has any more. Sequences use
the innermost open session, and make one where there is none.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
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
from loaderd.ipc.dial import SOON, dial
from loaderd.ipc.messages import (
    IDLE_SECONDS,
    BatchFailed,
    Message,
    Open,
    Opened,
    Ready,
    Refused,
    Stalled,
)
from loaderd.ipc.prefetch import WHOLE, Run
from loaderd.ipc.text import printable
from loaderd.launch.private import PrivateDaemon
from loaderd.spec import spec as specs
from loaderd.spec.spec import Spec
from loaderd_client.core import deadline, open_streams, spare_streams
from loaderd_client.core.deadline import Deadline
from loaderd_client.core.guard import Caller, Guard
from loaderd_client.core.spare_streams import is_cramped, kind_of
from loaderd_client.core.stream import Stream

LONG_SECONDS = 20.0
"""An answer that takes so long is waited for with a word to the user."""

ROOM_SECONDS = IDLE_SECONDS + 1
"""For so long a ring for which there is no room now is tried again: idle ones give way."""

DYING_SECONDS = 0.5
"""Of a private daemon that hung up, the end is waited for so long."""

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
        self._told: dict[str, Caller] = {}
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
            _tell_private(self.path, error)
            self.path = self._private.path
        _sessions.append(self)

    def open(
        self, spec: Spec, slots: int, run: Run = WHOLE, bundles: Sequence[Bundle] = ()
    ) -> Stream:
        """Opens a stream; sequences do this for you.

        Args:
            spec: what its batches are.
            slots: slots wished for in the ring; the daemon may give fewer.
            run: what is made ahead.
            bundles: the arrays that the spec means.

        Raises:
            DatasetNotFound: the directory is missing.
            EmptyDataset: it holds no image.
            NoRoom: the ring does not fit.
            NoDaemon: the daemon went away.
            RequestRefused: the daemon runs no user code.
            Draining: the daemon is about to end.
            StreamClosed: the session was closed.
        """
        self._revive()
        left, revived = Deadline(ROOM_SECONDS), False
        while True:
            try:
                stream = self._open(spec, slots, run, bundles, None)
                if not self._is_cramped(stream, slots):
                    return stream
            except RoomTaken:
                if not self._give_way():
                    if left.over:
                        raise
                    left.pause()
            except (NoDaemon, DaemonGone):
                if revived or not self._is_dying():
                    raise
                self._revive()
                revived = True

    def reopen(
        self, spec: Spec, slots: int, run: Run, bundles: Sequence[Bundle], left: Deadline
    ) -> Stream | None:
        """Opens a stream in place of one that ended, or waits a moment for its daemon.

        Args:
            spec: see ``open``.
            slots: see ``open``.
            run: see ``open``.
            bundles: see ``open``.
            left: how long the daemon, or room, is still waited for.

        Returns:
            The stream; None if there was no daemon or no room, and it is worth asking again.

        Raises:
            DaemonGone: it did not come back in time.
            NoRoom: the ring does not fit.
        """
        self._revive()  # a private one that cannot start is an error at once
        try:
            stream = self._open(spec, slots, run, bundles, left.left)
        except (NoDaemon, DaemonGone, Draining) as error:
            self.wait(left, error)
            return None
        except RoomTaken as error:  # perhaps by the ring that was lost, which others may still map
            if self._give_way():
                return None
            if left.over:
                raise
            self._tell(f"no room yet ({error}); waiting up to {left.seconds:g} s for it")
            left.pause()
            return None
        self._told.clear()
        return None if self._is_cramped(stream, slots) else stream

    def wait(self, left: Deadline, error: DaemonError) -> None:
        """Waits a moment for the daemon to come back, and says so once.

        Args:
            left: how long it is still waited for.
            error: why it is.

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
        if isinstance(error, NoAnswer):
            self._tell(
                f"the daemon at {printable(self.path)} does not answer; waiting up to "
                f"{left.seconds:g} s for it"
            )
        elif self._private is None:
            self._tell(
                f"the daemon at {printable(self.path)} went away; waiting up to {left.seconds:g} s "
                "for it to come back"
            )
        left.pause()

    def _tell(self, words: str) -> None:
        """Says why nothing goes on: once, however many threads find out."""
        me = Caller()
        about = words.partition("(")[0]  # figures change from one attempt to the next
        if self._told.setdefault(about, me) is not me:
            return
        _warn(words)

    def _open(
        self,
        spec: Spec,
        slots: int,
        run: Run,
        bundles: Sequence[Bundle],
        timeout: float | None,
    ) -> Stream:
        if self._closed:
            raise StreamClosed("the session was closed")
        spec = specs.seeded(spec)
        kind = kind_of(self.path, spec, slots, bundles)
        spare = spare_streams.of_process.take(kind)
        stream = None if spare is None else _open_on(spare, spec, slots, run, bundles)
        if stream is None:
            stream = _open(self._dial(timeout), spec, slots, run, bundles)
        stream.kind = kind
        self._streams.add(stream)
        return stream

    def _give_way(self) -> bool:
        """Closes a stream that nobody needs at the moment; returns whether there was one."""
        return spare_streams.of_process.close_one() or open_streams.give_way()

    def _is_cramped(self, stream: Stream, slots: int) -> bool:
        """Whether its ring is small, and another try gets more, as an idle stream gave way."""
        if not is_cramped(stream, slots) or not self._give_way():
            return False
        stream.close()
        return True

    def _dial(self, timeout: float | None) -> Channel:
        private = self._private
        return dial(self.path, timeout) if private is None else private.connect(timeout)

    def _is_dying(self) -> bool:
        """Whether it is a private daemon, and just goes away: then there will be another."""
        private = self._private
        return private is not None and private.ends_within(DYING_SECONDS)

    def _revive(self) -> None:
        """A private daemon that died is started again, by one of those who miss it."""
        if self._private is None:
            return
        me = Caller()
        self._guard.enter(me)
        try:
            if self._private is not None and self._private.ended:
                self._private = self._private.again()
                self.path = self._private.path
                _warn("the private daemon went away; started another")
        except LoaderdError:
            self._guard.give_back()
            raise
        self._guard.give_back()

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


def _tell_private(path: str, error: NoDaemon) -> None:
    path = printable(path)
    found = f"no daemon at {path}"
    if isinstance(error, NoAnswer):
        found = f"the daemon at {path} (pid {error.pid}) does not answer"
    if isinstance(error, ForeignDaemon):
        found = printable(str(error))
    _warn(f"{found}; started a private one for this process (`loaderd start` keeps one running)")


def _warn(words: str) -> None:
    """One line on stderr, if there is one: a program may have closed it."""
    with contextlib.suppress(OSError, ValueError):
        print(f"loaderd: {words}", file=sys.stderr)


def _open(line: Channel, spec: Spec, slots: int, run: Run, bundles: Sequence[Bundle]) -> Stream:
    """Opens a stream on a new connection."""
    try:
        with _closed_on_error(line):
            _ask(line, spec, slots, run, bundles)
            return _opened(line, spec, run, *_answer(line, spec))
    except Closed as error:
        raise DaemonGone("the daemon went away while it opened the stream") from error


def _open_on(
    line: Channel, spec: Spec, slots: int, run: Run, bundles: Sequence[Bundle]
) -> Stream | None:
    """Opens a stream on the connection of one that has ended.

    None if that does not go: whatever it is, who asks on a new connection is told of it.
    """
    with contextlib.suppress(LoaderdError, Closed, OSError), _closed_on_error(line):
        line.settimeout(SOON)
        _ask(line, spec, slots, run, bundles)
        answer, fds = _receive(line)
        while isinstance(answer, (Ready, BatchFailed)):  # of the stream that has ended
            descriptors.close_all(fds)
            answer, fds = _receive(line)
        return _opened(line, spec, run, answer, fds)
    return None


@contextlib.contextmanager
def _closed_on_error(line: Channel) -> Iterator[None]:
    try:
        yield
    except BaseException:
        line.close()
        raise


def _opened(line: Channel, spec: Spec, run: Run, answer: Message, fds: list[int]) -> Stream:
    match answer, fds:
        case Opened(), [ring, manifest]:
            with descriptors.needed("a stream"):
                return Stream(line, spec, run, answer, ring, manifest)
    descriptors.close_all(fds)
    if isinstance(answer, Refused):
        raise from_wire(answer.kind, answer.text)
    raise ProtocolError(
        f"the daemon answered Open with {type(answer).__name__} and {len(fds)} descriptors"
    )


def _answer(line: Channel, spec: Spec) -> tuple[Message, list[int]]:
    """Listing a large directory takes its time; after some the user hears of it."""
    line.settimeout(LONG_SECONDS)
    try:
        return _receive(line)
    except TimeoutError:
        _warn(f"still waiting for the daemon to list {printable(spec.source.directory)}")
    line.settimeout(None)
    return _receive(line)


def _receive(line: Channel) -> tuple[Message, list[int]]:
    """The answer; that storage keeps it waiting is told to the user."""
    message, fds = line.receive_with_fds()
    while isinstance(message, Stalled):
        descriptors.close_all(fds)
        _warn(printable(message.text))
        message, fds = line.receive_with_fds()
    return message, fds


def _ask(line: Channel, spec: Spec, slots: int, run: Run, bundles: Sequence[Bundle]) -> None:
    data = specs.encode(spec)
    with descriptors.needed("a stream"):
        fd = os.memfd_create("loaderd-spec")
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
        sizes = tuple(bundle.nbytes for bundle in bundles)
        line.send(Open(len(data), sizes, slots, run), [fd, *(bundle.fd for bundle in bundles)])
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
    me = Caller()
    _making.enter(me)
    try:
        found = _sessions[-1] if _sessions else Session()
    except LoaderdError:
        _making.give_back()
        raise
    _making.give_back()
    return found


@atexit.register
def _close_all() -> None:
    for session in reversed(_sessions):
        with contextlib.suppress(Exception):  # the interpreter ends; each gets its turn
            session.close()
