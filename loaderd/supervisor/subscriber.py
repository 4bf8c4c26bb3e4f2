"""A client that reads a stream."""

from __future__ import annotations

from dataclasses import dataclass, field

from loaderd.ipc.messages import Ack
from loaderd.supervisor.clients import ClientConnection
from loaderd.supervisor.storage_waits import Stall
from loaderd.supervisor.streams import OpenStream


@dataclass(slots=True)
class Subscriber:
    """A client that reads a stream: its connection, and what it has read so far.

    A stream has a spec, a ring and a manifest, and does not know who reads it. The scheduler has
    the other half of the subscription: cursor, and leases, which are the slots that are LEASED.

    Each stream has one subscriber, and is closed with it. A second one needs a number of its
    own here, a cursor of its own there, and slots that are FREE only when the last has
    released them.
    """

    stream: OpenStream
    client: ClientConnection
    batches: int = 0
    samples: int = 0
    waited_ns: int = 0
    stall: Stall = field(default_factory=Stall)

    def count(self, took: Ack) -> None:
        """Keeps the counters that the client sends along."""
        self.batches, self.samples = took.batches, took.samples
        self.waited_ns = took.waited_ns
