"""A stream as the scheduler sees it: batches that are cut into chunks, tried, and done; pure.

::

    FREE slot ─► PartialBatch ── next_part ──► Part ──► a worker ──► written, failed
                      ▲                                    │
                      └── redo ◄── take_back ◄── it died, or took too long

The batch is READY, and delivered or reported as failed, when no part of it is left.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sized
from dataclasses import dataclass, field
from itertools import pairwise

from loaderd.ipc.prefetch import Place
from loaderd.supervisor.actions import Action, Death, Deliver, Fail, Failure, Isolate
from loaderd.supervisor.cursor import Cursor
from loaderd.supervisor.slots import Event, SlotTable, State
from loaderd.supervisor.stream_shape import Shape

CRASHES = 2
"""After so many workers that crashed in a row over a chunk, its samples are tried alone."""

KILLS = 20
"""A batch is given up when so many were killed in a row over a chunk, as by lack of memory."""

ATTACHES = 3
"""And when so many in a row died before they could write anything of its stream."""

MIN_CHUNK_NS, MAX_CHUNK_NS = 2_000_000, 20_000_000
"""What a chunk should take: long against a message, short against a batch."""

UNKNOWN_ROW_NS = 1_000_000
"""What a row is taken to cost before one was made: about that of a decoded one."""

LEASED = 2
"""Slots that the trainer holds as a rule: they cannot be filled."""


@dataclass(slots=True)
class PartialBatch:
    """A batch of which not all rows are written."""

    slot: int
    place: Place
    rows: int
    uncut: int
    """Chunks that are left to be cut."""
    given: int = 0
    """Rows that were cut into chunks."""
    open: int = 0
    """Parts that are with workers or wait to be given again."""
    attempt: int = 0
    skipped: int = 0
    error: Failure | None = None


@dataclass(slots=True)
class Part:
    """Rows of a batch that one worker tries, and how many died over them in a row.

    ``in_hand`` is a row that is not one of them, as a partner is, while the worker tries it; else
    -1. ``isolated`` are rows that are no longer tried, as workers died over them. Both are rows of
    the batch of all trainers that share the epoch. A part that ``stays`` is for workers of this
    machine alone, as one of another could not make it.
    """

    batch: PartialBatch
    first: int
    last: int
    crashes: int = 0
    kills: int = 0
    in_hand: int = -1
    isolated: set[int] = field(default_factory=set)
    stays: bool = False

    def pieces(self) -> list[Part]:
        """What is given away next: each row alone after crashes, halves after a kill."""
        if self.last - self.first == 1:
            return [self]
        if self.crashes >= CRASHES:
            cuts = list(range(self.first, self.last + 1))
        elif self.kills:
            cuts = [self.first, (self.first + self.last) // 2, self.last]
        else:
            return [self]
        return [
            Part(self.batch, first, last, self.crashes, self.kills, stays=self.stays)
            for first, last in pairwise(cuts)
        ]


@dataclass(slots=True)
class ScheduledStream:
    """The ring of a stream, and the work on it, for one subscriber: ``cursor`` says what it wants.

    Others read; only the scheduler writes.
    """

    id: int
    shape: Shape
    cursor: Cursor
    slots: SlotTable
    is_small: bool = False
    """Whether its first batch is given to one worker."""
    places: dict[int, Place] = field(default_factory=dict)
    """What lies in the slots that are FILLING or READY."""
    made: set[Place] = field(default_factory=set)
    """The same without the slots."""
    partial: dict[int, PartialBatch] = field(default_factory=dict)
    """The batches in the slots that are FILLING."""
    cutting: PartialBatch | None = None
    """The one batch of which rows are left to be cut into chunks."""
    redo: deque[Part] = field(default_factory=deque)
    attaches: int = 0
    """Workers that died in a row before they wrote anything."""
    doubted: bool = False
    """Whether its storage may be what a worker waits for: nothing has come back since."""
    row_ns: float = 0.0
    errors: int = 0
    served_ns: float = 0.0
    """The workers' time that it was given, by the clock of start-time fair queueing (Goyal, Vin and
    Cheng 1996): one that was idle begins where the others are."""

    def turn(self) -> tuple[bool, float, float]:
        """Sorts streams by whose turn it is: the least comes first."""
        ready = 0 if self.cursor.missing else self.slots.count(State.READY)
        return not self.redo, ready / len(self.slots), self.served_ns

    def count_missing(self) -> None:
        """Follows a change of what is wanted, or of the run."""
        self.cursor.count_missing(self.made, len(self.slots), self.cutting is not None)

    def take(self, slot: int, subscriber: int) -> None:
        """A subscriber, here the only one, has taken a batch."""
        self.apply(slot, Event.TAKE)
        self.cursor.taken += 1

    def release(self, slot: int, subscriber: int) -> None:
        """A subscriber, here the only one, has released a slot."""
        self.apply(slot, Event.RELEASE)

    def held(self, subscriber: int, state: State) -> int:
        """How many slots are READY for a subscriber, here the only one, or LEASED by it."""
        return self.slots.count(state)

    def apply(self, slot: int, event: Event) -> None:
        """A slot is taken or released: what lay there may be made again."""
        self.slots.apply(slot, event)
        place = self.places.pop(slot, None)
        if place is not None:
            self.made.remove(place)

    # -- rows for workers --------------------------------------------------------------

    def next_part(self, workers: Sized, draining: bool, is_remote: bool) -> Part | None:
        """Rows for a worker: to be done again, else of the batch that is begun, else of the next.

        Args:
            workers: all that there are.
            draining: whether no batch is begun any more.
            is_remote: whether the worker is one of another machine.
        """
        for part in self.redo:
            if not (is_remote and part.stays):
                self.redo.remove(part)
                return part
        if self.cutting is None:
            if draining or not self.slots.count(State.FREE):
                return None
            place = self.cursor.next_place(self.made)
            if place is None:
                return None
            self.cutting = self._begin(place, len(workers))
        return self._cut(self.cutting)

    @property
    def is_still(self) -> bool:
        """Whether no slot is FILLING or LEASED, so that another stream may have the ring."""
        return not self.partial and not self.slots.count(State.LEASED)

    def cost_ns(self, part: Part) -> float:
        """What rows are expected to cost a worker."""
        return (part.last - part.first) * (self.row_ns or UNKNOWN_ROW_NS)

    def _begin(self, place: Place, workers: int) -> PartialBatch:
        """Takes a free slot for a batch."""
        rows = self.shape.rows(place[1])
        batch = PartialBatch(self.slots.fill(), place, rows, self._chunks(rows, workers))
        self.partial[batch.slot] = batch
        self.places[batch.slot] = place
        self.made.add(place)
        return batch

    def _cut(self, batch: PartialBatch) -> Part:
        """Takes the next of the chunks of a batch, which are of one size but for a row."""
        first = batch.given
        batch.given += -(-(batch.rows - first) // batch.uncut)
        batch.uncut -= 1
        batch.open += 1
        if not batch.uncut:
            self._end_cutting()
        return Part(batch, first, batch.given)

    def _end_cutting(self) -> None:
        self.cutting = None
        self.cursor.one_less_missing()

    def _chunks(self, rows: int, workers: int) -> int:
        """Chunks for so many rows of a batch.

        Few chunks mean few messages, so they are as long as may be, and no longer than
        leaves every worker all that it may hold of the batches for which there are slots.
        """
        chunks = -(-rows // -(-self.shape.batch_size // self._min_chunks(max(1, workers))))
        if self.row_ns:
            chunks = min(chunks, max(1, int(rows * self.row_ns / MIN_CHUNK_NS)))
            chunks = max(chunks, -(-rows // max(1, int(MAX_CHUNK_NS / self.row_ns))))
        return chunks

    def _min_chunks(self, workers: int) -> int:
        """Chunks that a batch must have at least; the first batch is shared out among all."""
        if not self.row_ns:
            return 1 if self.is_small else workers
        fillable = max(1, len(self.slots) - LEASED)
        return -(-self.shape.queued * workers // fillable)

    # -- what becomes of them ----------------------------------------------------------

    def written(self, part: Part, total_ns: int, skipped: int) -> list[Action]:
        """A worker has written rows, in so many nanoseconds, and left out some of them."""
        # Slowly, so that one odd image changes little.
        cost = total_ns / (part.last - part.first)
        self.row_ns += (cost - self.row_ns) * (0.2 if self.row_ns else 1.0)
        self.attaches = 0
        part.batch.skipped += skipped
        return self._close_part(part.batch)

    def failed(self, part: Part, kind: str, text: str) -> list[Action]:
        """A worker could not make rows, for this error: their batch is given up."""
        self._give_up(part, kind, text)
        return self._close_part(part.batch)

    def take_back(self, part: Part, death: Death | None = None, cause: str = "") -> list[Action]:
        """A worker does not make rows that it was given.

        Args:
            part: the rows.
            death: how it died, if the rows may have to do with that.
            cause: the same as text.
        """
        batch = part.batch
        actions = self._blame(part, death, cause) if death and batch.error is None else []
        part.in_hand = -1
        if batch.error is not None:
            return actions + self._close_part(batch)
        batch.attempt += 1
        pieces = part.pieces() if death else [part]
        batch.open += len(pieces) - 1
        self.redo.extendleft(reversed(pieces))
        return actions

    def _blame(self, part: Part, death: Death, cause: str) -> list[Action]:
        part.crashes += death is Death.CRASHED
        part.kills += death is Death.KILLED
        self.attaches += death is Death.ATTACHING
        if part.crashes > CRASHES:
            return self._isolate(part, cause)
        if part.kills >= KILLS:
            text = f"{KILLS} workers were killed over it ({cause}); is memory short?"
            self._give_up(part, "WorkerCrashed", text)
        elif self.attaches >= ATTACHES:
            text = f"{ATTACHES} workers died before they could begin ({cause})"
            self._give_up(part, "WorkerCrashed", text)
            self.attaches = 0
        return []

    def _isolate(self, part: Part, cause: str) -> list[Action]:
        own = self.shape.part(part.batch.place[1])
        row = own[part.first] if part.in_hand < 0 else part.in_hand
        if row in part.isolated:
            text = f"{CRASHES + 1} workers crashed over it ({cause}) though it was not tried"
            self._give_up(part, "WorkerCrashed", text)
            return []
        part.crashes = 0
        part.isolated.add(row)
        return [Isolate(self.id, part.batch.place, row, cause)]

    def _give_up(self, part: Part, kind: str, text: str) -> None:
        """Ends a batch with an error: none of its rows is given to a worker any more."""
        batch = part.batch
        batch.error = batch.error or Failure(kind, text, part.first, part.last)
        if self.cutting is batch:
            self._end_cutting()
        waiting = [redo for redo in self.redo if redo.batch is batch]
        for redo in waiting:
            self.redo.remove(redo)
            batch.open -= 1

    def _close_part(self, batch: PartialBatch) -> list[Action]:
        batch.open -= 1
        if batch.open or (batch.uncut and batch.error is None):
            return []
        del self.partial[batch.slot]
        self.slots.apply(batch.slot, Event.FINISH)
        self.errors += batch.error is not None
        return [self._outcome(batch, reader) for reader in self.give(batch)]

    def give(self, batch: PartialBatch) -> Iterable[int]:
        """Who gets a batch that is finished: the only subscriber has the stream's number."""
        return (self.id,)

    def _outcome(self, batch: PartialBatch, reader: int) -> Action:
        if batch.error is None:
            return Deliver(reader, batch.slot, batch.place, batch.attempt, batch.skipped)
        return Fail(reader, batch.slot, batch.place, batch.error)
