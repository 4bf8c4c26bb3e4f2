"""The scheduler, fed with histories: deaths, late reports, plans, releases in any order."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from loaderd.daemon.actions import Action, Assign, Death, Deliver, Dismiss, Isolate, Spoil
from loaderd.daemon.scheduler import (
    CRASHES,
    KILLS,
    LONGEST_NS,
    QUEUED,
    SHORTEST_NS,
    Scheduler,
)
from loaderd.daemon.shape import Shape
from loaderd.daemon.slots import State
from loaderd.errors import ProtocolError
from loaderd.wire.messages import Chunk, Place


class Machine(RuleBasedStateMachine):
    """A supervisor with invented workers and clients, and what must hold for them."""

    steps = 0
    """Of all machines since the first."""

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        self.scheduler = Scheduler()
        self.held: dict[int, list[Chunk]] = {}
        self.written: dict[tuple[int, int], set[int]] = {}
        self.hands: dict[int, dict[int, Place]] = {}
        self.leased: dict[int, dict[int, Place]] = {}
        self.spoilt: set[tuple[int, int]] = set()
        self.blamed: dict[tuple[int, int, Place, int], int] = {}
        self.retired: set[int] = set()
        self.slow: set[int] = set()
        self.past: list[int] = []
        self.next_id = 0
        self.open(data)
        self.worker_up()

    def perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Assign(worker, chunk):
                    assert worker not in self.retired | self.slow
                    self.check_chunk(chunk)
                    self.held[worker].append(chunk)
                    self.past.append(chunk.ticket)
                case Deliver(stream, slot, place, _):
                    self.check_whole(stream, slot, place)
                    self.hands[stream][slot] = place
                case Isolate(stream, place, row, _):
                    assert self.crashes_over(stream, place, row) >= CRASHES + 1
                case Dismiss(worker):
                    assert worker in self.retired
                    assert not self.held.pop(worker)
                    self.retired.remove(worker)
                    self.perform(self.scheduler.worker_down(worker, Death.KILLED))
                case Spoil(stream, slot, place, _):
                    assert (stream, slot) in self.spoilt
                    self.hands[stream][slot] = place
                    self.written.pop((stream, slot), None)

    def crashes_over(self, stream: int, place: Place, row: int) -> int:
        return sum(
            count
            for (_, of, where, at), count in self.blamed.items()
            if (of, where, at) == (stream, place, row)
        )

    def check_chunk(self, chunk: Chunk) -> None:
        """Nobody else writes these rows, and nobody reads the slot."""
        assert chunk.slot not in self.hands[chunk.stream]
        assert chunk.slot not in self.leased[chunk.stream]
        for other in (chunk for held in self.held.values() for chunk in held):
            if (other.stream, other.slot) == (chunk.stream, chunk.slot):
                assert other.last <= chunk.first or chunk.last <= other.first
                assert (other.epoch, other.position) == (chunk.epoch, chunk.position)

    def check_whole(self, stream: int, slot: int, place: Place) -> None:
        """A delivered batch has every row, written once or again after a death."""
        shape = self.scheduler.streams[stream].shape
        assert self.written.pop((stream, slot)) == set(range(shape.rows(place[1])))
        assert place not in self.hands[stream].values()

    @rule(data=st.data())
    @precondition(lambda self: len(self.hands) < 3)
    def open(self, data: st.DataObject) -> None:
        shape = Shape(
            samples=data.draw(st.integers(1, 40)),
            batch_size=data.draw(st.integers(1, 9)),
            slots=data.draw(st.integers(4, 7)),
        )
        start = (data.draw(st.integers(0, 2)), data.draw(st.integers(0, shape.batches - 1)))
        self.next_id += 1
        self.hands[self.next_id], self.leased[self.next_id] = {}, {}
        self.perform(self.scheduler.open(self.next_id, shape, start))

    @rule(data=st.data())
    @precondition(lambda self: self.hands)
    def close(self, data: st.DataObject) -> None:
        stream = data.draw(st.sampled_from(sorted(self.hands)))
        del self.hands[stream], self.leased[stream]
        self.perform(self.scheduler.close(stream))

    @rule()
    @precondition(lambda self: len(self.held) < 4)
    def worker_up(self) -> None:
        self.next_id += 1
        self.held[self.next_id] = []
        self.perform(self.scheduler.worker_up(self.next_id))

    @rule(data=st.data(), death=st.sampled_from(Death))
    @precondition(lambda self: self.held)
    def worker_down(self, data: st.DataObject, death: Death) -> None:
        worker = data.draw(st.sampled_from(sorted(self.held)))
        lost = self.held.pop(worker)
        self.retired.discard(worker)
        self.slow.discard(worker)
        for chunk in lost[:1]:
            self.spoilt.add((chunk.stream, chunk.slot))
            if death is Death.CRASHED:
                self.blame(chunk)
        self.perform(self.scheduler.worker_down(worker, death, "invented"))

    def blame(self, chunk: Chunk) -> None:
        for row in range(chunk.first, chunk.last):
            key = (chunk.slot, chunk.stream, (chunk.epoch, chunk.position), row)
            self.blamed[key] = self.blamed.get(key, 0) + 1

    @rule(data=st.data())
    @precondition(lambda self: self.held)
    def recall(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.held)))
        tickets = {chunk.ticket for chunk in self.held[worker][1:]}
        self.held[worker] = self.held[worker][:1]
        if self.held[worker]:
            self.slow.add(worker)
        self.perform(self.scheduler.recall(worker, tickets))

    @rule(data=st.data())
    @precondition(lambda self: len(self.held) > 1)
    def retire(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.held)))
        if worker not in self.retired:
            self.retired.add(worker)
            self.perform(self.scheduler.retire(worker))

    @rule(data=st.data())
    @precondition(lambda self: any(self.held.values()))
    def done(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(w for w, held in self.held.items() if held)))
        self.finish(worker, data.draw(st.integers(1, 10**9)))

    def finish(self, worker: int, total_ns: int) -> None:
        chunk = self.held[worker].pop(0)
        self.slow.discard(worker)
        if chunk.stream in self.hands:
            rows = self.written.setdefault((chunk.stream, chunk.slot), set())
            rows.update(range(chunk.first, chunk.last))
        self.perform(self.scheduler.done(worker, chunk.ticket, total_ns))

    @rule(data=st.data())
    @precondition(lambda self: any(self.held.values()))
    def spoil(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(w for w, held in self.held.items() if held)))
        chunk = self.held[worker].pop(0)
        self.slow.discard(worker)
        self.spoilt.add((chunk.stream, chunk.slot))
        self.perform(self.scheduler.spoilt(worker, chunk.ticket, "BadImage", "x.jpg"))

    @rule(data=st.data(), lease=st.booleans())
    @precondition(lambda self: any(self.hands.values()))
    def take(self, data: st.DataObject, lease: bool) -> None:
        stream = data.draw(st.sampled_from(sorted(s for s, hand in self.hands.items() if hand)))
        slot = data.draw(st.sampled_from(sorted(self.hands[stream])))
        place = self.hands[stream].pop(slot)
        if lease:
            self.leased[stream][slot] = place
            self.perform(self.scheduler.took(stream, (slot,), ()))
        else:
            self.perform(self.scheduler.took(stream, (), (slot,)))

    @rule(data=st.data())
    @precondition(lambda self: any(self.leased.values()))
    def release(self, data: st.DataObject) -> None:
        stream = data.draw(st.sampled_from(sorted(s for s, some in self.leased.items() if some)))
        slot = data.draw(st.sampled_from(sorted(self.leased[stream])))
        del self.leased[stream][slot]
        self.perform(self.scheduler.took(stream, (), (slot,)))

    @rule(data=st.data(), rerun=st.booleans())
    @precondition(lambda self: self.hands)
    def plan(self, data: st.DataObject, rerun: bool) -> None:
        stream = data.draw(st.sampled_from(sorted(self.hands)))
        shape = self.scheduler.streams[stream].shape
        places = st.tuples(st.integers(0, 3), st.integers(0, shape.batches - 1))
        want = tuple(data.draw(st.lists(places, max_size=3)))
        self.perform(self.scheduler.plan(stream, want, data.draw(places) if rerun else None))

    @rule(data=st.data())
    @precondition(lambda self: self.held)
    def a_late_report_counts_for_nothing(self, data: st.DataObject) -> None:
        """Of a chunk that is done already, or that others do by now."""
        worker = data.draw(st.sampled_from(sorted(self.held)))
        due = {chunk.ticket for chunk in self.held[worker][:1]}
        ticket = data.draw(st.sampled_from([0, *self.past]).filter(lambda one: one not in due))
        with pytest.raises(ProtocolError):
            self.scheduler.done(worker, ticket, 1)

    @invariant()
    def steps_are_counted(self) -> None:
        Machine.steps += 1

    @invariant()
    def who_gets_nothing_has_something_to_report(self) -> None:
        for worker in getattr(self, "slow", ()):
            assert self.held[worker]

    @invariant()
    def no_slot_has_two_owners(self) -> None:
        for stream, hand in getattr(self, "hands", {}).items():
            slots = self.scheduler.streams[stream].slots
            for slot in range(len(slots)):
                assert (slots[slot] is State.READY) == (slot in hand)
                assert (slots[slot] is State.LEASED) == (slot in self.leased[stream])

    @invariant()
    def nobody_rests_while_there_is_work(self) -> None:
        held = getattr(self, "held", {})
        if any(len(held[worker]) < QUEUED for worker in held.keys() - self.retired - self.slow):
            for stream in self.scheduler.streams.values():
                assert stream.slots.count(State.FREE) == 0 or self.scheduler._draining
                assert not stream.redo

    @rule(data=st.data())
    @precondition(lambda self: self.hands)
    def reconnect(self, data: st.DataObject) -> None:
        """A client that lost its connection opens the same stream again, at some place."""
        stream = data.draw(st.sampled_from(sorted(self.hands)))
        shape = self.scheduler.streams[stream].shape
        place = (data.draw(st.integers(0, 2)), data.draw(st.integers(0, shape.batches - 1)))
        del self.hands[stream], self.leased[stream]
        self.perform(self.scheduler.close(stream))
        self.next_id += 1
        self.hands[self.next_id], self.leased[self.next_id] = {}, {}
        self.perform(self.scheduler.open(self.next_id, shape, place))

    def teardown(self) -> None:
        """Whatever has happened: from here on an epoch arrives, each batch of it once."""
        if not getattr(self, "hands", None):
            return
        self.worker_up()
        missing = {stream: self.ask_for_an_epoch(stream) for stream in self.hands}
        for _ in range(10_000):
            for stream, hand in self.hands.items():
                for slot, place in list(hand.items()):
                    missing[stream].discard(place)
                    self.hand_back(stream, slot)
            if not any(missing.values()):
                return
            self.finish_a_chunk()
        raise AssertionError(f"batches that never come: {missing}")

    def ask_for_an_epoch(self, stream: int) -> set[Place]:
        for slot in list(self.leased[stream]):
            del self.leased[stream][slot]
            self.perform(self.scheduler.took(stream, (), (slot,)))
        self.perform(self.scheduler.plan(stream, (), (9, 0)))
        return {(9, position) for position in range(self.scheduler.streams[stream].shape.batches)}

    def hand_back(self, stream: int, slot: int) -> None:
        del self.hands[stream][slot]
        self.perform(self.scheduler.took(stream, (), (slot,)))

    def finish_a_chunk(self) -> None:
        """The one that was given first."""
        ticket_of = {held[0].ticket: worker for worker, held in self.held.items() if held}
        self.finish(ticket_of[min(ticket_of)], 1000)


TestHistories = Machine.TestCase
TestHistories.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_great_many_histories() -> None:
    many = settings(max_examples=500, stateful_step_count=100, deadline=None)
    began = Machine.steps
    while Machine.steps - began < 10**5:
        run_state_machine_as_test(Machine, settings=many)


def run_to_end(scheduler: Scheduler, worker: int, actions: list[Action]) -> list[Place]:
    """One obedient worker and a client that takes and releases at once."""
    order: list[Place] = []
    todo = list(actions)
    while todo and len(order) < 12:
        match todo.pop(0):
            case Assign(_, chunk):
                todo += scheduler.done(worker, chunk.ticket, 1)
            case Deliver(stream, slot, place, _):
                order.append(place)
                todo += scheduler.took(stream, (slot,), (slot,))
    return order


def test_a_stream_gives_every_batch_in_order_and_goes_on_into_the_next_epoch() -> None:
    scheduler = Scheduler()
    scheduler.worker_up(1)
    actions = scheduler.open(7, Shape(samples=10, batch_size=2, slots=4), (0, 0))
    expected = [(epoch, position) for epoch in range(3) for position in range(5)]
    assert run_to_end(scheduler, 1, actions) == expected[:12]


def test_a_wanted_batch_comes_before_the_run_and_only_once() -> None:
    scheduler = Scheduler()
    actions = scheduler.open(7, Shape(samples=100, batch_size=2, slots=4), (0, 0))
    actions += scheduler.plan(7, ((0, 40),), (0, 41))
    actions += scheduler.worker_up(1)
    assert run_to_end(scheduler, 1, actions)[:3] == [(0, 40), (0, 41), (0, 42)]


@dataclass
class Killer:
    """Workers one after the other, which die over one sample; the client takes all."""

    row: int
    death: Death = Death.CRASHED
    isolates: bool = True
    deaths: int = 0
    isolated: list[Isolate] = field(default_factory=list)
    spoilt: list[Spoil] = field(default_factory=list)
    delivered: list[Deliver] = field(default_factory=list)
    tried: list[tuple[int, int]] = field(default_factory=list)

    def run(self, shape: Shape, batches: int = 1) -> None:
        scheduler = Scheduler()
        todo = scheduler.open(7, shape, (0, 0)) + scheduler.worker_up(1)
        worker = 1
        while len(self.delivered) + len(self.spoilt) < batches:
            action = todo.pop(0)
            match action:
                case Assign(to, chunk) if to == worker:
                    self.tried.append((chunk.first, chunk.last))
                    if self.kills(chunk):
                        self.deaths += 1
                        todo = scheduler.worker_down(worker, self.death, "SIGSEGV")
                        worker += 1
                        todo += scheduler.worker_up(worker)
                    else:
                        todo += scheduler.done(worker, chunk.ticket, 1)
                case Deliver():
                    self.delivered.append(action)
                case Spoil():
                    self.spoilt.append(action)
                case Isolate():
                    self.isolated.append(action)

    def kills(self, chunk: Chunk) -> bool:
        known = self.isolated and self.isolates
        return (
            (chunk.epoch, chunk.position) == (0, 0)
            and not known
            and (chunk.first <= self.row < chunk.last)
        )


def test_a_sample_that_crashes_its_workers_is_tried_alone_and_then_isolated() -> None:
    killer = Killer(row=2)
    killer.run(Shape(samples=8, batch_size=4, slots=4), batches=2)
    assert killer.deaths == CRASHES + 1
    (isolate,) = killer.isolated
    assert (isolate.place, isolate.row, isolate.cause) == ((0, 0), 2, "SIGSEGV")
    assert [one.place for one in killer.delivered] == [(0, 0), (0, 1)]
    assert killer.tried[:2] == [(0, 4), (0, 4)]
    assert {(0, 1), (1, 2), (2, 3), (3, 4)} <= set(killer.tried)


def test_a_sample_that_crashes_workers_though_it_is_isolated_is_an_error() -> None:
    killer = Killer(row=2, isolates=False)
    killer.run(Shape(samples=8, batch_size=4, slots=4))
    (spoil,) = killer.spoilt
    assert spoil.error.kind == "WorkerCrashed"
    assert (spoil.error.first, spoil.error.last) == (2, 3)


def test_the_chunk_of_a_killed_worker_comes_back_in_halves() -> None:
    killer = Killer(row=3, death=Death.KILLED)
    killer.run(Shape(samples=8, batch_size=8, slots=4))
    assert killer.deaths == KILLS
    assert not killer.isolated
    (spoil,) = killer.spoilt
    assert "memory" in spoil.error.text
    assert killer.tried[:2] == [(0, 8), (0, 4)]
    assert (3, 4) in killer.tried


def test_workers_that_die_before_they_can_begin_isolate_nothing() -> None:
    killer = Killer(row=0, death=Death.ATTACHING)
    killer.run(Shape(samples=8, batch_size=8, slots=4))
    assert not killer.isolated
    assert killer.spoilt[0].error.kind == "WorkerCrashed"


def test_a_retired_worker_finishes_what_it_holds_and_goes() -> None:
    scheduler = Scheduler()
    scheduler.open(7, Shape(samples=100, batch_size=10, slots=4), (0, 0))
    first, second = (one.chunk.ticket for one in scheduler.worker_up(1) if isinstance(one, Assign))
    assert not scheduler.retire(1)
    assert not [one for one in scheduler.done(1, first, 1) if isinstance(one, Assign | Dismiss)]
    assert Dismiss(1) in scheduler.done(1, second, 1)


def test_rows_that_are_left_out_are_counted_with_their_batch() -> None:
    scheduler = Scheduler()
    scheduler.open(7, Shape(samples=4, batch_size=4, slots=4), (0, 0))
    first = next(one for one in scheduler.worker_up(1) if isinstance(one, Assign))
    out = scheduler.done(1, first.chunk.ticket, 1, skipped=3)
    assert [one.skipped for one in out if isinstance(one, Deliver)] == [3]


def test_the_chunk_in_hand_is_blamed_and_not_the_one_behind_it() -> None:
    scheduler = Scheduler()
    scheduler.open(7, Shape(samples=6, batch_size=6, slots=4), (0, 0))
    scheduler.worker_up(99)  # a second worker, so that the batch is cut in two
    isolated: list[Isolate] = []
    for worker in range(1, 9):
        assigned = [a for a in scheduler.worker_up(worker) if isinstance(a, Assign)]
        in_hand = assigned[0].chunk if assigned else None
        for action in scheduler.worker_down(worker, Death.CRASHED):
            if isinstance(action, Isolate):
                isolated.append(action)
                assert in_hand is not None
                assert (action.row, action.row + 1) == (in_hand.first, in_hand.last)
        if isolated:
            break
    assert isolated


def test_every_worker_has_a_chunk_queued_behind_the_one_in_hand() -> None:
    scheduler = Scheduler()
    scheduler.open(7, Shape(samples=100, batch_size=10, slots=4), (0, 0))
    assert len(scheduler.worker_up(1)) == 2


def test_a_chunk_over_which_workers_are_killed_again_and_again_is_given_up() -> None:
    scheduler = Scheduler()
    scheduler.open(7, Shape(samples=4, batch_size=4, slots=4), (0, 0))
    spoils: list[Action] = []
    for worker in range(1, KILLS + 1):
        scheduler.worker_up(worker)
        actions = scheduler.worker_down(worker, Death.KILLED)
        spoils += [action for action in actions if isinstance(action, Spoil)]
    assert len(spoils) == 1


def test_killed_workers_are_nobodys_fault() -> None:
    scheduler = Scheduler()
    scheduler.open(7, Shape(samples=4, batch_size=4, slots=4), (0, 0))
    for worker in range(1, KILLS):
        scheduler.worker_up(worker)
        assert not scheduler.worker_down(worker, Death.KILLED)


def test_the_emptier_ring_is_filled_first() -> None:
    scheduler = Scheduler()
    shape = Shape(samples=1000, batch_size=1, slots=8)
    todo = scheduler.open(1, shape, (0, 0)) + scheduler.worker_up(9)
    for _ in range(4):
        chunk = next(action.chunk for action in todo if isinstance(action, Assign))
        todo = [action for action in todo if getattr(action, "chunk", None) is not chunk]
        todo += scheduler.done(9, chunk.ticket, 1)
    todo = scheduler.open(2, shape, (0, 0))
    streams = []
    for _ in range(6):
        held = next(iter(scheduler._workers.values()))
        streams.append(held[0].chunk.stream)
        scheduler.done(9, held[0].chunk.ticket, 1)
    assert streams[2:] == [2, 2, 2, 2]


@pytest.mark.parametrize("place", [(-1, 0), (0, -1), (0, 5)])
def test_a_plan_for_a_batch_that_does_not_exist_is_refused(place: Place) -> None:
    scheduler = Scheduler()
    scheduler.open(7, Shape(samples=10, batch_size=2, slots=4), (0, 0))
    with pytest.raises(ProtocolError, match="no batch"):
        scheduler.plan(7, (place,), None)


class Workers:
    """Obedient workers, and trainers that take every batch at once unless told otherwise."""

    def __init__(self, workers: int) -> None:
        self.scheduler = Scheduler()
        self.queues: dict[int, list[Chunk]] = {number: [] for number in range(workers)}
        self.chunks: list[Chunk] = []
        self.delivered: list[tuple[int, Place]] = []
        self.taking = True
        for number in self.queues:
            self.perform(self.scheduler.worker_up(number))

    def perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Assign(worker, chunk):
                    self.queues[worker].append(chunk)
                    self.chunks.append(chunk)
                case Deliver(stream, slot, place, _):
                    self.delivered.append((stream, place))
                    if self.taking:
                        self.perform(self.scheduler.took(stream, (slot,), (slot,)))

    def open(self, stream: int, shape: Shape) -> None:
        self.perform(self.scheduler.open(stream, shape, (0, 0)))

    def work(self, rounds: int, row_ns: int) -> list[Chunk]:
        """Every worker does one chunk in each round; returns what was given out meanwhile."""
        before = len(self.chunks)
        for _ in range(rounds):
            for worker, queue in self.queues.items():
                if queue:
                    chunk = queue.pop(0)
                    spent = (chunk.last - chunk.first) * row_ns
                    self.perform(self.scheduler.done(worker, chunk.ticket, spent))
        return self.chunks[before:]


def sizes(chunks: list[Chunk]) -> set[int]:
    return {chunk.last - chunk.first for chunk in chunks}


BIG = Shape(samples=320_000, batch_size=32, slots=12)


@pytest.mark.parametrize(
    ("workers", "row_us", "rows"),
    [
        (1, 800, {11, 10}),  # 10 ms hold 12 rows: three chunks, as equal as can be
        (8, 800, {11, 10}),
        (16, 800, {8}),  # 32 chunks in 10 batches, as two slots are the trainer's
        (64, 800, {3, 2}),  # a chunk of one row would not be worth a message
        (4, 30, {32}),  # all of the batch takes less than 2 ms
        (2, 200, {32}),
        (8, 20_000, {1}),
    ],
)
def test_chunks_take_up_to_10_ms_and_leave_no_worker_without(
    workers: int, row_us: int, rows: set[int]
) -> None:
    crew = Workers(workers)
    crew.open(1, BIG)
    crew.work(5, row_us * 1000)
    assert sizes(crew.work(20, row_us * 1000)) <= rows


@given(workers=st.integers(1, 70), batch=st.integers(1, 300), row_us=st.integers(1, 30_000))
def test_no_chunk_is_longer_than_10_ms_or_shorter_than_2_ms_without_need(
    workers: int, batch: int, row_us: int
) -> None:
    crew = Workers(workers)
    crew.open(1, Shape(samples=batch * 1000, batch_size=batch, slots=150))
    crew.work(4, row_us * 1000)
    for size in sizes(crew.work(4, row_us * 1000)):
        assert size == 1 or size * row_us * 1000 <= LONGEST_NS
        assert size == batch or (size + 1) * row_us * 1000 > SHORTEST_NS


def test_chunks_follow_when_images_come_from_a_cache_and_when_they_no_longer_do() -> None:
    crew = Workers(4)
    crew.open(1, BIG)
    crew.work(20, 800_000)
    crew.work(20, 30_000)  # 20 batches of 10,000 that the epoch has
    assert sizes(crew.work(5, 30_000)) == {32}
    crew.work(10, 800_000)
    assert sizes(crew.work(5, 800_000)) == {11, 10}


def test_chunks_follow_a_mixture_of_cached_and_decoded_images() -> None:
    crew = Workers(4)
    crew.open(1, BIG)
    for _ in range(20):
        crew.work(1, 800_000)
        crew.work(1, 30_000)
    given_out = crew.work(1, 800_000) + crew.work(1, 30_000)
    middle = [size * 415_000 for size in sizes(given_out)]
    assert all(SHORTEST_NS <= spent <= 1.5 * LONGEST_NS for spent in middle)


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("slots", [(12, 12), (4, 13), (13, 103)])
def test_two_trainers_that_both_wait_take_turns_whatever_their_rings(
    workers: int, slots: tuple[int, int]
) -> None:
    crew = Workers(workers)
    for number, size in enumerate(slots, 1):
        crew.open(number, Shape(samples=320_000, batch_size=32, slots=size))
    crew.work(400, 800_000)
    counts = [sum(stream == number for stream, _ in crew.delivered) for number in (1, 2)]
    assert min(counts) > 0.6 * max(counts)  # chunk by chunk, and chunks differ in size


def test_a_stream_that_begins_is_served_next_though_another_is_starving() -> None:
    crew = Workers(4)
    crew.open(1, BIG)
    crew.work(20, 800_000)
    crew.open(2, BIG)
    assert crew.work(1, 800_000)[0].stream == 2


def test_no_worker_pauses_at_the_end_of_an_epoch() -> None:
    crew = Workers(4)
    crew.open(1, Shape(samples=100, batch_size=32, slots=6))
    for _ in range(50):  # an epoch is 4 batches, the last of 4 rows
        crew.work(1, 800_000)
        assert all(len(queue) == QUEUED for queue in crew.queues.values())


def test_all_workers_are_at_the_batch_that_is_needed_next() -> None:
    crew = Workers(4)
    crew.open(1, BIG)
    first = [chunk for chunk in crew.chunks if chunk.position == 0]
    assert [(chunk.first, chunk.last) for chunk in first] == [(0, 8), (8, 16), (16, 24), (24, 32)]
    assert all(queue[0].position == 0 for queue in crew.queues.values())


def test_what_is_queued_behind_a_slow_chunk_goes_to_others_and_blames_nobody() -> None:
    scheduler = Scheduler()
    scheduler.open(7, Shape(samples=100, batch_size=10, slots=4), (0, 0))
    first, second = (one.chunk for one in scheduler.worker_up(1) if isinstance(one, Assign))
    assert not scheduler.recall(1, {second.ticket})
    (again, *_) = (one.chunk for one in scheduler.worker_up(2) if isinstance(one, Assign))
    assert (again.slot, again.first, again.last) == (second.slot, second.first, second.last)
    out = scheduler.done(1, first.ticket, 1)
    assert [one.worker for one in out if isinstance(one, Assign)] == [1, 1]


def test_a_chunk_that_must_be_done_again_comes_before_the_batches_of_an_emptier_ring() -> None:
    scheduler = Scheduler()
    shape = Shape(samples=100, batch_size=1, slots=8)
    scheduler.open(1, shape, (0, 0))
    lost = next(one for one in scheduler.worker_up(8) if isinstance(one, Assign)).chunk
    todo = [one.chunk.ticket for one in scheduler.worker_up(9) if isinstance(one, Assign)]
    for _ in range(5):
        done = scheduler.done(9, todo.pop(0), 1)
        todo += [one.chunk.ticket for one in done if isinstance(one, Assign)]
    scheduler.open(2, shape, (0, 0))
    scheduler.worker_down(8, Death.CRASHED)
    again = [one.chunk for one in scheduler.done(9, todo.pop(0), 1) if isinstance(one, Assign)]
    assert (again[0].stream, again[0].position) == (lost.stream, lost.position)
