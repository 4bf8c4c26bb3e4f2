"""The clients that read streams."""

from __future__ import annotations

from dataclasses import dataclass, field

from loaderd.ipc.messages import Ack
from loaderd.ipc.snapshot import WAIT_BOUNDS_S
from loaderd.supervisor.clients import ClientConnection
from loaderd.supervisor.storage_waits import Stall
from loaderd.supervisor.streams import OpenStream

_FIRST_BOUND_NS = int(WAIT_BOUNDS_S[0] * 1e9)
_NOTHING_TAKEN = Ack((), (), batches=0, samples=0, waited_ns=0)


@dataclass(slots=True)
class Subscriber:
    """A client that reads a stream: its connection, and what it has read so far.

    The scheduler has the other half of the subscription: cursor, and leases, which are the slots
    that are LEASED. A stream is closed with its last subscriber; only a shared one has several.
    """

    stream: OpenStream
    client: ClientConnection
    took: Ack = _NOTHING_TAKEN
    """The last, for its counters."""
    first_at: float | None = None
    """When the first batch was taken."""
    first_waited_ns: int = 0
    """Nanoseconds that the client waited until then."""
    stall: Stall = field(default_factory=Stall)
    detached: bool = False
    """Whether it gets nothing more of a shared stream."""
    waits: list[int] = field(default_factory=lambda: [0] * (len(WAIT_BOUNDS_S) + 1))
    """Batches after the first by the time that the client waited for each."""
    _counted_ns: int = 0
    """Of the time waited, what was for batches that are counted."""

    def note(self, took: Ack, now: float) -> None:
        """Keeps the counters of a client that has taken or waited."""
        taken, self.took = took.batches - self.took.batches, took
        if self.first_at is None:
            self.first_waited_ns = self._counted_ns = took.waited_ns
            self.first_at = now if took.batches else None
        elif taken > 0:
            waited, self._counted_ns = took.waited_ns - self._counted_ns, took.waited_ns
            bucket = (max(0, waited - 1) // _FIRST_BOUND_NS).bit_length()
            self.waits[min(bucket, len(WAIT_BOUNDS_S))] += taken


class Subscribers(dict[int, Subscriber]):
    """All subscribers by number; that of a stream's only one is the stream's."""

    def of(self, stream: int) -> dict[int, Subscriber]:
        """Those of one stream."""
        return {number: one for number, one in self.items() if one.stream.id == stream}

    def heard_at(self) -> dict[int, float]:
        """By stream, when one of its last said something, on the clock of ``time.monotonic``."""
        latest: dict[int, float] = {}
        for one in self.values():
            before = latest.get(one.stream.id, one.client.heard_at)
            latest[one.stream.id] = max(before, one.client.heard_at)
        return latest
