"""Storage that does not answer: who waits for it, since when, and who has been told; pure.

::

    workers, openers ── Waiting ──► Wait, one for each ──► Stall, one for each stream
                                                              ├─► a text for the trainer and the log
                                                              └─► StorageTimeout
"""

from __future__ import annotations

from dataclasses import dataclass

from loaderd.errors import StorageTimeout

TOLD_SECONDS = 3.0
"""A wait that lasts longer is reported; shorter ones are usual on a slow disk."""


@dataclass(frozen=True, slots=True)
class Wait:
    """A worker or an opener waits for storage.

    Attributes:
        path: what for, as people read it.
        since: when it was asked, on the clock of ``time.monotonic``.
    """

    path: str
    since: float


class Waits(dict[int, tuple[int, Wait]]):
    """The workers that wait for storage, each with the stream of its chunk in hand."""

    def shift(self, seconds: float) -> None:
        """Takes seconds off all waits, in which the supervisor itself stood still."""
        for worker, (stream, wait) in self.items():
            self[worker] = stream, Wait(wait.path, wait.since + seconds)

    def workers(self, stream: int) -> list[int]:
        """Those that wait for what a stream reads."""
        return [worker for worker, (other, _) in self.items() if other == stream]

    def longest(self, stream: int) -> Wait | None:
        """The wait of a stream that has lasted longest."""
        waits = [wait for other, wait in self.values() if other == stream]
        return min(waits, key=lambda wait: wait.since, default=None)


class Stall:
    """What a trainer was told of the storage that its stream waits for.

    Attributes:
        wait: the wait that it was told of, and which is not over.
    """

    def __init__(self) -> None:
        self.wait: Wait | None = None

    def update(self, wait: Wait | None, now: float, limit_s: float) -> str:
        """Follows what the stream waits for; returns a text if there is news, else an empty one.

        Args:
            wait: its longest, or None.
            now: on the same clock.
            limit_s: how long it may last.
        """
        if wait is not None and now - wait.since < TOLD_SECONDS:
            return ""  # what was told, if anything, is not over yet
        before, self.wait = self.wait, wait
        if wait is not None and before is None:
            return (
                f"storage does not answer: {wait.path} (waiting up to {limit_s:g} s; --io-timeout, "
                "LOADERD_IO_TIMEOUT)"
            )
        if wait is None and before is not None:
            return f"storage answers again: {before.path}"
        return ""


def timeout(wait: Wait, limit_s: float) -> StorageTimeout:
    """The error for what was waited for too long."""
    return StorageTimeout(
        f"{wait.path}: storage did not answer within {limit_s:g} s, for which no image is to "
        "blame: look at the disk or the network, or raise the daemon's --io-timeout "
        "(LOADERD_IO_TIMEOUT), and go on: the next request tries again"
    )
