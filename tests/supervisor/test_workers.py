"""The workers' manager: what it tells workers, what it reports, and whom it kills.

The workers are the other ends of real sockets, the ledger is a dictionary, and the clock is ours.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest

from loaderd import config
from loaderd.errors import ProtocolError
from loaderd.ipc import channel
from loaderd.ipc.channel import Channel, Closed
from loaderd.ipc.messages import (
    Attach,
    Attached,
    Bad,
    BatchFailed,
    Chunk,
    Declined,
    Detach,
    Done,
    Message,
    Progress,
    Quarantine,
    Waiting,
    WorkerReady,
)
from loaderd.ipc.text import LONGEST_PATH
from loaderd.supervisor.actions import Assign, Death
from loaderd.supervisor.children import Child, ForkServer
from loaderd.supervisor.ledger import Assignment
from loaderd.supervisor.loop import Loop
from loaderd.supervisor.scheduled_stream import Part, PartialBatch
from loaderd.supervisor.streams import OpenStream
from loaderd.supervisor.worker import STORAGE, UP_SECONDS, Worker
from loaderd.supervisor.worker_processes import LAST_WORDS_SECONDS, SLOW_SECONDS, WorkerProcesses
from loaderd.supervisor.workers import WorkerEvents, Workers

SETTINGS = config.load({"workers": "2", "sample_timeout": "20"}, {})
ISOLATED = Quarantine(b"/a.jpg", "", "why")


class FakeWorker:
    """The other end of a worker's socket, and the signals that it got."""

    def __init__(self) -> None:
        ours, theirs = channel.pair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self.signals: list[int] = []
        self.child = Child(Channel(ours), self.signals.append)
        self.child.inbox = Channel(theirs.dup())
        self.channel = Channel(theirs)
        self.fds: list[int] = []

    def read(self, most: int = 100) -> list[Message]:
        """What it was told since it last read."""
        told: list[Message] = []
        with contextlib.suppress(BlockingIOError, Closed):
            while len(told) < most:
                message, fds = self.channel.receive_with_fds()
                told.append(message)
                self.fds += fds
        return told

    def close(self) -> None:
        self.channel.close()
        for fd in self.fds:
            os.close(fd)
        if not self.child.ended:
            self.child.close()


class Harness:
    """A manager with fake workers, a ledger, and a list of what it has reported."""

    def _held(self, worker: int) -> list[Assignment]:
        part = Part(PartialBatch(slot=0, place=(0, 0), rows=1, uncut=1), 0, 1)
        return [Assignment(chunk, part) for chunk in self.ledger.get(worker, [])]

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.fakes: list[FakeWorker] = []
        self.ledger: dict[int, list[Chunk]] = {}
        self.events: list[tuple[Any, ...]] = []
        self.error: Exception | None = None
        self.processes = WorkerProcesses(SETTINGS, cast(ForkServer, self))
        names = WorkerEvents.__slots__
        events = WorkerEvents(**{name: partial(self._report, name) for name in names})
        self.workers = Workers(self.processes, loop, self._held, events)
        self.stream = cast(
            OpenStream, SimpleNamespace(id=7, attach=partial(Attach, 7, *ATTACH), segments=[])
        )

    def spawn(self, *_: object, revocable: bool) -> Child:
        assert revocable
        self.fakes.append(FakeWorker())
        return self.fakes[-1].child

    def _report(self, name: str, *words: Any) -> None:
        if self.error is not None:
            raise self.error
        self.events.append((name, *words))
        worker = words[0]
        if name in ("done", "failed"):
            self.ledger[worker].pop(0)
        if name == "recalled":
            self.ledger[worker] = [one for one in self.ledger[worker] if one.ticket not in words[1]]
        if name == "died":
            self.ledger.pop(worker, None)

    def up(self) -> tuple[Worker, FakeWorker]:
        """One more worker, that is ready."""
        self.workers.start()
        fake = self.fakes[-1]
        self.say(fake, WorkerReady(1, "PIL 1"))
        return list(self.processes.workers.values())[-1], fake

    def say(self, fake: FakeWorker, *messages: Message) -> None:
        for message in messages:
            fake.channel.send(message)
            self.loop.turn(0)

    def assign(self, worker: Worker, *tickets: int) -> None:
        """Gives a worker chunks, as the supervisor does when the ledger has them."""
        chunks = [Chunk(ticket, 7, 0, 0, 0, 0, 4) for ticket in tickets]
        self.ledger.setdefault(worker.id, []).extend(chunks)
        for chunk in chunks:
            self.workers.assign(Assign(worker.id, chunk), self.stream)

    def take_events(self) -> list[tuple[Any, ...]]:
        events, self.events = self.events, []
        return events


ATTACH = (b"", 2, 4, 4096, 4096, (), False)


def done(ticket: int, **fields: Any) -> Done:
    return Done(ticket, 4, 100, 10, 20, 30, 40, **fields)


@pytest.fixture
def harness() -> Iterator[Harness]:
    with Loop() as loop:
        harness = Harness(loop)
        yield harness
        for fake in harness.fakes:
            fake.close()


# ---- what it tells -------------------------------------------------------------------


def test_a_worker_is_told_of_a_stream_once_and_before_its_first_chunk(harness: Harness) -> None:
    worker, fake = harness.up()
    harness.assign(worker, 1, 2)
    told = fake.read()
    assert [type(one) for one in told] == [Attach, Chunk, Chunk]
    harness.workers.detach(7)
    harness.assign(worker, 3)
    assert [type(one) for one in fake.read()] == [Detach, Attach, Chunk]


def test_workers_that_start_later_hear_of_the_quarantine_too_and_first(harness: Harness) -> None:
    _, first = harness.up()
    harness.workers.start()
    starting = harness.fakes[-1]
    harness.workers.quarantine(ISOLATED)
    assert first.read() == [ISOLATED]
    assert not starting.read()
    harness.say(starting, WorkerReady(2))
    assert starting.read() == [ISOLATED]


def test_a_worker_that_cannot_be_told_of_a_stream_is_killed(harness: Harness) -> None:
    worker, fake = harness.up()
    cast(Any, harness.stream).segments = [10**6]
    harness.assign(worker, 1)
    assert fake.signals == [signal.SIGKILL]


def test_a_dismissed_worker_is_no_restart(harness: Harness) -> None:
    worker, fake = harness.up()
    harness.workers.dismiss(worker.id)
    assert fake.signals == [signal.SIGKILL]
    fake.child.note_end(-signal.SIGKILL)
    assert harness.processes.restarts == 0
    assert harness.take_events()[-1][:3] == ("died", worker.id, Death.KILLED)


# ---- what it reports -----------------------------------------------------------------


def test_what_happens_is_reported_in_its_order(harness: Harness) -> None:
    worker, fake = harness.up()
    assert harness.take_events() == [("ready", worker.id)]
    harness.assign(worker, 1, 2)
    bad, failed = Bad(7, b"/a.jpg", "why"), BatchFailed("BadImage", "why", ticket=2)
    harness.say(fake, Attached(7), Progress(1), bad, done(1), failed)
    assert harness.take_events() == [
        ("in_hand", worker.id, Progress(1)),
        ("bad_image", bad),
        ("done", worker.id, done(1)),
        ("failed", worker.id, failed),
    ]


def test_chunks_are_counted_when_they_are_done(harness: Harness) -> None:
    worker, fake = harness.up()
    harness.assign(worker, 1, 2, 3)
    harness.say(fake, done(1), done(2, cached=3), BatchFailed("BadImage", "why", ticket=3))
    assert (harness.workers.chunks, worker.chunks, worker.rows, worker.cached) == (2, 2, 8, 3)
    stages = (worker.read_ns, worker.decode_ns, worker.resize_ns, worker.augment_ns)
    assert (*stages, worker.busy_ns) == (20, 40, 60, 80, 200)


def test_who_reports_what_it_does_not_hold_is_killed_and_nothing_counts(harness: Harness) -> None:
    worker, fake = harness.up()
    harness.error = ProtocolError("which it does not hold")
    harness.say(fake, done(1))
    assert fake.signals == [signal.SIGKILL]
    assert (harness.workers.chunks, worker.chunks) == (0, 0)


def test_who_says_what_no_worker_says_is_killed(harness: Harness) -> None:
    _, fake = harness.up()
    harness.say(fake, Detach(7))
    assert fake.signals == [signal.SIGKILL]


def test_trouble_and_pil_are_logged_once(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "loaderd"):
        for _ in range(2):
            worker, fake = harness.up()
            harness.assign(worker, 1)
            harness.say(fake, done(1, trouble="the disk is full"))
    assert caplog.text.count("the disk is full") == 1
    assert caplog.text.count("resized by PIL 1") == 1


# ---- deaths --------------------------------------------------------------------------


def test_what_a_worker_said_before_its_death_counts(harness: Harness) -> None:
    worker, fake = harness.up()
    harness.assign(worker, 1, 2)
    harness.take_events()
    fake.channel.send(Attached(7))
    fake.channel.send(done(1))
    fake.child.note_end(-signal.SIGSEGV)
    assert harness.take_events() == [
        ("done", worker.id, done(1)),
        ("died", worker.id, Death.CRASHED, "signal SIGSEGV"),
    ]
    assert worker.id not in harness.processes.workers


@pytest.mark.parametrize(
    ("code", "attached", "death"),
    [
        (-signal.SIGSEGV, True, Death.CRASHED),
        (-signal.SIGSEGV, False, Death.ATTACHING),
        (-signal.SIGKILL, True, Death.KILLED),
        (-signal.SIGKILL, False, Death.KILLED),
        (1, True, Death.CRASHED),
    ],
)
def test_how_it_died_depends_on_the_signal_and_on_the_stream_in_hand(
    harness: Harness, code: int, attached: bool, death: Death
) -> None:
    worker, fake = harness.up()
    harness.assign(worker, 1)
    if attached:
        harness.say(fake, Attached(7))
    fake.child.note_end(code)
    assert harness.take_events()[-1][:3] == ("died", worker.id, death)
    assert harness.processes.restarts == 1


def test_one_that_dies_before_it_is_up_is_no_event_and_delays_the_next(harness: Harness) -> None:
    harness.workers.start()
    harness.fakes[0].child.note_end(1)
    assert not harness.events
    assert harness.processes.missing(time.monotonic()) == 0
    assert "before it was up (exit code 1)" in harness.processes.trouble


def test_one_whose_socket_ends_is_killed_and_waited_for(harness: Harness) -> None:
    _, fake = harness.up()
    assert fake.child.inbox is not None
    fake.child.inbox.close()
    fake.channel.close()
    harness.loop.turn(0)
    assert fake.signals == [signal.SIGKILL]
    assert [name for name, *_ in harness.events] == ["ready"]
    fake.child.note_end(-signal.SIGKILL)
    assert [name for name, *_ in harness.events] == ["ready", "died"]


# ---- one that is silent --------------------------------------------------------------


def test_a_silent_worker_is_told_to_die_and_killed_if_it_does_not(harness: Harness) -> None:
    worker, fake = harness.up()
    harness.assign(worker, 1)
    harness.say(fake, Attached(7))
    late = worker.heard_at + worker.sample_timeout
    harness.workers.check(late - 1)
    assert not fake.signals
    harness.workers.check(late + 1)
    assert fake.signals == [signal.SIGABRT]
    harness.workers.check(late + 1.1 + LAST_WORDS_SECONDS)
    assert fake.signals == [signal.SIGABRT, signal.SIGKILL]
    fake.child.note_end(-signal.SIGKILL)
    assert harness.events[-1] == ("died", worker.id, Death.CRASHED, "no sign of life for 20 s")


def test_one_without_a_chunk_may_be_silent(harness: Harness) -> None:
    worker, fake = harness.up()
    harness.workers.check(worker.heard_at + 10_000)
    assert not fake.signals


def test_silence_counts_from_the_moment_at_which_a_chunk_came_in_hand(harness: Harness) -> None:
    worker, _ = harness.up()
    worker.heard_at -= 1000
    harness.assign(worker, 1)
    assert worker.heard_at == pytest.approx(time.monotonic(), abs=5)
    before = worker.heard_at
    harness.assign(worker, 2)  # is queued behind it, and no sign of life
    assert worker.heard_at == before


def test_loading_code_may_take_longer_than_a_sample(harness: Harness) -> None:
    worker, fake = harness.up()
    harness.assign(worker, 1)
    harness.workers.check(worker.heard_at + worker.sample_timeout + 1)
    assert not fake.signals
    harness.workers.check(worker.heard_at + UP_SECONDS + 1)
    assert fake.signals == [signal.SIGABRT]


def test_the_silence_of_the_supervisor_counts_for_nobody(harness: Harness) -> None:
    worker, fake = harness.up()
    harness.assign(worker, 1)
    harness.say(fake, Attached(7))
    late = worker.heard_at + worker.sample_timeout
    harness.workers.extend_deadlines(100.0)
    harness.workers.check(late + 99)
    assert not fake.signals
    harness.workers.check(late + 101)
    assert fake.signals


# ---- one that is slow ----------------------------------------------------------------


def test_what_is_queued_behind_a_slow_chunk_is_taken_back(harness: Harness) -> None:
    worker, fake = harness.up()
    harness.assign(worker, 1, 2)
    fake.read(2)  # Attach and the first chunk
    harness.take_events()
    harness.workers.check(worker.heard_at + SLOW_SECONDS - 0.1)
    assert not harness.events
    harness.workers.check(worker.heard_at + SLOW_SECONDS + 0.1)
    assert harness.take_events() == [("recalled", worker.id, {2})]
    assert not fake.read()


def test_one_that_has_read_nothing_keeps_its_first_chunk(harness: Harness) -> None:
    worker, fake = harness.up()
    harness.assign(worker, 1, 2)
    harness.workers.check(worker.heard_at + SLOW_SECONDS + 0.1)
    assert harness.take_events()[-1] == ("recalled", worker.id, {2})
    told = fake.read()
    assert [type(one) for one in told] == [Attach, Chunk]
    assert cast(Chunk, told[1]).ticket == 1


def test_the_attach_of_a_chunk_that_is_taken_back_is_sent_again_when_needed(
    harness: Harness,
) -> None:
    worker, fake = harness.up()
    harness.assign(worker, 1)
    fake.read()
    other = cast(OpenStream, SimpleNamespace(id=8, attach=partial(Attach, 8, *ATTACH), segments=[]))
    chunk = Chunk(2, 8, 0, 0, 0, 0, 4)
    harness.ledger[worker.id].append(chunk)
    harness.workers.assign(Assign(worker.id, chunk), other)
    harness.workers.check(worker.heard_at + SLOW_SECONDS + 0.1)
    assert harness.take_events()[-1] == ("recalled", worker.id, {2})
    harness.ledger[worker.id].append(chunk)
    harness.workers.assign(Assign(worker.id, chunk), other)
    assert [type(one) for one in fake.read()] == [Attach, Chunk]


# ---- one that waits for storage ------------------------------------------------------


def test_a_worker_that_waits_keeps_its_chunk_and_others_stand_in(harness: Harness) -> None:
    worker, fake = harness.up()
    harness.up()
    harness.assign(worker, 1, 2)
    fake.read(2)
    harness.take_events()
    harness.say(fake, Waiting(b"/nfs/a.jpg", SLOW_SECONDS / 2))
    assert not harness.events
    harness.say(fake, Waiting(b"/nfs/a.jpg", 2.0), Waiting(b"/nfs/a.jpg", 3.0))
    assert harness.take_events() == [("waiting", worker.id), ("recalled", worker.id, {2})]
    assert harness.processes.missing(time.monotonic()) == 1
    wait = harness.workers.waits.longest(7)
    assert wait is not None
    assert (wait.path, worker.id in harness.workers.waits) == ("/nfs/a.jpg", True)
    harness.say(fake, done(1))
    assert harness.take_events() == [("answered", worker.id), ("done", worker.id, done(1))]


def test_storage_answers_also_where_its_chunk_goes_on(harness: Harness) -> None:
    worker, fake = harness.up()
    harness.assign(worker, 1)
    harness.say(fake, Waiting(b"/nfs/a.jpg", 2.0), Waiting())
    assert harness.take_events()[-2:] == [("waiting", worker.id), ("answered", worker.id)]
    harness.say(fake, Waiting())
    assert not harness.events


def test_who_waits_for_a_stream_that_is_closed_is_killed(harness: Harness) -> None:
    (first, waits), (second, begins) = harness.up(), harness.up()
    for worker in (first, second):
        harness.assign(worker, 1)
    harness.say(waits, Waiting(b"/nfs/a.jpg", 2.0))
    harness.workers.detach(7)
    assert (waits.signals, begins.signals) == ([signal.SIGKILL], [])
    harness.say(begins, Waiting(b"/nfs/a.jpg", 2.0))
    assert begins.signals == [signal.SIGKILL]
    begins.child.note_end(-signal.SIGKILL)
    assert second.id not in harness.workers.waits
    assert harness.events[-1] == ("died", second.id, Death.KILLED, STORAGE)


# ---- how many there are --------------------------------------------------------------


def test_those_that_stood_in_go_again_and_the_last_first(harness: Harness) -> None:
    ids = [harness.up()[0].id for _ in range(4)]
    harness.take_events()
    harness.workers.check(time.monotonic())
    assert harness.take_events() == [("retired", ids[3]), ("retired", ids[2])]
    harness.workers.check(time.monotonic())
    assert not harness.events


def test_workers_are_renewed_one_by_one(harness: Harness) -> None:
    (first, gone), (second, also_gone) = harness.up(), harness.up()
    harness.take_events()
    harness.workers.renew(SETTINGS)
    assert harness.take_events() == [("retired", first.id)]
    gone.child.note_end(-signal.SIGKILL)
    assert [name for name, *_ in harness.take_events()] == ["died"]
    third, _ = harness.up()
    assert harness.take_events() == [("ready", third.id), ("retired", second.id)]
    also_gone.child.note_end(-signal.SIGKILL)
    fourth, _ = harness.up()
    assert harness.take_events()[-1] == ("ready", fourth.id)


def test_the_next_is_renewed_only_when_the_last_is_gone(harness: Harness) -> None:
    (first, gone), (second, _), _ = harness.up(), harness.up(), harness.up()
    harness.take_events()
    harness.workers.renew(SETTINGS)
    harness.up()
    assert [event for event in harness.take_events() if event[0] == "retired"] == [
        ("retired", first.id)
    ]
    gone.child.note_end(-signal.SIGKILL)
    assert harness.take_events()[-1] == ("retired", second.id)


def test_what_machines_decline_is_shown_while_the_stream_is_open_and_fits_into_a_packet(
    harness: Harness,
) -> None:
    worker, fake = harness.up()
    harness.assign(worker, 1)
    harness.take_events()
    chunk, stream = Declined(7, "not this one", 1), Declined(7, "x" * 8000 + " not there")
    harness.say(fake, chunk)
    assert worker.declined == {}
    harness.say(fake, stream)
    assert harness.take_events() == [
        ("declined", worker.id, chunk),
        ("declined", worker.id, stream),
    ]
    (shown,) = harness.workers.hosts.stats([worker], worker.heard_at)
    assert shown.declined.endswith("x not there")
    assert len(shown.declined) == LONGEST_PATH
    harness.workers.detach(7)
    harness.say(fake, stream)  # as it was on its way
    assert worker.declined == {}
