"""The scheduler, fed with histories: deaths, late reports, plans, releases in any order."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

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

from loaderd.errors import ProtocolError
from loaderd.ipc.messages import Chunk
from loaderd.ipc.prefetch import ROUND, WHOLE, Place, Run
from loaderd.supervisor.actions import Action, Assign, Death, Deliver, Dismiss, Fail, Isolate
from loaderd.supervisor.cursor import COLD
from loaderd.supervisor.scheduled_stream import (
    ATTACHES,
    CRASHES,
    KILLS,
    MAX_CHUNK_NS,
    MIN_CHUNK_NS,
)
from loaderd.supervisor.scheduler import Scheduler
from loaderd.supervisor.slots import State
from loaderd.supervisor.stream_shape import QUEUED, QUEUED_REMOTE, Shape


@dataclass(eq=False)
class Batch:
    """A batch that is being filled, as it should be."""

    place: Place
    rows: int
    given: int = 0
    """Rows that were given to workers, from the first on."""
    written: set[int] = field(default_factory=set)
    again: set[tuple[int, int]] = field(default_factory=set)
    """Rows, from and to, that must be given once more, in just these pieces."""
    crashes: Counter[int] = field(default_factory=Counter)
    """BusyWorkers that crashed over a row since it was isolated."""
    kills: Counter[int] = field(default_factory=Counter)
    isolated: set[int] = field(default_factory=set)
    stays: set[int] = field(default_factory=set)
    """Rows that only workers of this machine may make."""
    given_up: bool = False

    @property
    def to_give(self) -> bool:
        """Whether something of it is left for workers to begin."""
        return self.to_give_to(False)

    def to_give_to(self, is_remote: bool) -> bool:
        """Whether something of it is left for a worker of this machine, or of another one."""
        return self.again_by(is_remote) or (self.given < self.rows and not self.given_up)

    def again_by(self, is_remote: bool) -> bool:
        """Whether such a worker could make some of it once more."""
        return any(not (is_remote and first in self.stays) for first, _ in self.again)

    def give_up(self) -> None:
        self.given_up = True
        self.again.clear()

    def give(self, first: int, last: int) -> None:
        """What workers left undone comes as it was, anything else in the order of the rows."""
        assert not self.given_up
        if self.crashes[first] >= CRASHES:
            assert last == first + 1, "after so many crashes samples are tried one by one"
        if (first, last) in self.again:
            self.again.remove((first, last))
        else:
            assert first == self.given < last <= self.rows
            self.given = last

    def write(self, first: int, last: int) -> None:
        rows = set(range(first, last))
        assert not rows & self.written
        self.written |= rows

    def pieces(self, first: int, last: int) -> set[tuple[int, int]]:
        """How rows come again over which a worker died."""
        if self.crashes[first] >= CRASHES:
            return {(row, row + 1) for row in range(first, last)}
        if self.kills[first] and last > first + 1:
            middle = (first + last) // 2
            return {(first, middle), (middle, last)}
        return {(first, last)}


@dataclass
class Model:
    """What a stream must do: which batch is next, in which pieces, and how each ends."""

    shape: Shape
    run: Run
    taken: int = 0
    """Batches that the client has taken."""
    want: list[Place] = field(default_factory=list)
    filling: dict[int, Batch] = field(default_factory=dict)
    hands: dict[int, Place] = field(default_factory=dict)
    """What was delivered and not yet taken, by slot."""
    leased: dict[int, Place] = field(default_factory=dict)
    to_isolate: list[tuple[Place, int]] = field(default_factory=list)
    attaches: int = 0
    doubted: bool = False
    """Whether somebody waits for storage, and nothing of this stream has come back since."""
    ended: int = 0
    """Batches that were delivered, or reported as failed."""

    @property
    def coming(self) -> set[Place]:
        """What is not made once more: the client has it unread, or will."""
        return {batch.place for batch in self.filling.values()} | set(self.hands.values())

    @property
    def next(self) -> Place | None:
        """The batch that must be begun next."""
        coming = self.coming
        for place in self.want:
            if place not in coming:
                return place
        place_of_run = self.run.next
        cold = not self.taken and len(coming) >= min(COLD, self.shape.batches)
        if place_of_run is None or cold or self.waits_for_request:
            return None
        while place_of_run in coming:
            place_of_run = self.run.after(place_of_run)
        return place_of_run

    @property
    def waits_for_request(self) -> bool:
        """Whether the one batch of an epoch was read, and nobody has asked for more."""
        return self.shape.batches == 1 and self.taken == 1

    @property
    def near(self) -> list[Place]:
        """What comes, and where the run goes on: plans for these are the odd ones."""
        ahead = [self.run.next or (0, 0)]
        while len(ahead) < self.shape.slots:
            ahead.append(self.run.after(ahead[-1]))
        return sorted(self.coming) + ahead

    @property
    def full(self) -> bool:
        return len(self.filling) + len(self.hands) + len(self.leased) == self.shape.slots

    def to_give_to(self, is_remote: bool) -> bool:
        """Whether a worker could be given something."""
        begun = any(batch.to_give_to(is_remote) for batch in self.filling.values())
        return begun or not (self.full or self.next is None)

    def plan(self, want: tuple[Place, ...], run: Run | None) -> None:
        coming = self.coming
        self.want += [place for place in want if place not in coming]
        self.run = run or self.run

    def assign(self, chunk: Chunk, is_remote: bool) -> None:
        """What must be done again comes first, then the batch that is begun, then the next."""
        place = (chunk.epoch, chunk.position)
        again = any(batch.again_by(is_remote) for batch in self.filling.values())
        if chunk.slot not in self.filling:
            assert not any(batch.to_give_to(is_remote) for batch in self.filling.values())
            self.begin(chunk.slot, place)
        batch = self.filling[chunk.slot]
        assert batch.place == place
        assert not (is_remote and chunk.first in batch.stays)
        assert not again or (chunk.first, chunk.last) in batch.again
        batch.give(chunk.first, chunk.last)

    def begin(self, slot: int, place: Place) -> None:
        assert slot not in self.hands.keys() | self.leased.keys()
        assert place == self.next
        is_of_run = place not in self.want or place == self.run.next
        if place in self.want:
            del self.want[: self.want.index(place) + 1]
        else:
            self.want.clear()
        if is_of_run:
            self.run = self.run.at(self.run.after(place))
        self.filling[slot] = Batch(place, self.shape.rows(place[1]))

    def end(self, slot: int, place: Place, *, failed: bool) -> None:
        """A delivered batch has every row, written once or again after a death."""
        batch = self.filling.pop(slot)
        assert (batch.place, batch.given_up) == (place, failed)
        assert failed or batch.written == set(range(batch.rows))
        self.hands[slot] = place
        self.ended += 1

    def done(self, chunk: Chunk) -> None:
        self.attaches = 0
        self.filling[chunk.slot].write(chunk.first, chunk.last)

    def undone(self, chunk: Chunk, death: Death | None = None) -> None:
        """A chunk was taken from its worker, which died over it or never saw it."""
        batch = self.filling[chunk.slot]
        if not batch.given_up and death:
            self.blame(batch, range(chunk.first, chunk.last), death)
        if not batch.given_up:
            rows = chunk.first, chunk.last
            batch.again |= batch.pieces(*rows) if death else {rows}

    def blame(self, batch: Batch, rows: range, death: Death) -> None:
        match death:
            case Death.CRASHED:
                batch.crashes.update(rows)
                if batch.crashes[rows[0]] > CRASHES:
                    self.isolate(batch, rows[0])
            case Death.KILLED:
                batch.kills.update(rows)
                if batch.kills[rows[0]] == KILLS:
                    batch.give_up()
            case Death.ATTACHING:
                self.attaches += 1
                if self.attaches == ATTACHES:
                    self.attaches = 0
                    batch.give_up()

    def isolate(self, batch: Batch, row: int) -> None:
        """Once; a sample that crashes workers even then is the end of its batch."""
        if row in batch.isolated:
            batch.give_up()
        else:
            self.to_isolate.append((batch.place, row))
            batch.isolated.add(row)
            batch.crashes[row] = 0


class Machine(RuleBasedStateMachine):
    """A supervisor with invented workers and clients, and what must hold for them."""

    steps = 0
    """Of all machines since the first."""

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        self.scheduler = Scheduler()
        self.held: dict[int, list[Chunk]] = {}
        self.models: dict[int, Model] = {}
        self.retired: set[int] = set()
        self.slow: set[int] = set()
        self.waiting: set[int] = set()
        self.declined: dict[int, set[int]] = defaultdict(set)
        self.remote: set[int] = set()
        self.past: list[int] = []
        self.next_id = 0
        self.open(data)
        self.worker_up()

    def perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Assign(worker, chunk):
                    assert worker not in self.retired | self.slow
                    assert chunk.stream not in self.declined[worker]
                    assert not (self.models[chunk.stream].doubted and self.is_out(chunk.stream))
                    self.models[chunk.stream].assign(chunk, worker in self.remote)
                    self.held[worker].append(chunk)
                    self.past.append(chunk.ticket)
                case Deliver(stream, slot, place, _):
                    assert (stream, slot) not in self.being_written
                    self.models[stream].end(slot, place, failed=False)
                case Isolate(stream, place, row, _):
                    self.models[stream].to_isolate.remove((place, row))
                case Dismiss(worker):
                    assert worker in self.retired
                    assert not self.held.pop(worker)
                    self.retired.remove(worker)
                    self.perform(self.scheduler.worker_down(worker, Death.KILLED))
                case Fail(stream, slot, place, _):
                    assert (stream, slot) not in self.being_written
                    self.models[stream].end(slot, place, failed=True)

    @property
    def being_written(self) -> set[tuple[int, int]]:
        """Slots, with their streams, of which a worker has a chunk."""
        chunks = (chunk for held in self.held.values() for chunk in held)
        return {(chunk.stream, chunk.slot) for chunk in chunks}

    def is_out(self, stream: int) -> bool:
        """Whether workers have a chunk of a stream."""
        return any(chunk.stream == stream for held in self.held.values() for chunk in held)

    @rule(data=st.data(), runs=st.sampled_from([True, True, True, False]))
    @precondition(lambda self: len(self.models) < 3)
    def open(self, data: st.DataObject, runs: bool = True) -> None:
        shape = Shape(
            samples=data.draw(st.integers(1, 40)),
            batch_size=data.draw(st.integers(1, 9)),
            slots=data.draw(st.integers(4, 7)),
        )
        self.open_with(shape, data.draw(runs_of(shape)) if runs else Run(None, shape.batches))

    def open_with(self, shape: Shape, run: Run) -> None:
        self.next_id += 1
        self.models[self.next_id] = Model(shape, run, doubted=bool(self.waiting))
        self.perform(self.scheduler.open(self.next_id, shape, run))

    @rule(data=st.data())
    @precondition(lambda self: self.models)
    def close(self, data: st.DataObject) -> None:
        stream = data.draw(st.sampled_from(sorted(self.models)))
        del self.models[stream]
        self.perform(self.scheduler.close(stream))

    @rule(is_remote=st.booleans())
    @precondition(lambda self: len(self.held) < 4)
    def worker_up(self, is_remote: bool = False) -> None:
        self.next_id += 1
        self.held[self.next_id] = []
        if is_remote:
            self.remote.add(self.next_id)
        self.perform(self.scheduler.worker_up(self.next_id, is_remote))

    @rule(data=st.data(), death=st.sampled_from(Death))
    @precondition(lambda self: self.held)
    def worker_down(self, data: st.DataObject, death: Death) -> None:
        self.die(data.draw(st.sampled_from(sorted(self.held))), death)

    def die(self, worker: int, death: Death) -> None:
        lost = self.held.pop(worker)
        self.retired.discard(worker)
        self.slow.discard(worker)
        if worker in self.waiting:
            self.answer(worker)
        for chunk in reversed(lost):
            if chunk.stream in self.models:
                self.models[chunk.stream].undone(chunk, death if chunk is lost[0] else None)
        self.perform(self.scheduler.worker_down(worker, death, "invented"))

    @rule(death=st.sampled_from([Death.CRASHED, Death.ATTACHING]), times=st.integers(1, 3))
    def worker_after_worker_dies(self, death: Death, times: int) -> None:
        """So that now and then samples are isolated, and batches are given up."""
        for _ in range(times):
            in_hand = [worker for worker, held in self.held.items() if held]
            if in_hand:
                self.die(max(in_hand, key=self.crashes_in_hand), death)
            self.worker_up()

    def crashes_in_hand(self, worker: int) -> int:
        """Crashes over the chunk in a worker's hand."""
        chunk = self.held[worker][0]
        if chunk.stream not in self.models:
            return -1
        return self.models[chunk.stream].filling[chunk.slot].crashes[chunk.first]

    @rule(data=st.data())
    @precondition(lambda self: self.held)
    def recall(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.held)))
        held = self.held[worker]
        self.held[worker], back = held[:1], held[1:]
        for chunk in back:
            if chunk.stream in self.models:
                self.models[chunk.stream].undone(chunk)
        if held:
            self.slow.add(worker)
        self.perform(self.scheduler.recall(worker, {chunk.ticket for chunk in back}))

    @rule(data=st.data())
    @precondition(lambda self: self.held.keys() & self.remote and self.models)
    def decline(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.held.keys() & self.remote)))
        stream = data.draw(st.sampled_from(sorted(self.models)))
        if worker in self.waiting:
            self.answer(worker)
        held = self.held[worker]
        for chunk in held:
            if chunk.stream == stream:
                self.models[stream].undone(chunk)
        self.held[worker] = [chunk for chunk in held if chunk.stream != stream]
        if not self.held[worker]:
            self.slow.discard(worker)
        self.declined[worker].add(stream)
        self.perform(self.scheduler.decline(worker, stream))

    @rule(data=st.data())
    @precondition(lambda self: any(self.held.get(worker) for worker in self.remote))
    def decline_a_chunk(self, data: st.DataObject) -> None:
        some = sorted(worker for worker in self.remote if self.held.get(worker))
        worker = data.draw(st.sampled_from(some))
        chunk = self.held[worker].pop(0)
        self.slow.discard(worker)
        self.answer(worker)
        if chunk.stream in self.models:
            model = self.models[chunk.stream]
            model.filling[chunk.slot].stays.update(range(chunk.first, chunk.last))
            model.undone(chunk)
        self.perform(self.scheduler.decline(worker, chunk.stream, chunk.ticket))

    @rule(data=st.data())
    @precondition(lambda self: any(self.held.values()))
    def wait_for_storage(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(w for w, held in self.held.items() if held)))
        stream = self.held[worker][0].stream
        for number, model in self.models.items():
            model.doubted |= not self.waiting or number == stream
        self.waiting.add(worker)
        self.slow.add(worker)
        self.perform(self.scheduler.waiting(worker))

    @rule(data=st.data())
    @precondition(lambda self: self.waiting)
    def storage_answers(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.waiting)))
        self.answer(worker, self.held[worker][0].stream)
        self.perform(self.scheduler.answered(worker))

    def answer(self, worker: int, stream: int | None = None) -> None:
        self.waiting.discard(worker)
        for number, model in self.models.items():
            model.doubted &= bool(self.waiting) and number != stream

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
        self.answer(worker, chunk.stream)
        if chunk.stream in self.models:
            self.models[chunk.stream].done(chunk)
        self.perform(self.scheduler.done(worker, chunk.ticket, total_ns))

    @rule(data=st.data())
    @precondition(lambda self: any(self.held.values()))
    def failure(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(w for w, held in self.held.items() if held)))
        chunk = self.held[worker].pop(0)
        self.slow.discard(worker)
        self.answer(worker, chunk.stream)
        if chunk.stream in self.models:
            self.models[chunk.stream].filling[chunk.slot].give_up()
        self.perform(self.scheduler.failed(worker, chunk.ticket, "BadImage", "x.jpg"))

    @rule(data=st.data(), lease=st.booleans())
    @precondition(lambda self: any(model.hands for model in self.models.values()))
    def take(self, data: st.DataObject, lease: bool) -> None:
        some = sorted(stream for stream, model in self.models.items() if model.hands)
        stream = data.draw(st.sampled_from(some))
        model = self.models[stream]
        slot = data.draw(st.sampled_from(sorted(model.hands)))
        if lease:
            model.leased[slot] = model.hands.pop(slot)
            model.taken += 1
            self.perform(self.scheduler.took(stream, (slot,), ()))
        else:
            self.hand_back(stream, slot)

    @rule(data=st.data())
    @precondition(lambda self: any(model.leased for model in self.models.values()))
    def release(self, data: st.DataObject) -> None:
        some = sorted(stream for stream, model in self.models.items() if model.leased)
        stream = data.draw(st.sampled_from(some))
        slot = data.draw(st.sampled_from(sorted(self.models[stream].leased)))
        self.let_go(stream, slot)

    @rule(data=st.data(), rerun=st.booleans())
    @precondition(lambda self: self.models)
    def plan(self, data: st.DataObject, rerun: bool) -> None:
        stream = data.draw(st.sampled_from(sorted(self.models)))
        model = self.models[stream]
        some = places(model.shape) | st.sampled_from(model.near)
        run = data.draw(runs_of(model.shape, some)) if rerun else None
        want = data.draw(st.lists(some, max_size=3))
        if model.run.next is None:  # nothing is begun that would show when a wish is dropped twice
            want = [place for place in dict.fromkeys(want) if place not in model.want]
        model.plan(tuple(want), run)
        self.perform(self.scheduler.plan(stream, tuple(want), run))

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
        for stream, model in getattr(self, "models", {}).items():
            slots = self.scheduler.streams[stream].slots
            for slot in range(len(slots)):
                assert (slots[slot] is State.FILLING) == (slot in model.filling)
                assert (slots[slot] is State.READY) == (slot in model.hands)
                assert (slots[slot] is State.LEASED) == (slot in model.leased)

    @invariant()
    def no_slot_is_written_that_the_client_has(self) -> None:
        for held in getattr(self, "held", {}).values():
            for chunk in held:
                if chunk.stream in self.models:
                    batch = self.models[chunk.stream].filling.get(chunk.slot)
                    assert batch is not None
                    assert batch.place == (chunk.epoch, chunk.position)

    @invariant()
    def every_batch_goes_on_or_has_ended(self) -> None:
        being_written = self.being_written if getattr(self, "models", None) else set()
        for stream, model in getattr(self, "models", {}).items():
            for slot, batch in model.filling.items():
                assert batch.to_give or (stream, slot) in being_written

    @invariant()
    def what_is_due_again_is_known(self) -> None:
        for stream, model in getattr(self, "models", {}).items():
            redo = [(p.batch.slot, p.first, p.last) for p in self.scheduler.streams[stream].redo]
            due = [(slot, *rows) for slot, batch in model.filling.items() for rows in batch.again]
            assert sorted(redo) == sorted(due)

    @invariant()
    def samples_that_crash_their_workers_are_isolated(self) -> None:
        for model in getattr(self, "models", {}).values():
            assert not model.to_isolate

    @invariant()
    def nobody_rests_while_there_is_work(self) -> None:
        held = getattr(self, "held", {})
        for worker in held.keys() - getattr(self, "retired", set()) - getattr(self, "slow", set()):
            if len(held[worker]) < QUEUED:
                for stream in self.models.keys() - self.declined[worker]:
                    model = self.models[stream]
                    left = model.to_give_to(worker in self.remote)
                    assert not left or (model.doubted and self.is_out(stream))

    @invariant()
    def storage_is_doubted_while_somebody_waits_for_it(self) -> None:
        for stream, model in getattr(self, "models", {}).items():
            assert self.scheduler.streams[stream].doubted == model.doubted
            assert self.waiting or not model.doubted

    @rule(data=st.data())
    @precondition(lambda self: self.models)
    def reconnect(self, data: st.DataObject) -> None:
        """A client that lost its connection opens the same stream again, at some place."""
        stream = data.draw(st.sampled_from(sorted(self.models)))
        shape = self.models.pop(stream).shape
        self.perform(self.scheduler.close(stream))
        self.open_with(shape, data.draw(runs_of(shape)))

    def teardown(self) -> None:
        """Whatever has happened, all that is begun ends, and the run goes on for an epoch.

        The model sees to it that this is the right epoch, and each batch of it is made once.
        """
        if not getattr(self, "models", None):
            return
        self.worker_up()
        for stream, model in self.models.items():
            for slot in list(model.leased):
                self.let_go(stream, slot)
        begun = self.unfinished()
        self.work_until(lambda: not begun & self.unfinished())
        self.wish_for_what_comes_soon()
        goals = {stream: self.goal(model) for stream, model in self.models.items()}
        self.work_until(lambda: self.reached(goals))
        self.drain()

    def work_until(self, over: Callable[[], bool]) -> None:
        """The workers do as told, and the trainers take batches when all rings are full."""
        for _ in range(10_000):
            if over():
                return
            if not any(self.held.values()):
                self.hand_back_all()
            self.finish_a_chunk()
        raise AssertionError("batches that never come")

    def wish_for_what_comes_soon(self) -> None:
        """The run meets a batch that is made already, and leaves out that one only."""
        for stream, model in self.models.items():
            if model.run.next:
                want = (model.run.after(model.run.after(model.run.next)),)
                model.plan(want, None)
                self.perform(self.scheduler.plan(stream, want, None))

    def goal(self, model: Model) -> int:
        """How many batches must have ended when its run has gone on for an epoch."""
        ahead = model.shape.batches if model.run.next and not model.waits_for_request else 0
        return model.ended + len(model.filling) + len(set(model.want) - model.coming) + ahead

    def reached(self, goals: dict[int, int]) -> bool:
        return all(self.models[stream].ended >= goal for stream, goal in goals.items())

    def unfinished(self) -> set[Batch]:
        return {batch for model in self.models.values() for batch in model.filling.values()}

    def drain(self) -> None:
        """Nothing new is begun, and nothing stays half done."""
        self.scheduler.drain()
        while any(self.held.values()):
            self.finish_a_chunk()
        assert self.scheduler.idle
        assert not self.unfinished()

    def hand_back_all(self) -> None:
        for stream, model in self.models.items():
            for slot in list(model.hands):
                self.hand_back(stream, slot)

    def hand_back(self, stream: int, slot: int) -> None:
        del self.models[stream].hands[slot]
        self.perform(self.scheduler.took(stream, (), (slot,)))

    def let_go(self, stream: int, slot: int) -> None:
        del self.models[stream].leased[slot]
        self.perform(self.scheduler.took(stream, (), (slot,)))

    def finish_a_chunk(self) -> None:
        """The one that was given first."""
        ticket_of = {held[0].ticket: worker for worker, held in self.held.items() if held}
        assert ticket_of, "batches that nobody makes"
        self.finish(ticket_of[min(ticket_of)], 1000)


def places(shape: Shape) -> st.SearchStrategy[Place]:
    return st.tuples(st.integers(0, 3), st.integers(0, shape.batches - 1))


@st.composite
def runs_of(draw: st.DrawFn, shape: Shape, some: st.SearchStrategy[Place] | None = None) -> Run:
    """From any batch on, over whole epochs or parts, forwards or backwards, once or again."""
    step, stride = draw(st.sampled_from([1, 1, 2, ROUND])), draw(st.sampled_from([1, 1, 1, 2, -1]))
    first = draw(
        st.just(0 if stride > 0 else shape.batches - 1) | st.integers(0, shape.batches - 1)
    )
    if stride > 0:
        end = draw(st.just(shape.batches) | st.integers(first + 1, shape.batches))
    else:
        end = draw(st.just(-1) | st.integers(-1, first - 1))
    return Run(draw(places(shape) if some is None else some), end, step, first, stride)


TestHistories = Machine.TestCase
TestHistories.settings = settings(max_examples=120, stateful_step_count=60, deadline=None)


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
    actions = scheduler.open(7, Shape(samples=10, batch_size=2, slots=4), WHOLE)
    expected = [(epoch, position) for epoch in range(3) for position in range(5)]
    assert run_to_end(scheduler, 1, actions) == expected[:12]


def test_a_wanted_batch_comes_before_the_run_and_only_once() -> None:
    scheduler = Scheduler()
    actions = scheduler.open(7, Shape(samples=100, batch_size=2, slots=4), WHOLE)
    actions += scheduler.plan(7, ((0, 40),), WHOLE.at((0, 41)))
    actions += scheduler.worker_up(1)
    assert run_to_end(scheduler, 1, actions)[:3] == [(0, 40), (0, 41), (0, 42)]


@dataclass
class Killer:
    """BusyWorkers one after the other, which die over one sample; the client takes all."""

    row: int
    death: Death = Death.CRASHED
    isolates: bool = True
    deaths: int = 0
    isolated: list[Isolate] = field(default_factory=list)
    failed: list[Fail] = field(default_factory=list)
    delivered: list[Deliver] = field(default_factory=list)
    tried: list[tuple[int, int]] = field(default_factory=list)

    def run(self, shape: Shape, batches: int = 1) -> None:
        scheduler = Scheduler()
        todo = scheduler.open(7, shape, WHOLE) + scheduler.worker_up(1)
        worker = 1
        while len(self.delivered) + len(self.failed) < batches:
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
                case Fail():
                    self.failed.append(action)
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
    (failure,) = killer.failed
    assert failure.error.kind == "WorkerCrashed"
    assert (failure.error.first, failure.error.last) == (2, 3)


def test_the_chunk_of_a_killed_worker_comes_back_in_halves() -> None:
    killer = Killer(row=3, death=Death.KILLED)
    killer.run(Shape(samples=8, batch_size=8, slots=4))
    assert killer.deaths == KILLS
    assert not killer.isolated
    (failure,) = killer.failed
    assert "memory" in failure.error.text
    assert killer.tried[:2] == [(0, 8), (0, 4)]
    assert (3, 4) in killer.tried


def test_workers_that_die_before_they_can_begin_isolate_nothing() -> None:
    killer = Killer(row=0, death=Death.ATTACHING)
    killer.run(Shape(samples=8, batch_size=8, slots=4))
    assert not killer.isolated
    assert killer.failed[0].error.kind == "WorkerCrashed"


def test_a_retired_worker_finishes_what_it_holds_and_goes() -> None:
    scheduler = Scheduler()
    scheduler.open(7, Shape(samples=100, batch_size=10, slots=4), WHOLE)
    first, second = (one.chunk.ticket for one in scheduler.worker_up(1) if isinstance(one, Assign))
    assert not scheduler.retire(1)
    assert not [one for one in scheduler.done(1, first, 1) if isinstance(one, Assign | Dismiss)]
    assert Dismiss(1) in scheduler.done(1, second, 1)


def test_rows_that_are_left_out_are_counted_with_their_batch() -> None:
    scheduler = Scheduler()
    scheduler.open(7, Shape(samples=4, batch_size=4, slots=4), WHOLE)
    first = next(one for one in scheduler.worker_up(1) if isinstance(one, Assign))
    out = scheduler.done(1, first.chunk.ticket, 1, skipped=3)
    assert [one.skipped for one in out if isinstance(one, Deliver)] == [3]


def test_a_flow_of_one_batch_goes_on_when_a_second_one_is_asked_for() -> None:
    scheduler = Scheduler()
    scheduler.open(7, Shape(samples=4, batch_size=4, slots=4), WHOLE)
    made: list[Deliver] = []

    def make(actions: list[Action]) -> list[int]:
        """Does all that is to be done; returns the epochs that are made."""
        while actions:
            match actions.pop(0):
                case Assign(worker, chunk):
                    actions += scheduler.done(worker, chunk.ticket, 1)
                case Deliver() as out:
                    made.append(out)
        return [out.place[0] for out in made]

    def take(number: int) -> list[Action]:
        return scheduler.took(7, (made[number].slot,), (made[number].slot,))

    assert make(scheduler.worker_up(1)) == [0]
    assert make(take(0)) == [0]
    assert make(scheduler.plan(7, ((1, 0),), None)) == [0, 1]
    assert make(take(1)) == [0, 1, 2, 3, 4, 5]


def test_a_stream_is_still_when_no_slot_is_written_or_in_use() -> None:
    scheduler = Scheduler()
    scheduler.open(7, Shape(samples=4, batch_size=4, slots=4), WHOLE)
    assert scheduler.streams[7].is_still
    (given,) = (one for one in scheduler.worker_up(1) if isinstance(one, Assign))
    assert not scheduler.streams[7].is_still
    (made,) = (one for one in scheduler.done(1, given.chunk.ticket, 1) if isinstance(one, Deliver))
    assert scheduler.streams[7].is_still
    scheduler.took(7, (made.slot,), ())
    assert not scheduler.streams[7].is_still
    scheduler.took(7, (), (made.slot,))
    assert scheduler.streams[7].is_still


def opened(scheduler: Scheduler, stream: int, shape: Shape) -> list[Action]:
    """Opens a stream whose client has taken a batch already."""
    actions = scheduler.open(stream, shape, WHOLE)
    scheduler.streams[stream].cursor.taken = COLD
    return actions + scheduler.plan(stream, (), None)


def test_the_chunk_in_hand_is_blamed_and_not_the_one_behind_it() -> None:
    scheduler = Scheduler()
    opened(scheduler, 7, Shape(samples=6, batch_size=6, slots=4))
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
    scheduler.open(7, Shape(samples=100, batch_size=10, slots=4), WHOLE)
    assert len(scheduler.worker_up(1)) == 2


def test_a_chunk_over_which_workers_are_killed_again_and_again_is_given_up() -> None:
    scheduler = Scheduler()
    scheduler.open(7, Shape(samples=4, batch_size=4, slots=4), WHOLE)
    spoils: list[Action] = []
    for worker in range(1, KILLS + 1):
        scheduler.worker_up(worker)
        actions = scheduler.worker_down(worker, Death.KILLED)
        spoils += [action for action in actions if isinstance(action, Fail)]
    assert len(spoils) == 1


def test_killed_workers_are_nobodys_fault() -> None:
    scheduler = Scheduler()
    scheduler.open(7, Shape(samples=4, batch_size=4, slots=4), WHOLE)
    for worker in range(1, KILLS):
        scheduler.worker_up(worker)
        assert not scheduler.worker_down(worker, Death.KILLED)


def test_the_emptier_ring_is_filled_first() -> None:
    scheduler = Scheduler()
    shape = Shape(samples=1000, batch_size=1, slots=8)
    todo = opened(scheduler, 1, shape) + scheduler.worker_up(9)
    for _ in range(4):
        chunk = next(action.chunk for action in todo if isinstance(action, Assign))
        todo = [action for action in todo if getattr(action, "chunk", None) is not chunk]
        todo += scheduler.done(9, chunk.ticket, 1)
    todo = opened(scheduler, 2, shape)
    streams = []
    for _ in range(6):
        in_hand = scheduler.ledger.held(9)[0].chunk
        streams.append(in_hand.stream)
        scheduler.done(9, in_hand.ticket, 1)
    assert streams[2:] == [2, 2, 2, 2]


@pytest.mark.parametrize("place", [(-1, 0), (0, -1), (0, 5)])
def test_a_plan_for_a_batch_that_does_not_exist_is_refused(place: Place) -> None:
    scheduler = Scheduler()
    scheduler.open(7, Shape(samples=10, batch_size=2, slots=4), WHOLE)
    with pytest.raises(ProtocolError, match="no batch"):
        scheduler.plan(7, (place,), None)


class BusyWorkers:
    """Obedient workers, and trainers that take every batch at once unless told otherwise."""

    def __init__(self, workers: int) -> None:
        self.scheduler = Scheduler()
        self.queues: dict[int, list[Chunk]] = {number: [] for number in range(workers)}
        self.chunks: list[Chunk] = []
        self.delivered: list[tuple[int, Place]] = []
        self.taking = True
        for number in self.queues:
            self.perform(self.scheduler.worker_up(number))

    def add_worker(self, number: int) -> None:
        self.queues[number] = []
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
        self.perform(opened(self.scheduler, stream, shape))

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
        (1, 800, {16}),  # 20 ms hold 25 rows: two chunks, as equal as can be
        (1, 1500, {11, 10}),
        (8, 800, {16}),
        (16, 800, {8}),  # 32 chunks in 10 batches, as two slots are the trainer's
        (64, 800, {3, 2}),  # a chunk of one row would not be worth a message
        (4, 30, {32}),  # all of the batch takes less than 2 ms
        (2, 200, {32}),
        (8, 20_000, {1}),
    ],
)
def test_chunks_take_up_to_20_ms_and_leave_no_worker_without(
    workers: int, row_us: int, rows: set[int]
) -> None:
    busy = BusyWorkers(workers)
    busy.open(1, BIG)
    busy.work(5, row_us * 1000)
    assert sizes(busy.work(20, row_us * 1000)) <= rows


@given(workers=st.integers(1, 70), batch=st.integers(1, 300), row_us=st.integers(1, 30_000))
def test_no_chunk_is_longer_than_20_ms_or_shorter_than_2_ms_without_need(
    workers: int, batch: int, row_us: int
) -> None:
    busy = BusyWorkers(workers)
    busy.open(1, Shape(samples=batch * 1000, batch_size=batch, slots=150))
    busy.work(4, row_us * 1000)
    for size in sizes(busy.work(4, row_us * 1000)):
        assert size == 1 or size * row_us * 1000 <= MAX_CHUNK_NS
        assert size == batch or (size + 1) * row_us * 1000 > MIN_CHUNK_NS


def test_chunks_follow_when_images_come_from_a_cache_and_when_they_no_longer_do() -> None:
    busy = BusyWorkers(4)
    busy.open(1, BIG)
    busy.work(20, 800_000)
    busy.work(20, 30_000)  # 20 batches of 10,000 that the epoch has
    assert sizes(busy.work(5, 30_000)) == {32}
    busy.work(10, 800_000)
    assert sizes(busy.work(5, 800_000)) == {16}


def test_chunks_follow_a_mixture_of_cached_and_decoded_images() -> None:
    busy = BusyWorkers(4)
    busy.open(1, BIG)
    for _ in range(20):
        busy.work(1, 800_000)
        busy.work(1, 30_000)
    given_out = busy.work(1, 800_000) + busy.work(1, 30_000)
    middle = [size * 415_000 for size in sizes(given_out)]
    assert all(MIN_CHUNK_NS <= spent <= 1.5 * MAX_CHUNK_NS for spent in middle)


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("slots", [(12, 12), (4, 13), (13, 103)])
def test_two_trainers_that_both_wait_take_turns_whatever_their_rings(
    workers: int, slots: tuple[int, int]
) -> None:
    busy = BusyWorkers(workers)
    for number, size in enumerate(slots, 1):
        busy.open(number, Shape(samples=320_000, batch_size=32, slots=size))
    busy.work(400, 800_000)
    counts = [sum(stream == number for stream, _ in busy.delivered) for number in (1, 2)]
    assert min(counts) > 0.9 * max(counts)  # though chunks differ in size


def test_a_stream_that_begins_is_served_next_though_another_is_starving() -> None:
    busy = BusyWorkers(4)
    busy.open(1, BIG)
    busy.work(20, 800_000)
    busy.open(2, BIG)
    assert busy.work(1, 800_000)[0].stream == 2


@pytest.mark.parametrize(
    ("wanted", "run"),
    [
        (((0, 0),), Run((0, 1), 10)),  # Keras begins a pass after it has looked at two batches
        (((5, 0), (5, 1)), None),
        ((), Run((0, 0), 10)),
    ],
)
def test_a_trainer_that_waits_for_other_batches_than_those_ready_is_not_starved(
    wanted: tuple[Place, ...], run: Run | None
) -> None:
    busy = BusyWorkers(2)
    busy.taking = False
    busy.open(1, Shape(samples=320, batch_size=32, slots=12))
    busy.work(40, 800_000)
    busy.taking = True
    busy.open(2, BIG)  # its trainer takes more than the workers make
    busy.work(4, 800_000)
    busy.perform(busy.scheduler.took(1, (0, 1), (0, 1)))
    busy.perform(busy.scheduler.plan(1, wanted, run))
    busy.delivered.clear()
    busy.work(20, 800_000)
    came = [place for stream, place in busy.delivered if stream == 1]
    assert came[:2] == ([(0, 0), (0, 1)] if run else list(wanted))
    assert len(busy.delivered) > len(came)


def test_no_worker_pauses_at_the_end_of_an_epoch() -> None:
    busy = BusyWorkers(4)
    busy.open(1, Shape(samples=100, batch_size=32, slots=6))
    for _ in range(50):  # an epoch is 4 batches, the last of 4 rows
        busy.work(1, 800_000)
        assert all(len(queue) == QUEUED for queue in busy.queues.values())


def test_while_a_stream_reads_from_an_object_store_workers_have_more_chunks_queued() -> None:
    busy = BusyWorkers(2)
    sizes: Any = {"samples": 320_000, "batch_size": 32, "slots": 12}
    busy.open(1, Shape(**sizes, queued=QUEUED_REMOTE))
    busy.work(20, 800_000)
    assert {len(queue) for queue in busy.queues.values()} == {QUEUED_REMOTE}
    busy.open(2, Shape(**sizes))
    busy.work(400, 800_000)
    counts = [sum(stream == number for stream, _ in busy.delivered[-100:]) for number in (1, 2)]
    assert min(counts) > 0.8 * max(counts)
    busy.perform(busy.scheduler.close(1))
    busy.work(40, 800_000)
    assert {len(queue) for queue in busy.queues.values()} == {QUEUED}


def test_all_workers_are_at_the_batch_that_is_needed_next() -> None:
    busy = BusyWorkers(4)
    busy.open(1, BIG)
    first = [chunk for chunk in busy.chunks if chunk.position == 0]
    assert [(chunk.first, chunk.last) for chunk in first] == [(0, 8), (8, 16), (16, 24), (24, 32)]
    assert all(queue[0].position == 0 for queue in busy.queues.values())


def test_what_is_queued_behind_a_slow_chunk_goes_to_others_and_blames_nobody() -> None:
    scheduler = Scheduler()
    opened(scheduler, 7, Shape(samples=100, batch_size=10, slots=4))
    first, second = (one.chunk for one in scheduler.worker_up(1) if isinstance(one, Assign))
    assert not scheduler.recall(1, {second.ticket})
    (again, *_) = (one.chunk for one in scheduler.worker_up(2) if isinstance(one, Assign))
    assert (again.slot, again.first, again.last) == (second.slot, second.first, second.last)
    out = scheduler.done(1, first.ticket, 1)
    assert [one.worker for one in out if isinstance(one, Assign)] == [1, 1]


def test_what_waits_for_storage_takes_no_more_workers_and_others_go_on() -> None:
    busy = BusyWorkers(2)
    busy.open(1, BIG)
    for worker, queue in busy.queues.items():
        busy.perform(busy.scheduler.waiting(worker))
        behind = {chunk.ticket for chunk in queue[1:]}
        del queue[1:]
        busy.perform(busy.scheduler.recall(worker, behind))
    for queue in busy.queues.values():
        queue.clear()  # as they do nothing
    busy.add_worker(2)
    assert busy.queues[2] == []
    busy.open(2, BIG)
    assert {chunk.stream for chunk in busy.work(20, 800_000)} == {2}
    busy.perform(busy.scheduler.answered(0))
    assert 1 in {chunk.stream for chunk in busy.work(2, 800_000)}


def test_a_stream_that_opens_while_storage_is_silent_gets_one_worker_until_it_answers() -> None:
    busy = BusyWorkers(1)
    busy.open(1, BIG)
    busy.perform(busy.scheduler.waiting(0))
    busy.add_worker(1)
    busy.add_worker(2)
    busy.open(2, BIG)
    assert [len(busy.queues[worker]) for worker in (1, 2)] == [1, 0]
    busy.queues[0].clear()
    busy.work(1, 800_000)
    assert all(chunk.stream == 2 for worker in (1, 2) for chunk in busy.queues[worker])
    assert [len(busy.queues[worker]) for worker in (1, 2)] == [QUEUED, QUEUED]


def test_a_chunk_that_must_be_done_again_comes_before_the_batches_of_an_emptier_ring() -> None:
    scheduler = Scheduler()
    shape = Shape(samples=100, batch_size=1, slots=8)
    opened(scheduler, 1, shape)
    lost = next(one for one in scheduler.worker_up(8) if isinstance(one, Assign)).chunk
    todo = [one.chunk.ticket for one in scheduler.worker_up(9) if isinstance(one, Assign)]
    for _ in range(5):
        done = scheduler.done(9, todo.pop(0), 1)
        todo += [one.chunk.ticket for one in done if isinstance(one, Assign)]
    opened(scheduler, 2, shape)
    scheduler.worker_down(8, Death.CRASHED)
    again = [one.chunk for one in scheduler.done(9, todo.pop(0), 1) if isinstance(one, Assign)]
    assert (again[0].stream, again[0].position) == (lost.stream, lost.position)


def test_for_a_client_that_has_taken_nothing_two_batches_are_made_ahead() -> None:
    scheduler = Scheduler()
    scheduler.open(7, Shape(samples=100, batch_size=10, slots=8), WHOLE)

    def work(actions: list[Action]) -> set[Place]:
        while chunks := [one.chunk for one in actions if isinstance(one, Assign)]:
            actions = [action for one in chunks for action in scheduler.done(1, one.ticket, 10**8)]
        return scheduler.streams[7].made

    assert work(scheduler.worker_up(1)) == {(0, 0), (0, 1)}
    assert work(scheduler.plan(7, ((3, 4),), None)) == {(0, 0), (0, 1), (3, 4)}
    assert len(work(scheduler.took(7, (0,), ()))) == 7


def test_a_run_goes_over_part_of_an_epoch_again_and_again() -> None:
    scheduler = Scheduler()
    opened(scheduler, 7, Shape(samples=100, batch_size=10, slots=8))
    scheduler.plan(7, (), Run((0, 8), 3, ROUND))
    scheduler.worker_up(1)
    places = list(scheduler.streams[7].places.values())
    assert places[:2] == [(0, 8), (ROUND, 0)]


def assigned(actions: list[Action]) -> list[tuple[int, Chunk]]:
    return [(one.worker, one.chunk) for one in actions if isinstance(one, Assign)]


def test_a_chunk_that_another_machine_declines_is_made_on_this_one() -> None:
    scheduler = Scheduler()
    opened(scheduler, 7, Shape(samples=8, batch_size=8, slots=2))
    (_, chunk), *_ = assigned(scheduler.worker_up(1, is_remote=True))
    others = assigned(scheduler.worker_up(2, is_remote=True))
    rows = chunk.slot, chunk.first, chunk.last
    others += assigned(scheduler.decline(1, 7, chunk.ticket))
    assert rows not in [(one.slot, one.first, one.last) for _, one in others]
    (worker, again), *_ = assigned(scheduler.worker_up(3))
    assert (worker, (again.slot, again.first, again.last)) == (3, rows)


def test_a_stream_that_is_closed_is_declined_no_more() -> None:
    scheduler = Scheduler()
    scheduler.worker_up(1, is_remote=True)
    for stream in (7, 8):
        opened(scheduler, stream, Shape(samples=8, batch_size=8, slots=2))
    scheduler.decline(1, 7)
    assert scheduler.ledger.declined(1) == {7}
    scheduler.close(7)
    scheduler.close(8)
    scheduler.decline(1, 8)  # as it was on its way
    assert not scheduler.ledger.declined(1)


def test_what_is_left_to_this_machine_stays_here_though_its_worker_is_killed() -> None:
    scheduler = Scheduler()
    opened(scheduler, 7, Shape(samples=8, batch_size=8, slots=2))
    (_, chunk), *_ = assigned(scheduler.worker_up(1, is_remote=True))
    scheduler.decline(1, 7, chunk.ticket)
    scheduler.worker_up(3)
    scheduler.drain()
    assert assigned(scheduler.worker_down(3, Death.KILLED)) == []
    middle = (chunk.first + chunk.last) // 2
    given = assigned(scheduler.worker_up(4))[:2]
    assert [(one.first, one.last) for _, one in given] == [
        (chunk.first, middle),
        (middle, chunk.last),
    ]
