"""One SOCK_SEQPACKET connection: whole messages, descriptors, the peer's identity.

The kernel keeps packets whole and in order and passes them through memory barriers:
what was written to a slot before ``send`` is seen after ``receive``.
"""

from __future__ import annotations

import array
import contextlib
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from loaderd.errors import NoDescriptor, ProtocolError
from loaderd.ipc import address, descriptors, messages
from loaderd.ipc.messages import Message

LONGEST_PACKET = 128 * 1024

MAX_UNSENT = 1000
LONGEST_UNSENT = 8 * 2**20
"""Limits of the messages, and of their bytes, that are kept for a peer that does not read."""

_MAX_FDS = 8
# Plain ints: arithmetic with the socket module's own flags costs 2 µs a message.
_ASK = int(socket.MSG_CMSG_CLOEXEC | socket.MSG_TRUNC)
_PEEK = int(socket.MSG_PEEK | socket.MSG_DONTWAIT | socket.MSG_TRUNC)
_SO_PEEK_OFF = 42
"""Of Linux; the socket module lacks it."""
_CTRUNC = int(socket.MSG_CTRUNC)
_FD_SPACE = socket.CMSG_SPACE(_MAX_FDS * array.array("i").itemsize)
_UCRED = struct.Struct("3i")


class Peer(NamedTuple):
    """The credentials of the process at the other end, from the kernel."""

    pid: int
    uid: int
    gid: int


class Closed(Exception):
    """The other end has closed the connection."""


class Unread(Closed):
    """The other end does not read: the limit of unsent messages is exceeded."""


class Channel:
    """Messages over one connected socket.

    A blocking channel waits in ``send`` and ``receive``. A non-blocking one raises
    BlockingIOError in ``receive`` when there is nothing to read, and keeps what
    ``send`` could not write until ``flush``.

    Args:
        sock: the socket.
        peer: the process at the other end, where the kernel does not know it.

    Attributes:
        on_unsent: called when ``flush`` has something to do, so that an event loop can
            wait for the socket to become writable.
    """

    def __init__(self, sock: socket.socket, peer: Peer | None = None) -> None:
        self.on_unsent: Callable[[], None] = lambda: None
        self._socket = sock
        self._peer = peer
        self._buffer = bytearray(LONGEST_PACKET)
        self._view = memoryview(self._buffer)
        self._unsent: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._unsent_bytes = 0
        self._peeks: bool | None = None

    def fileno(self) -> int:
        """The descriptor, for selectors."""
        return self._socket.fileno()

    @property
    def peer(self) -> Peer:
        """The process that connected."""
        if self._peer is not None:
            return self._peer
        raw = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        return Peer(*_UCRED.unpack(raw))

    @property
    def unsent(self) -> bool:
        """Whether ``flush`` has something to do."""
        return bool(self._unsent)

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Sends one message with copies of the descriptors.

        Raises:
            Closed: the other end is gone.
            Unread: it does not read.
            OSError: no descriptors are left, or too many are on their way.
        """
        data = messages.encode(message)
        if self._unsent or not self._write(data, fds):
            self._keep(data, fds)

    def _keep(self, data: bytes, fds: Sequence[int]) -> None:
        size = self._unsent_bytes + len(data)
        if len(self._unsent) >= MAX_UNSENT or size > LONGEST_UNSENT:
            raise Unread
        # The caller may close its descriptors before the packet is sent.
        self._unsent.append((data, descriptors.copies(fds)))
        self._unsent_bytes = size
        self.on_unsent()

    def flush(self) -> None:
        """Sends as many of the unsent messages as the socket takes.

        Raises:
            Closed: the other end is gone, or the kernel refuses a message.
        """
        try:
            while self._unsent and self._write(*self._unsent[0]):
                self._drop_first()
        except OSError as error:  # permanent: both ends must see the connection fail
            self.shut_down()
            raise Closed from error

    def _drop_first(self) -> None:
        data, fds = self._unsent.popleft()
        self._unsent_bytes -= len(data)
        descriptors.close_all(fds)

    def _write(self, data: bytes, fds: Sequence[int]) -> bool:
        try:
            if fds:
                socket.send_fds(self._socket, [data], list(fds))
            else:
                self._socket.send(data)
        except BlockingIOError:
            return False
        except (BrokenPipeError, ConnectionError) as error:
            raise Closed from error
        return True

    def receive(self) -> Message:
        """The next message; the kernel closes any descriptors that came with it.

        Raises:
            Closed: the other end is gone.
            ProtocolError: the packet is too long or no message.
        """
        try:
            length = self._socket.recv_into(self._buffer, 0, socket.MSG_TRUNC)
        except ConnectionError as error:
            raise Closed from error
        return self._decode(length)

    def receive_with_fds(self, flags: int = 0) -> tuple[Message, list[int]]:
        """The next message and the descriptors that came with it, which the caller now owns.

        Args:
            flags: of ``recvmsg``; MSG_DONTWAIT raises BlockingIOError on a blocking channel too.

        Raises:
            Closed: the other end is gone.
            ProtocolError: the packet is too long or no message, or holds too many descriptors.
            NoDescriptor: none is left for those that were sent.
        """
        ask = _ASK | int(flags)
        try:
            length, ancillary, flags, _ = self._socket.recvmsg_into([self._buffer], _FD_SPACE, ask)
        except ConnectionError as error:
            raise Closed from error
        fds = [fd for level, kind, data in ancillary for fd in _descriptors(level, kind, data)]
        try:
            if flags & _CTRUNC and len(fds) < _MAX_FDS:
                raise descriptors.lack("what came with a message")
            if flags & _CTRUNC:
                raise ProtocolError(f"more than {_MAX_FDS} descriptors in one message")
            return self._decode(length), fds
        except (ProtocolError, NoDescriptor, Closed):
            descriptors.close_all(fds)
            raise

    def unread(self) -> Iterator[Message]:
        """What the peer has sent and is not received yet, each message once; it stays there.

        Descriptors that came with a message are left to ``receive_with_fds``. Nothing is seen where
        the kernel refuses the option, as some sandboxes do.

        Raises:
            Closed: the other end is gone.
            ProtocolError: a packet is too long or no message.
        """
        if self._peeks is None:
            self._peeks = self._set_peek_offset()
        while self._peeks:
            try:
                length = self._socket.recv_into(self._buffer, 0, _PEEK)
            except BlockingIOError:
                return
            except ConnectionError as error:
                raise Closed from error
            yield self._decode(length)

    def _set_peek_offset(self) -> bool:
        """Whether each peek begins behind what the one before has seen from now on.

        One that receives, be it by another descriptor of the socket, moves it back.
        """
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_PEEK_OFF, 0)
        except OSError:
            return False
        return True

    def _decode(self, length: int) -> Message:
        if length == 0:
            raise Closed
        if length > LONGEST_PACKET:
            raise ProtocolError(f"a packet of {length} bytes; at most {LONGEST_PACKET} are allowed")
        return messages.decode(self._view[:length])

    def settimeout(self, seconds: float | None) -> None:
        """Sets the timeout in seconds: None blocks, 0 does not, else TimeoutError is raised."""
        self._socket.settimeout(seconds)

    def shut_down(self) -> None:
        """Ends the connection on both ends; the descriptor stays open until ``close``."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def hang_up(self) -> None:
        """Closes so that the other end can still read what was sent to it; never blocks.

        Closing with unread data resets the connection, and the other end would lose the last
        messages; so receiving is shut down, and unread data is discarded first.
        """
        with contextlib.suppress(OSError):
            self._socket.setblocking(False)
            self._socket.shutdown(socket.SHUT_RD)
            while self._socket.recv_into(self._buffer):
                pass
        self.close()

    def close(self) -> None:
        """Closes the connection and what was not sent."""
        while self._unsent:
            self._drop_first()
        self._socket.close()


def _descriptors(level: int, kind: int, data: bytes) -> list[int]:
    if (level, kind) != (socket.SOL_SOCKET, socket.SCM_RIGHTS):
        return []
    fds = array.array("i")
    fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets, for a parent and its child."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def connect(path: str, timeout: float = 5.0) -> Channel:
    """Connects to the daemon at ``path``.

    Raises:
        OSError: there is no listener.
        NoDescriptor: too many files are open.
    """
    with descriptors.needed("a connection to the daemon"):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        sock.settimeout(timeout)
        with descriptors.needed("a connection to the daemon"), address.usable(path) as short:
            sock.connect(short)
    except BaseException:
        sock.close()
        raise
    return Channel(sock)
