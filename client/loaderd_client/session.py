"""The trainer's way to a daemon: one that runs, or a private one.

A session knows an address and the streams that were opened through it; every stream has
a connection of its own. Sequences use the innermost open session, and make one where
there is none.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import weakref
from typing import Self

from loaderd.errors import DaemonGone, NoDaemon, ProtocolError, from_wire
from loaderd.wire import address as addresses
from loaderd.wire import spec as specs
from loaderd.wire.bundle import Bundle
from loaderd.wire.channel import Channel, Closed
from loaderd.wire.dial import dial
from loaderd.wire.messages import Open, Opened, Place, Refused
from loaderd.wire.spec import Spec
from loaderd_client.private import PrivateDaemon
from loaderd_client.stream import Stream

_sessions: list[Session] = []
_making = threading.Lock()


class Session:
    """Streams from one daemon. A context manager: its end closes them all.

    Args:
        address: None takes the daemon at the default address (``LOADERD_SOCKET``,
            ``LOADERD_NAME``, else ``default``), and starts a private one where nobody
            answers; ``"auto"`` takes the same and never starts one; else the path of a
            socket.

    Attributes:
        path: the daemon's socket.

    Raises:
        NoDaemon: nobody answers there.
        VersionMismatch: the daemon speaks another protocol.
    """

    def __init__(self, address: str | None = None) -> None:
        self._streams: weakref.WeakSet[Stream] = weakref.WeakSet()
        self._private: PrivateDaemon | None = None
        self.path = addresses.socket_path(socket=None if address == "auto" else address)
        try:
            dial(self.path).close()
        except NoDaemon:
            if address is not None:
                raise
            self._private = _start_private(self.path)
            self.path = self._private.path
        _sessions.append(self)

    def open(
        self,
        spec: Spec,
        slots: int,
        start: Place | None = (0, 0),
        bundle: Bundle | None = None,
    ) -> Stream:
        """Opens a stream.

        Args:
            spec: what its batches are.
            slots: slots wished for in the ring; the daemon may give fewer.
            start: (epoch, position) from which on batches are made ahead; None for none.
            bundle: the arrays that the spec means.

        Raises:
            DatasetNotFound: the directory is missing.
            EmptyDataset: it holds no image.
            NoRoom: the ring does not fit.
            NoDaemon: the daemon went away.
            RequestRefused: the daemon runs no user code.
        """
        self._revive()
        line = dial(self.path)
        try:
            stream = _open(line, spec, slots, start, bundle)
        except BaseException:
            line.close()
            raise
        self._streams.add(stream)
        return stream

    def _revive(self) -> None:
        """A private daemon that died is started again."""
        if self._private is not None and self._private.ended:
            self._private = _start_private(self.path)
            self.path = self._private.path

    def close(self) -> None:
        """Closes all streams, and ends the daemon if it is a private one."""
        for stream in list(self._streams):
            stream.close()
        if self in _sessions:
            _sessions.remove(self)
        if self._private is not None:
            self._private.stop()
            self._private = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _start_private(path: str) -> PrivateDaemon:
    daemon = PrivateDaemon()
    print(
        f"loaderd: no daemon at {path}; started a private one for this process "
        "(`loaderd start` keeps one running)",
        file=sys.stderr,
    )
    return daemon


def _open(
    line: Channel, spec: Spec, slots: int, start: Place | None, bundle: Bundle | None
) -> Stream:
    line.settimeout(None)  # listing a large directory takes its time
    try:
        _ask(line, spec, slots, start, bundle)
        answer, fds = line.receive_with_fds()
    except Closed as error:
        raise DaemonGone("the daemon went away while it opened the stream") from error
    match answer, fds:
        case Opened(), [ring, manifest]:
            return Stream(line, spec, start, answer, ring, manifest)
        case Refused(kind, text), _:
            raise from_wire(kind, text)
    raise ProtocolError(f"the daemon answered Open with {type(answer).__name__}")


def _ask(line: Channel, spec: Spec, slots: int, start: Place | None, bundle: Bundle | None) -> None:
    data = specs.encode(spec)
    fd = os.memfd_create("loaderd-spec")
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
        size, fds = (bundle.nbytes, [fd, bundle.fd]) if bundle else (0, [fd])
        line.send(Open(len(data), size, slots, start), fds)
    finally:
        os.close(fd)


def connect(address: str | None = None) -> Session:
    """Connects to a daemon; generators made afterwards load through it.

    Args:
        address: see :class:`Session`.

    Example::

        with loaderd_client.connect() as session:
            train = ImageDataGenerator().flow_from_directory("data/train")
            model.fit(train)
    """
    return Session(address)


def current() -> Session:
    """The innermost open session; a new one where there is none."""
    with _making:
        return _sessions[-1] if _sessions else Session()


@atexit.register
def _close_all() -> None:
    for session in reversed(_sessions):
        with contextlib.suppress(Exception):  # the interpreter ends; each gets its turn
            session.close()
