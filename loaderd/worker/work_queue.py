"""What waits in a worker's socket behind the chunk in hand, and signs of life meanwhile.

Chunks are looked at and stay in the socket: the supervisor takes them back from there when the one
in hand takes long. So a worker that fetches ahead holds nothing that another could do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from time import perf_counter_ns
from typing import Protocol, runtime_checkable

from loaderd.ipc.channel import Channel
from loaderd.ipc.messages import Chunk, Message, Progress

_SIGN_NS = 250_000_000


@runtime_checkable
class Fetching(Protocol):
    """A stream that fetches its samples, or an error in its place."""

    def expect(self, chunk: Chunk) -> None:
        """A chunk is about to come."""


class WorkQueue:
    """The socket to the supervisor, while a chunk is rendered.

    Args:
        channel: the socket.
        streams: those that the worker renders, by number.
    """

    def __init__(self, channel: Channel, streams: Mapping[int, object]) -> None:
        self._channel = channel
        self._streams = streams
        self._ticket = 0
        self._row = -1
        self._due = 0

    def begin(self, chunk: Chunk) -> None:
        """A chunk is in hand."""
        self._ticket, self._row = chunk.ticket, -1
        self._due = perf_counter_ns() + _SIGN_NS

    def send(self, message: Message) -> None:
        """Tells the supervisor."""
        if isinstance(message, Progress):
            self._row = message.row  # which the next sign of life must not take back
        self._channel.send(message)

    def look(self, is_usual: bool) -> None:
        """Tells streams of chunks that have come; gives a sign of life where it is time.

        Args:
            is_usual: whether the worker does as expected; else it is left to others to report.
        """
        for message in self._channel.unread() if self._streams else ():
            if isinstance(message, Chunk):
                self._expect(message)
        now = perf_counter_ns()
        if is_usual and now >= self._due:
            self._due = now + _SIGN_NS
            self._channel.send(Progress(self._ticket, self._row))

    def _expect(self, chunk: Chunk) -> None:
        stream = self._streams.get(chunk.stream)
        if isinstance(stream, Fetching):
            # It is of another stream, maybe, than the chunk in hand, which must not fail for it:
            # who fails here does so again when its own chunk is in hand, and is told then.
            with contextlib.suppress(Exception):
                stream.expect(chunk)
