"""The connection of an open stream, how it has ended, and what wakes those who wait for it."""

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
    StorageTimeout,
    TooManyBadImages,
)
from loaderd.ipc.channel import Channel, Closed
from loaderd.ipc.messages import IDLE_SECONDS, Message
from loaderd.ipc.owned import Owned

TELL_NS = 500_000_000
"""A wait is told to the daemon after so long, and not only when it ends."""

Heard = Callable[[Message], None]
"""What takes in a message; it raises ProtocolError for one that must not come."""


_bells = Owned(os.close)


class Bell:
    """Wakes all who wait in ``poll``; the stream's."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        _bells.watch(self, self.fd)

    def ring(self) -> None:
        """Wakes them."""
        os.eventfd_write(self.fd, 1)

    def silence(self) -> None:
        """Lets them sleep until it rings again."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)


class Releases:
    """Slots whose leases have ended.

    Leases know this and not the stream, so that a stream which nobody uses any more goes
    at once, with its connection and its bell, whatever arrays are still held.
    """

    def __init__(self, bell: Bell) -> None:
        self.slots: deque[int] = deque()
        self.heard = False
        self._bell = weakref.ref(bell)

    def tell(self) -> None:
        """A lease has ended. Runs in any thread, perhaps in the middle of a step."""
        bell = self._bell() if self.heard else None
        if bell is not None:
            bell.ring()


def _gone() -> DaemonGone:
    return DaemonGone(
        "the daemon went away (its log says why); once one runs again (`loaderd start`), go on: "
        "nothing is lost"
    )


class Link:
    """A connection that never blocks.

    Args:
        channel: the connection.
        bell: rung when it has ended.

    Attributes:
        channel: the same.
        end: why nothing more comes; None while something may.
        told_at: when the daemon heard of us last, by ``time.monotonic``.
        confirmed: whether it was not asked, or has said, that the ring is still ours.
    """

    def __init__(self, channel: Channel, bell: Bell) -> None:
        channel.settimeout(0)
        self.channel = channel
        self.end: LoaderdError | None = None
        self.told_at = monotonic()
        self.confirmed = True
        self._bell = bell
        self._hung_up = False
        self._end_told = False

    def is_sure(self, now: float) -> bool:
        """Whether the ring is ours still: after a long silence the daemon may have taken it."""
        return self.end is not None or (self.confirmed and now - self.told_at < IDLE_SECONDS / 2)

    def check(self) -> None:
        """Raises why it has ended, if another stream would not help; see ``Stream.check``."""
        if isinstance(self.end, TooManyBadImages):
            raise TooManyBadImages(*self.end.args)
        if isinstance(self.end, StorageTimeout) and not self._end_told:
            self.raise_end()

    def raise_end(self) -> NoReturn:
        """Raises why it has ended."""
        assert self.end is not None
        self._end_told = True
        raise type(self.end)(*self.end.args)

    def sleep(self) -> None:
        """Until a message is there, what was not sent can be, or the bell rings; not for long."""
        poll = select.poll()
        poll.register(self.channel.fileno(), select.POLLIN | self.channel.unsent * select.POLLOUT)
        poll.register(self._bell.fd, select.POLLIN)
        poll.poll(TELL_NS // 1_000_000)

    def finish(self, error: LoaderdError) -> None:
        """Ends it, if it has not ended before."""
        self.end = self.end or error
        self._bell.ring()

    def send(self, message: Message, heard: Heard) -> None:
        """Sends a message; what cannot be taken in yet is kept and sent later."""
        try:
            self.channel.send(message)
            self.told_at = monotonic()
        except (Closed, OSError):
            self._hear_last_words(heard)

    def read(self, most: int, heard: Heard) -> None:
        """Takes in what the daemon has sent, and sends what it could not take before.

        Args:
            most: messages; in place of what is given back others may come for ever.
            heard: takes them in.
        """
        try:
            self.channel.flush()
        except (Closed, OSError):
            self._hear_last_words(heard)
        else:
            self._hear(most, heard)

    def _hear_last_words(self, heard: Heard) -> None:
        """The daemon has hung up; the reason may stand behind what it sent before."""
        if not self._hung_up:
            self._hung_up = True
            self._hear(sys.maxsize, heard)
            self.finish(_gone())

    def _hear(self, most: int, heard: Heard) -> None:
        try:
            for _ in range(most):
                heard(self.channel.receive())
        except BlockingIOError:
            return
        except (Closed, OSError):
            self.finish(_gone())
        except ProtocolError as error:
            self.finish(error)
