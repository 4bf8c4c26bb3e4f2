"""The non-blocking connection of an open stream, its end, and the eventfd that wakes waiters."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import weakref
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import NoReturn

from loaderd.errors import (
    DaemonGone,
    LoaderdError,
    ProtocolError,
    StorageRefused,
    StorageTimeout,
    TooManyBadImages,
)
from loaderd.ipc.channel import Channel, Closed
from loaderd.ipc.messages import IDLE_SECONDS, Message
from loaderd.ipc.owned import Owned

REPORT_NS = 500_000_000
"""Interval at which a wait in progress is reported to the daemon."""

Handler = Callable[[Message], None]
"""Handles a message; raises ProtocolError for one that is not allowed on a stream."""


_eventfds = Owned(os.close)


class Waker:
    """An eventfd that wakes all threads of a stream that wait in ``poll``."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        _eventfds.watch(self, self.fd)

    def notify(self) -> None:
        """Wakes all waiting threads, and later ones until ``clear``."""
        os.eventfd_write(self.fd, 1)

    def clear(self) -> None:
        """Resets the eventfd, so that ``poll`` waits again."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)


class Releases:
    """Slots whose leases have ended.

    Leases refer to this and not to the stream, so that an unused stream is freed at once, with its
    connection and its eventfd, whatever arrays are still held.
    """

    def __init__(self, notifier: Waker) -> None:
        self.slots: deque[int] = deque()
        self.notifies = False
        self._notifier = weakref.ref(notifier)

    def notify(self) -> None:
        """Wakes waiters after a lease has ended. Runs in any thread, also during a step."""
        notifier = self._notifier() if self.notifies else None
        if notifier is not None:
            notifier.notify()


def _gone() -> DaemonGone:
    return DaemonGone(
        "the daemon went away (its log says why); once one runs again (`loaderd start`), go on: "
        "nothing is lost"
    )


class Link:
    """A connection that never blocks.

    Args:
        channel: the connection.
        notifier: notified when it has ended.

    Attributes:
        end: why the connection has ended; None while it is open.
        sent_at: when a message was last sent, by ``time.monotonic``.
        confirmed: False from a ``Confirm`` until the daemon answers that the ring is still ours.
    """

    def __init__(self, channel: Channel, notifier: Waker) -> None:
        channel.settimeout(0)
        self.channel = channel
        self.end: LoaderdError | None = None
        self.sent_at = monotonic()
        self.confirmed = True
        self._notifier = notifier
        self._hung_up = False
        self._end_raised = False

    def is_sure(self, now: float) -> bool:
        """Whether the ring is still ours; the daemon may reclaim it after ``IDLE_SECONDS``."""
        return self.end is not None or (self.confirmed and now - self.sent_at < IDLE_SECONDS / 2)

    def check(self) -> None:
        """Raises ``end`` if another stream would not help; see ``Stream.check``."""
        if isinstance(self.end, TooManyBadImages):
            raise TooManyBadImages(*self.end.args)
        if isinstance(self.end, StorageTimeout | StorageRefused) and not self._end_raised:
            self.raise_end()

    def raise_end(self) -> NoReturn:
        """Raises ``end``."""
        assert self.end is not None
        self._end_raised = True
        raise type(self.end)(*self.end.args)

    def sleep(self) -> None:
        """Waits for a message, room to send, or a notification; at most ``REPORT_NS``."""
        poll = select.poll()
        poll.register(self.channel.fileno(), select.POLLIN | self.channel.unsent * select.POLLOUT)
        poll.register(self._notifier.fd, select.POLLIN)
        poll.poll(REPORT_NS // 1_000_000)

    def hang_up(self, is_polled: bool) -> None:
        """Ends the connection; threads that poll it wake up, and then it may be closed."""
        self.channel.shut_down()
        if not is_polled:
            self.channel.close()

    def finish(self, error: LoaderdError) -> None:
        """Sets ``end``, unless it is set, and wakes all waiters."""
        self.end = self.end or error
        self._notifier.notify()

    def send(self, message: Message, handler: Handler) -> None:
        """Sends a message; if the socket is full, queues it and sends it later."""
        try:
            self.channel.send(message)
            self.sent_at = monotonic()
        except (Closed, OSError):
            self._read_remaining(handler)

    def read(self, max_messages: int, handler: Handler) -> None:
        """Sends queued messages and handles received ones.

        At most ``max_messages``, as each released slot may bring another message.
        """
        try:
            self.channel.flush()
        except (Closed, OSError):
            self._read_remaining(handler)
        else:
            self._receive(max_messages, handler)

    def _read_remaining(self, handler: Handler) -> None:
        """Reads to the end after the daemon has hung up: its last message may give the reason."""
        if not self._hung_up:
            self._hung_up = True
            self._receive(sys.maxsize, handler)
            self.finish(_gone())

    def _receive(self, max_messages: int, handler: Handler) -> None:
        try:
            for _ in range(max_messages):
                handler(self.channel.receive())
        except BlockingIOError:
            return
        except (Closed, OSError):
            self.finish(_gone())
        except ProtocolError as error:
            self.finish(error)
