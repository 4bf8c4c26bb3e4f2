"""The daemon's one ledger: which worker holds which chunks; pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from loaderd.errors import ProtocolError
from loaderd.ipc.messages import Chunk
from loaderd.supervisor.scheduled_stream import Part


@dataclass(slots=True)
class Assignment:
    """A chunk that a worker holds, and the rows that it stands for."""

    chunk: Chunk
    part: Part


class Ledger:
    """The chunks of all workers, the one in hand first; only the scheduler writes here.

    Attributes:
        retired: workers that get no more chunks, ever.
        slow: workers that get none until they have reported the one in hand.
        remote: workers on other machines.
    """

    def __init__(self) -> None:
        self._held: dict[int, deque[Assignment]] = {}
        self.retired: set[int] = set()
        self.slow: set[int] = set()
        self.remote: set[int] = set()
        self._ticket = 0
        self._declined: dict[int, set[int]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def add(self, worker: int, is_remote: bool = False) -> None:
        """A worker is ready for chunks."""
        self._held[worker] = deque()
        if is_remote:
            self.remote.add(worker)

    def remove(self, worker: int) -> deque[Assignment]:
        """Forgets a worker; returns what it held."""
        self.retired.discard(worker)
        self.slow.discard(worker)
        self.remote.discard(worker)
        self._declined.pop(worker, None)
        return self._held.pop(worker, deque())

    def held(self, worker: int) -> Sequence[Assignment]:
        """What a worker holds, as a live view: the chunk in hand, then the one queued."""
        return self._held.get(worker, ())

    def with_room(self, upto: int) -> Iterator[int]:
        """Workers that hold fewer chunks than that, and may get some."""
        for worker, held in self._held.items():
            if len(held) < upto and worker not in self.retired and worker not in self.slow:
                yield worker

    def is_out(self, stream: int) -> bool:
        """Whether a worker holds a chunk of a stream."""
        return any(one.chunk.stream == stream for held in self._held.values() for one in held)

    def assign(self, worker: int, stream: int, part: Part) -> Chunk:
        """Gives rows of a stream to a worker, under a ticket of their own."""
        self._ticket += 1
        slot, (epoch, position) = part.batch.slot, part.batch.place
        chunk = Chunk(self._ticket, stream, slot, epoch, position, part.first, part.last)
        self._held[worker].append(Assignment(chunk, part))
        return chunk

    def in_hand(self, worker: int, ticket: int, row: int) -> None:
        """A worker tries a row of a batch that is not its chunk's; -1: its chunk's again.

        Raises:
            ProtocolError: it does not have the chunk with this ticket in hand.
        """
        self._checked(worker, ticket).part.in_hand = row

    def _checked(self, worker: int, ticket: int) -> Assignment:
        held = self._held[worker]
        if not held or held[0].chunk.ticket != ticket:
            raise ProtocolError(f"worker {worker} reports chunk {ticket}, which it does not hold")
        return held[0]

    def report(self, worker: int, ticket: int) -> Assignment:
        """Takes the chunk out that a worker has in hand, as it reports.

        Raises:
            ProtocolError: that is not the one with this ticket.
        """
        self._checked(worker, ticket)
        held = self._held[worker]
        self.slow.discard(worker)
        return held.popleft()

    def recall(self, worker: int, tickets: set[int]) -> list[Assignment]:
        """Takes chunks out that a worker has not seen yet."""
        held = self._held[worker]
        recalled = [one for one in held if one.chunk.ticket in tickets]
        for one in recalled:
            held.remove(one)
        return recalled

    def decline(self, worker: int, stream: int, ticket: int = -1) -> list[Assignment]:
        """Gives a worker no chunk of a stream any more; takes those out that it holds.

        With a ticket, it takes just that chunk out, which is then for workers of this machine.

        Raises:
            ProtocolError: that is not the chunk that the worker has in hand.
        """
        if ticket >= 0:
            only = self.report(worker, ticket)
            only.part.stays = True
            return [only]
        self._declined.setdefault(worker, set()).add(stream)
        held = self._held[worker]
        declined = [one for one in held if one.chunk.stream == stream]
        for one in declined:
            held.remove(one)
        return declined

    def forget(self, stream: int) -> None:
        """A stream is closed: who does not serve it is of no interest any more."""
        for declined in self._declined.values():
            declined.discard(stream)

    def declined(self, worker: int) -> Collection[int]:
        """The streams that a worker does not serve."""
        return self._declined.get(worker, ())
