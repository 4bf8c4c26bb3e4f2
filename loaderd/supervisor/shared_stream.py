"""A stream with several subscribers as the scheduler sees it: rendered once, read by all; pure.

::

    FILLING ── finish ──► READY for each subscriber that has begun
                              ├── take ──► LEASED by it ──┐
                              └───────── release ─────────┴──► FREE, when the last has released it

Batches are made in the order of the run alone, as nobody may send the others elsewhere. A batch
that is finished is held by every subscriber whose first place is not behind it. The slot table has
the first of their steps (READY, then LEASED) and the last (FREE); ``holders`` has those in between.

A subscriber that is detached gets nothing more. What is READY for it is taken back when it has
said so, or when its silence shows that it does not read; what it has LEASED stays its own until its
arrays die, as it would see them change.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass, field

from loaderd.errors import OutOfStep
from loaderd.ipc.messages import Join, Joined
from loaderd.ipc.prefetch import Place
from loaderd.supervisor.actions import Action
from loaderd.supervisor.cursor import Cursor
from loaderd.supervisor.scheduled_stream import LEASED, PartialBatch, ScheduledStream
from loaderd.supervisor.slots import Event, IllegalTransition, State

MOVING = 3
"""Slots that no lease may take, so that batches go on: one filled, one ready, one being read."""


@dataclass(slots=True)
class SharedCursor(Cursor):
    """Where the subscribers of one stream are: only the run counts, from the first that is read."""

    firsts: dict[int, Place] = field(default_factory=dict)
    """Where each subscriber that gets batches has begun, or will."""

    def next_place(self, made: Set[Place]) -> Place | None:
        """The next of the run; None if nobody gets it, or nobody has taken what is there."""
        if not self.firsts or (self.is_cold(made) and not self.early()):
            return None
        assert self.run.next is not None
        place = max(self.run.next, min(self.firsts.values()))
        self._pass(place)
        return place

    def early(self) -> list[int]:
        """The subscribers whose first batch is not begun."""
        head = self.run.next
        assert head is not None
        return [subscriber for subscriber, first in self.firsts.items() if first >= head]


@dataclass(slots=True)
class SharedStream(ScheduledStream):
    """The ring of a stream, and the work on it, for several subscribers."""

    cursor: SharedCursor
    finished: dict[int, PartialBatch] = field(default_factory=dict)
    """What lies in the slots that are READY or LEASED."""
    holders: dict[int, dict[int, State]] = field(default_factory=dict)
    """For each of them, who holds it: READY or LEASED."""
    detached: set[int] = field(default_factory=set)
    """Subscribers that get nothing more."""
    leases: dict[int, int] = field(default_factory=dict)
    """Slots that each subscriber may lease; of more batches it makes copies."""

    # -- subscribers -------------------------------------------------------------------

    def join(self, subscriber: int, join: Join, place: Place) -> Joined:
        """Adds a subscriber.

        Args:
            subscriber: its number.
            join: where it begins.
            place: the place that it needs next, if it begins there.

        Raises:
            OutOfStep: the stream is not near to that place.
        """
        first = self._first(join, place)
        room = len(self.slots) - MOVING - sum(self.leases.values())
        self.leases[subscriber] = max(0, min(LEASED, room))
        self.cursor.firsts[subscriber] = first
        return Joined(first, self.leases[subscriber])

    def _first(self, join: Join, place: Place) -> Place:
        head = self.cursor.run.next
        assert head is not None
        if join == "now":
            return head
        oldest = self._oldest(head)
        if join == "epoch":
            return (oldest[0] + (oldest[1] > 0), 0)
        ahead, slots = self.shape.steps(oldest, place), len(self.slots)
        if not -slots // 2 <= ahead <= 2 * slots:
            raise OutOfStep(f"the shared stream is at {head}, and {place} is not near")
        return max(place, oldest)

    def _oldest(self, head: Place) -> Place:
        """The first place from which on all that was begun still lies in the ring."""
        there = {batch.place for batch in (*self.partial.values(), *self.finished.values())}
        while (before := self._before(head)) in there:
            head = before
        return head

    def _before(self, place: Place) -> Place:
        epoch, position = place
        return (epoch, position - 1) if position else (epoch - 1, self.shape.batches - 1)

    def catch_up(self, subscriber: int) -> list[Action]:
        """Delivers to a new subscriber what is there of its batches."""
        there = sorted(self.finished.values(), key=lambda batch: batch.place)
        wanted = [batch for batch in there if batch.place >= self.cursor.firsts[subscriber]]
        for batch in wanted:
            self.holders[batch.slot][subscriber] = State.READY
        return [self._outcome(batch, subscriber) for batch in wanted]

    def detach(self, subscriber: int) -> None:
        """Delivers nothing more to a subscriber; what it holds stays."""
        self.cursor.firsts.pop(subscriber, None)
        self.detached.add(subscriber)

    def reclaim(self, subscriber: int, *states: State) -> None:
        """Ends what a subscriber holds in these states: it does not read it, or is no more."""
        for slot, holders in list(self.holders.items()):
            if holders.get(subscriber) in states:
                self._drop(slot, subscriber)

    def leave(self, subscriber: int, keeps_leases: bool) -> None:
        """Removes a subscriber.

        Args:
            subscriber: its number.
            keeps_leases: whether its arrays may be alive, and nobody will say when they are not:
                the slots are lost.
        """
        self.detach(subscriber)
        self.reclaim(subscriber, State.READY, *(() if keeps_leases else (State.LEASED,)))
        if not keeps_leases:
            self.leases.pop(subscriber, None)
            self.detached.discard(subscriber)

    def held(self, subscriber: int, state: State) -> int:
        """How many slots are READY for a subscriber, or LEASED by it."""
        return sum(holders.get(subscriber) is state for holders in self.holders.values())

    def lag(self, subscriber: int) -> int:
        """Batches that a subscriber is behind the foremost."""
        if subscriber not in self.cursor.firsts:
            return 0
        ready = [self.held(one, State.READY) for one in self.cursor.firsts]
        return self.held(subscriber, State.READY) - min(ready)

    def blocking(self) -> list[int]:
        """The subscribers for whom half or more of the ring is ready while no slot is free."""
        if self.slots.count(State.FREE):
            return []
        unread = sum(State.READY in holders.values() for holders in self.holders.values())
        in_use = unread + len(self.partial)
        ready = {one: self.held(one, State.READY) for one in self.cursor.firsts}
        return [one for one, count in ready.items() if count and 2 * count >= in_use]

    # -- slots -------------------------------------------------------------------------

    def give(self, batch: PartialBatch) -> Iterable[int]:
        """Those who get a batch that is finished; without any its slot is free at once."""
        firsts = self.cursor.firsts.items()
        readers = [subscriber for subscriber, first in firsts if first <= batch.place]
        if not readers:
            self.apply(batch.slot, Event.RELEASE)
            return ()
        self.finished[batch.slot] = batch
        self.holders[batch.slot] = dict.fromkeys(readers, State.READY)
        return readers

    def take(self, slot: int, subscriber: int) -> None:
        """A subscriber has taken a batch; one that was taken back from it does not count."""
        held = self._held(slot, subscriber)
        if held is None:
            return
        if held is not State.READY:
            raise IllegalTransition(f"slot {slot} is {held.name}, which allows no TAKE")
        self.holders[slot][subscriber] = State.LEASED
        self.cursor.taken += 1
        if self.slots[slot] is State.READY:
            self.apply(slot, Event.TAKE)

    def release(self, slot: int, subscriber: int) -> None:
        """A subscriber has released a slot, which is free when nobody else holds it."""
        if self._held(slot, subscriber) is not None:
            self._drop(slot, subscriber)

    def _held(self, slot: int, subscriber: int) -> State | None:
        held = self.holders.get(slot, {}).get(subscriber)
        if held is None and subscriber not in self.detached:
            raise IllegalTransition(f"slot {slot} is not held by subscriber {subscriber}")
        return held

    def _drop(self, slot: int, subscriber: int) -> None:
        holders = self.holders[slot]
        del holders[subscriber]
        if not holders:
            del self.holders[slot], self.finished[slot]
            self.apply(slot, Event.RELEASE)
