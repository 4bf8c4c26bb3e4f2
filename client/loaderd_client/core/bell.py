"""What wakes those who wait for a stream: messages of the daemon, and slots that are released."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections import deque

from loaderd.ipc.owned import Owned

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
