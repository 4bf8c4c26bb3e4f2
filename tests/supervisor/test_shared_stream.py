"""A stream with several subscribers, fed with histories: who gets what, and when a slot is free."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from loaderd.errors import OutOfStep, ProtocolError
from loaderd.ipc.messages import Join, Joined
from loaderd.ipc.prefetch import WHOLE, Place
from loaderd.supervisor.actions import Action, Assign, Deliver, Fail
from loaderd.supervisor.cursor import COLD
from loaderd.supervisor.scheduler import Scheduler
from loaderd.supervisor.shared_stream import MOVING, SharedStream
from loaderd.supervisor.slots import State
from loaderd.supervisor.stream_shape import Shape

STREAM = 1
BATCHES = 5


class Sharers:
    """A scheduler with one worker and one shared stream, and subscribers that take what comes."""

    def __init__(self, slots: int = 6, batches: int = BATCHES) -> None:
        self.scheduler = Scheduler()
        self.tickets: list[int] = []
        self.ready: dict[int, dict[Place, int]] = {}
        self.leased: dict[int, dict[Place, int]] = {}
        self.errors: list[tuple[int, Place]] = []
        self.places: list[Place] = []
        self.perform(self.scheduler.worker_up(9))
        shape = Shape(samples=3 * batches, batch_size=3, slots=slots)
        self.perform(self.scheduler.open(STREAM, shape, WHOLE, is_shared=True))

    @property
    def stream(self) -> SharedStream:
        stream = self.scheduler.streams[STREAM]
        assert isinstance(stream, SharedStream)
        return stream

    def perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Assign(_, chunk):
                    self.tickets.append(chunk.ticket)
                    place = (chunk.epoch, chunk.position)
                    if place not in self.places:
                        self.places.append(place)
                case Deliver(subscriber, slot, place):
                    assert place not in self.ready[subscriber], "delivered twice"
                    self.ready[subscriber][place] = slot
                case Fail(subscriber, slot, place):
                    self.errors.append((subscriber, place))
                    self.ready[subscriber][place] = slot

    def join(self, subscriber: int, join: Join = "epoch", place: Place = (0, 0)) -> Joined:
        joined = self.stream.join(subscriber, join, place)
        self.ready[subscriber], self.leased[subscriber] = {}, {}
        self.perform(self.stream.catch_up(subscriber))
        self.perform(self.scheduler.go_on())
        return joined

    def work(self, chunks: int = 100) -> None:
        """The worker does what it has, and what follows."""
        for _ in range(min(chunks, 100)):
            if self.tickets:
                self.perform(self.scheduler.done(9, self.tickets.pop(0), 1000))

    def take(self, subscriber: int, place: Place) -> None:
        slot = self.ready[subscriber].pop(place)
        self.leased[subscriber][place] = slot
        self.perform(self.scheduler.took(STREAM, (slot,), (), subscriber))

    def release(self, subscriber: int, place: Place) -> None:
        slot = self.leased[subscriber].pop(place)
        self.perform(self.scheduler.took(STREAM, (), (slot,), subscriber))

    def read(self, subscriber: int, batches: int) -> list[Place]:
        """Takes and releases what comes next, as often."""
        found = []
        for _ in range(batches):
            self.work()
            place = min(self.ready[subscriber])
            self.take(subscriber, place)
            self.release(subscriber, place)
            found.append(place)
        self.work()
        return found

    def change(self, change: Callable[[SharedStream], None]) -> None:
        change(self.stream)
        self.perform(self.scheduler.go_on())


def run(first: int, count: int) -> list[Place]:
    return [divmod(number, BATCHES) for number in range(first, first + count)]


def test_every_batch_is_made_once_and_delivered_to_all() -> None:
    sharers = Sharers()
    for subscriber in (1, 2, 3):
        assert sharers.join(subscriber).first == (0, 0)
    for batch in range(12):
        for subscriber in (1, 2, 3):
            assert sharers.read(subscriber, 1) == run(batch, 1)
    assert sharers.places == run(0, len(sharers.places))


def test_nothing_is_made_without_subscribers_and_little_before_one_reads() -> None:
    sharers = Sharers()
    sharers.work()
    assert sharers.places == []
    sharers.join(1)
    sharers.work()
    assert sharers.places == run(0, COLD)


def test_a_slot_is_free_when_the_last_has_released_it() -> None:
    sharers = Sharers()
    sharers.join(1)
    sharers.join(2)
    sharers.work()
    sharers.take(1, (0, 0))
    sharers.release(1, (0, 0))
    slot = sharers.ready[2][(0, 0)]
    assert sharers.stream.slots[slot] is not State.FREE
    sharers.take(2, (0, 0))
    assert sharers.stream.slots[slot] is State.LEASED
    sharers.release(2, (0, 0))
    sharers.work()
    assert slot not in sharers.leased[2].values()
    assert (0, 5 % BATCHES) not in sharers.ready[1]
    assert sharers.stream.places[slot] > (0, 0)


def test_one_that_does_not_read_stops_the_others_after_as_many_batches_as_there_are_slots() -> None:
    sharers = Sharers(slots=6)
    sharers.join(1)
    sharers.join(2)
    assert sharers.read(1, 6) == run(0, 6)
    assert sharers.ready[1] == {}
    assert sharers.stream.blocking() == [2]
    assert (sharers.stream.lag(2), sharers.stream.lag(1)) == (6, 0)


def test_a_detached_one_gives_back_what_it_has_not_read_and_keeps_what_it_has_leased() -> None:
    sharers = Sharers(slots=6)
    sharers.join(1)
    sharers.join(2)
    sharers.work()
    sharers.take(2, (0, 0))
    kept = sharers.leased[2][(0, 0)]
    sharers.read(1, 6)
    sharers.change(lambda stream: stream.detach(2))
    assert sharers.stream.held(2, State.READY) == 5
    sharers.change(lambda stream: stream.reclaim(2, State.READY))
    assert sharers.read(1, 20) == run(6, 20)
    assert sharers.stream.slots[kept] is State.LEASED
    sharers.release(2, (0, 0))
    sharers.read(1, 6)
    assert kept in sharers.stream.places or sharers.stream.slots[kept] is not State.LEASED


def test_what_a_detached_one_says_of_slots_that_were_taken_back_counts_for_nothing() -> None:
    sharers = Sharers(slots=6)
    sharers.join(1)
    sharers.join(2)
    sharers.read(1, 6)
    sharers.change(lambda stream: stream.detach(2))
    sharers.change(lambda stream: stream.reclaim(2, State.READY))
    sharers.work()
    slots = tuple(sharers.ready[2].values())
    sharers.perform(sharers.scheduler.took(STREAM, slots[:1], slots, 2))
    assert sharers.read(1, 6) == run(6, 6)


def test_the_slots_of_a_dead_one_are_free_at_once() -> None:
    sharers = Sharers(slots=6)
    sharers.join(1)
    sharers.join(2)
    sharers.work()
    sharers.take(2, (0, 0))
    sharers.read(1, 6)
    sharers.change(lambda stream: stream.leave(2, keeps_leases=False))
    assert sharers.stream.slots.count(State.LEASED) == 0
    assert sharers.read(1, 20) == run(6, 20)


def test_the_leases_of_one_that_was_dropped_alive_stay() -> None:
    sharers = Sharers(slots=6)
    sharers.join(1)
    sharers.join(2)
    sharers.work()
    sharers.take(2, (0, 0))
    sharers.change(lambda stream: stream.leave(2, keeps_leases=True))
    sharers.read(1, 20)
    assert sharers.stream.slots[sharers.leased[2][(0, 0)]] is State.LEASED


def test_a_late_one_begins_with_the_epoch_that_still_lies_in_the_ring_or_with_the_next() -> None:
    sharers = Sharers(slots=6)
    sharers.join(1)
    sharers.read(1, 2)
    assert sharers.join(2).first == (1, 0)
    sharers.read(1, 3)
    assert sharers.join(3).first == (1, 0)
    assert sharers.read(3, 1) == [(1, 0)]


def test_all_who_join_before_one_has_read_begin_together_however_short_an_epoch_is() -> None:
    sharers = Sharers(batches=1)
    sharers.join(1)
    sharers.work()
    assert sharers.join(2).first == (0, 0)


def test_one_that_joins_now_gets_the_next_that_is_begun() -> None:
    sharers = Sharers(slots=6)
    sharers.join(1)
    sharers.read(1, 2)
    head = sharers.places[-1]
    first = sharers.join(2, "now").first
    assert first > head
    sharers.read(1, 4)
    assert min(sharers.ready[2]) == first


def test_one_that_joins_now_does_not_wait_for_those_who_have_not_begun() -> None:
    sharers = Sharers(slots=6)
    sharers.join(1)
    sharers.work()
    first = sharers.join(2, "now").first
    assert sharers.read(2, 4) == run(first[1], 4)
    assert sharers.stream.blocking() == [1]


def test_one_joins_again_where_it_is_if_the_stream_is_near() -> None:
    sharers = Sharers(slots=6)
    sharers.join(1)
    sharers.read(1, 20)  # 20 to 25 lie in the ring
    assert sharers.join(2, "place", divmod(22, BATCHES)).first == divmod(22, BATCHES)
    assert sorted(sharers.ready[2]) == run(22, 4)
    assert sharers.join(3, "place", divmod(18, BATCHES)).first == divmod(20, BATCHES)
    for far in (16, 40):
        with pytest.raises(OutOfStep):
            sharers.join(4, "place", divmod(far, BATCHES))


def test_batches_that_nobody_waits_for_are_passed_over() -> None:
    sharers = Sharers(slots=6)
    sharers.join(1)
    sharers.read(1, 2)
    sharers.join(2)
    sharers.change(lambda stream: stream.leave(1, keeps_leases=False))
    sharers.work()
    assert sorted(sharers.ready[2])[0] == (1, 0)
    assert (1, 0) in sharers.places


def test_a_failed_batch_is_told_to_all() -> None:
    sharers = Sharers()
    sharers.join(1)
    sharers.join(2)
    sharers.perform(sharers.scheduler.failed(9, sharers.tickets.pop(0), "BadImage", "x.jpg"))
    assert sharers.errors == [(1, (0, 0)), (2, (0, 0))]
    for subscriber in (1, 2):
        sharers.take(subscriber, (0, 0))
        sharers.release(subscriber, (0, 0))
    assert sharers.stream.errors == 1
    assert sharers.read(1, 3) == run(1, 3)


def test_leases_leave_the_ring_enough_slots_to_move() -> None:
    sharers = Sharers(slots=8)
    leases = [sharers.join(subscriber).leases for subscriber in range(1, 6)]
    assert leases == [2, 2, 1, 0, 0]
    assert sum(leases) + MOVING == 8
    sharers.change(lambda stream: stream.leave(1, keeps_leases=False))
    assert sharers.join(6).leases == 2


def test_nobody_sends_a_shared_stream_elsewhere() -> None:
    sharers = Sharers()
    sharers.join(1)
    with pytest.raises(ProtocolError, match="own order"):
        sharers.scheduler.plan(STREAM, ((3, 0),), None)


def test_a_slot_that_is_not_held_can_be_neither_taken_nor_released() -> None:
    sharers = Sharers()
    sharers.join(1)
    sharers.join(2)
    sharers.work()
    sharers.take(1, (0, 0))
    slot = sharers.leased[1][(0, 0)]
    for taken, released in (((slot,), ()), ((5,), ()), ((), (5,))):
        with pytest.raises(ProtocolError):
            sharers.scheduler.took(STREAM, taken, released, 1)


class SharingMachine(RuleBasedStateMachine):
    """Subscribers that come, read, sleep, are detached and die, in any order."""

    @initialize(slots=st.integers(4, 8), batches=st.integers(1, 5))
    def begin(self, slots: int, batches: int) -> None:
        self.sharers = Sharers(slots, batches)
        self.batches = batches
        self.number = 0
        self.next: dict[int, Place] = {}
        """The batch that each subscriber that is not detached gets next."""
        self.detached: set[int] = set()

    def after(self, place: Place) -> Place:
        epoch, position = place
        return (epoch, position + 1) if position + 1 < self.batches else (epoch + 1, 0)

    @rule(join=st.sampled_from(get_args(Join)[:2]))
    @precondition(lambda self: len(self.next) < 4)
    def join(self, join: Join) -> None:
        self.number += 1
        self.next[self.number] = self.sharers.join(self.number, join).first

    @rule(data=st.data(), near=st.integers(-3, 3))
    @precondition(lambda self: self.next and len(self.next) < 4)
    def join_at_a_place(self, data: st.DataObject, near: int) -> None:
        epoch, position = data.draw(st.sampled_from(sorted(self.next.values())))
        place = divmod(max(0, epoch * self.batches + position + near), self.batches)
        self.number += 1
        try:
            self.next[self.number] = self.sharers.join(self.number, "place", place).first
        except OutOfStep:
            return
        assert self.next[self.number] >= place

    @rule(chunks=st.integers(1, 9))
    def work(self, chunks: int) -> None:
        self.sharers.work(chunks)

    @rule(data=st.data())
    @precondition(lambda self: any(self.can_read()))
    def take(self, data: st.DataObject) -> None:
        """In order; a lease beyond those that are allowed is a copy."""
        subscriber = data.draw(st.sampled_from(self.can_read()))
        place = self.next[subscriber]
        self.next[subscriber] = self.after(place)
        self.sharers.take(subscriber, place)
        if len(self.sharers.leased[subscriber]) > self.sharers.stream.leases[subscriber]:
            self.sharers.release(subscriber, place)

    def can_read(self) -> list[int]:
        ready = self.sharers.ready
        return [one for one, place in self.next.items() if place in ready[one]]

    @rule(data=st.data())
    @precondition(lambda self: any(self.sharers.leased.values()))
    def release(self, data: st.DataObject) -> None:
        leased = [(one, place) for one, held in self.sharers.leased.items() for place in held]
        self.sharers.release(*data.draw(st.sampled_from(sorted(leased))))

    @rule(data=st.data(), at_once=st.booleans())
    @precondition(lambda self: self.next)
    def detach(self, data: st.DataObject, at_once: bool) -> None:
        subscriber = data.draw(st.sampled_from(sorted(self.next)))
        del self.next[subscriber]
        self.detached.add(subscriber)
        self.sharers.change(lambda stream: stream.detach(subscriber))
        if at_once:
            self.sharers.change(lambda stream: stream.reclaim(subscriber, State.READY))
        else:
            slots = tuple(self.sharers.ready[subscriber].values())
            self.sharers.perform(self.sharers.scheduler.took(STREAM, (), slots, subscriber))
        self.sharers.ready[subscriber].clear()

    @rule(data=st.data())
    @precondition(lambda self: self.next or self.detached)
    def die(self, data: st.DataObject) -> None:
        subscriber = data.draw(st.sampled_from(sorted({*self.next, *self.detached})))
        self.next.pop(subscriber, None)
        self.detached.discard(subscriber)
        self.sharers.ready.pop(subscriber)
        self.sharers.leased.pop(subscriber)
        self.sharers.change(lambda stream: stream.leave(subscriber, keeps_leases=False))

    @invariant()
    def places_are_made_in_order_and_once(self) -> None:
        places = self.sharers.places
        assert places == sorted(set(places))

    @invariant()
    def no_slot_is_written_while_somebody_holds_it(self) -> None:
        sharers = self.sharers
        for held in (*sharers.ready.values(), *sharers.leased.values()):
            for place, slot in held.items():
                assert sharers.stream.finished[slot].place == place
                assert sharers.stream.slots[slot] in (State.READY, State.LEASED)

    @invariant()
    def a_slot_that_nobody_holds_is_free_or_filled(self) -> None:
        sharers = self.sharers
        held = {
            slot
            for slots in (*sharers.ready.values(), *sharers.leased.values())
            for slot in slots.values()
        }
        in_use = {
            slot for slot in range(len(sharers.stream.slots)) if slot in sharers.stream.finished
        }
        assert in_use == held

    @invariant()
    def some_slots_are_never_leased(self) -> None:
        leased = {slot for held in self.sharers.leased.values() for slot in held.values()}
        assert len(leased) <= max(0, len(self.sharers.stream.slots) - MOVING)

    def teardown(self) -> None:
        """Whoever is left gets every batch, if all of them read."""
        if not hasattr(self, "next"):
            return
        for _ in range(40):
            self.sharers.work()
            for subscriber in self.can_read():
                place = self.next[subscriber]
                self.next[subscriber] = self.after(place)
                self.sharers.take(subscriber, place)
                self.sharers.release(subscriber, place)
        ends = [epoch * self.batches + position for epoch, position in self.next.values()]
        assert not ends or max(ends) - min(ends) <= len(self.sharers.stream.slots)
        assert not ends or len(self.sharers.places) >= 20


def test_many_histories() -> None:
    run_state_machine_as_test(
        SharingMachine, settings=settings(max_examples=150, stateful_step_count=40, deadline=None)
    )
