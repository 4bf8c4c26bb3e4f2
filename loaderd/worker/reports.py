"""What a worker says from within a chunk: that it lives, and which images are bad."""

from __future__ import annotations

from time import perf_counter_ns

from loaderd.ipc.channel import Channel
from loaderd.ipc.messages import Bad, Progress


class Reports:
    """The voice of a worker.

    Args:
        line: its socket.
        silence_s: seconds after which the supervisor wants to hear that a sample was
            finished. Most chunks take milliseconds, and say nothing.
    """

    def __init__(self, line: Channel, silence_s: float) -> None:
        self._line = line
        self._silence_ns = int(silence_s * 1e9)
        self._due = 0

    def begin(self) -> None:
        """A chunk begins."""
        self._due = perf_counter_ns() + self._silence_ns

    def alive(self, ticket: int) -> None:
        """A sample of the chunk is finished."""
        if perf_counter_ns() >= self._due:
            self._line.send(Progress(ticket))
            self.begin()

    def bad(self, stream: int, path: bytes, reason: str, lacking: bool) -> None:
        """An image of the chunk cannot be read, or not by this installation."""
        self._line.send(Bad(stream, path, reason, lacking))
