"""Repeats what an object store does not answer, with growing pauses, until a deadline."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from time import monotonic
from typing import TypeVar

from loaderd.errors import StorageTimeout
from loaderd.ipc.text import printable
from loaderd.sources.object_store import Unreachable
from loaderd.spec import url as urls

Answer = TypeVar("Answer")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
"""Seconds; each pause is up to twice as long as the one before."""


class Retries:
    """How long a store is asked again.

    Args:
        limit_s: seconds after which a request is given up.

    Attributes:
        reason: why the last try failed; empty if it did not.
        stopped: when it is set, nothing is tried again.
    """

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self.reason = ""
        self.stopped = threading.Event()

    def run(self, url: str, ask: Callable[[], Answer]) -> Answer:
        """What ``ask`` returns, once it does.

        Args:
            url: that it asks for.
            ask: a request, which raises Unreachable if it is to be repeated.

        Raises:
            StorageTimeout: the deadline is over; says what the store has answered last.
        """
        pause, end = _FIRST_PAUSE, monotonic() + self.limit_s
        while True:
            try:
                answer = ask()
                self.reason = ""
                return answer
            except Unreachable as error:
                self.reason = str(error)
            pause *= 1 + random.random()
            left = end - monotonic()
            if left <= 0 or self.stopped.wait(min(pause, left, _LONGEST_PAUSE)):
                raise self._timeout(url)

    def _timeout(self, url: str) -> StorageTimeout:
        return StorageTimeout(
            f"{printable(urls.shown(url))}: the store cannot be read within {self.limit_s:g} s "
            f"({self.reason}), for which no image is to blame: look at the network, or raise the "
            "daemon's --io-timeout (LOADERD_IO_TIMEOUT), and go on: the next request tries again"
        )
