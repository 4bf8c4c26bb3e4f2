"""Which streams may be read from storage that does not answer; pure."""

from __future__ import annotations

from collections.abc import Mapping

from loaderd.supervisor.scheduled_stream import ScheduledStream


class Doubts:
    """The workers that wait for storage, and the streams that are in doubt because of them.

    Args:
        streams: the open ones, as a live view.
    """

    def __init__(self, streams: Mapping[int, ScheduledStream]) -> None:
        self._streams = streams
        self._waiting: set[int] = set()

    @property
    def is_any(self) -> bool:
        """Whether a worker waits."""
        return bool(self._waiting)

    def begin(self, worker: int, stream: ScheduledStream | None) -> None:
        """A worker waits for the storage of a stream; for the first, that of all is in doubt."""
        if not self._waiting:
            for other in self._streams.values():
                other.doubted = True
        self._waiting.add(worker)
        if stream is not None:
            stream.doubted = True

    def end(self, worker: int, stream: ScheduledStream | None) -> None:
        """A worker does not wait any more; the storage of a stream, if it is given, answers.

        If nobody waits any more, that of all does.
        """
        self._waiting.discard(worker)
        if stream is not None:
            stream.doubted = False
        if not self._waiting:
            for other in self._streams.values():
                other.doubted = False
