"""Messages from within a chunk: heartbeats, and unreadable images."""

from __future__ import annotations

from time import perf_counter_ns

from loaderd.ipc.channel import Channel
from loaderd.ipc.messages import Bad, Progress


class Reports:
    """Sends a worker's messages from within a chunk.

    Args:
        channel: its socket to the supervisor.
        silence_s: seconds after which a finished sample is reported as a heartbeat. Most
            chunks take milliseconds, and send none.
    """

    def __init__(self, channel: Channel, silence_s: float) -> None:
        self._channel = channel
        self._silence_ns = int(silence_s * 1e9)
        self._due = 0

    def begin(self) -> None:
        """Starts the time of a chunk."""
        self._due = perf_counter_ns() + self._silence_ns

    def alive(self, ticket: int) -> None:
        """Reports that a sample of the chunk is finished, if a heartbeat is due."""
        if perf_counter_ns() >= self._due:
            self._channel.send(Progress(ticket))
            self.begin()

    def bad(self, stream: int, path: bytes, reason: str, lacking: bool) -> None:
        """Reports an image that cannot be read, or not by this installation."""
        self._channel.send(Bad(stream, path, reason, lacking))
