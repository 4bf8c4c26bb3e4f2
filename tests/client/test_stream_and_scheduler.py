"""The client's view of what is made ahead, and the daemon's, joined: nobody waits for ever."""

from __future__ import annotations

import random
import select
import threading
from collections import deque
from collections.abc import Callable, Iterable
from time import monotonic

import pytest

from loaderd.ipc.channel import Closed
from loaderd.ipc.messages import Ack, Plan, Ready
from loaderd.ipc.prefetch import ROUND, WHOLE, Place
from loaderd.supervisor.actions import Action, Assign, Deliver
from loaderd.supervisor.scheduler import Scheduler
from loaderd.supervisor.stream_shape import Shape
from loaderd_client.core.guard import Caller
from loaderd_client.keras.batch_index import Places
from tests.client.test_stream import FakeDaemon

WORKERS = 2
READS = 14
DEADLINE_S = 20
CHURN = 5
"""Rings that may be made for a read: it goes on elsewhere, and what was begun is given back."""


class Daemon(FakeDaemon):
    """The real scheduler, with workers that write what batch it is, in random order of time."""

    def __init__(self, batches: int, slots: int, chance: random.Random) -> None:
        super().__init__(batches=batches, slots=slots)
        self.made = 0
        self._chance = chance
        self._scheduler = Scheduler()
        self._workers: list[deque[int]] = [deque() for _ in range(WORKERS)]
        self._scheduler.open(1, Shape(3 * batches, 3, slots=slots), WHOLE)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        for worker in range(WORKERS):
            self._perform(self._scheduler.worker_up(worker))
        poll = select.poll()
        poll.register(self.line.fileno(), select.POLLIN)
        try:
            while True:
                busy = [worker for worker, held in enumerate(self._workers) if held]
                if poll.poll(0 if busy else None) and (not busy or self._chance.random() < 0.5):
                    self._hear()
                elif busy:
                    worker = self._chance.choice(busy)
                    ticket = self._workers[worker].popleft()
                    self._perform(self._scheduler.done(worker, ticket, 1000))
        except Closed:
            return

    def _hear(self) -> None:
        match self.heard():
            case Ack(taken, released):
                self._perform(self._scheduler.took(1, taken, released))
            case Plan(want, run):
                self._perform(self._scheduler.plan(1, want, run))

    def _perform(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Assign(worker, chunk):
                    self._workers[worker].append(chunk.ticket)
                case Deliver(_, slot, place, attempt, skipped):
                    self.made += 1
                    self.slots[slot].ids[:] = mark(place)
                    self.line.send(Ready(slot, *place, attempt, skipped))

    def end(self) -> None:
        self.stream.close()
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()


def mark(place: Place) -> list[int]:
    return [place[0] % ROUND % 1000, place[0] // ROUND, place[1]]


def by_index(places: Places, chance: random.Random, batches: int) -> Place:
    return places.read(chance.randrange(batches), Caller())


def with_looks(places: Places, chance: random.Random, batches: int) -> Place:
    if chance.random() < 0.3:
        return places.peek(chance.randrange(batches))
    return by_index(places, chance, batches)


def with_next(places: Places, chance: random.Random, batches: int) -> Place:
    return places.next(Caller()) if chance.random() < 0.6 else by_index(places, chance, batches)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("read", [by_index, with_looks, with_next])
def test_whatever_is_asked_for_comes_and_nothing_is_made_without_end(
    read: Callable[[Places, random.Random, int], Place], seed: int, threads: int
) -> None:
    chance = random.Random(seed)
    for _ in range(50):
        batches, slots = chance.choice([1, 2, 3, 4]), chance.choice([2, 3, 4, 8])
        places, asked = Places(batches, shuffle=True), list[Place]()
        for _ in range(READS):
            if chance.random() < 0.15:
                places.end_epoch()
            asked.append(read(places, chance, batches))
            places.done(asked[-1])
        daemon = Daemon(batches, slots, chance)
        got: dict[int, list[int]] = {}
        takers = [
            threading.Thread(
                target=take_some,
                args=(daemon, asked, range(first, READS, threads), got),
                daemon=True,
            )
            for first in range(threads)
        ]
        for taker in takers:
            taker.start()
        deadline = monotonic() + DEADLINE_S
        for taker in takers:
            taker.join(max(0, deadline - monotonic()))
        expected = {number: mark(place) for number, place in enumerate(asked)}
        assert got == expected, (batches, slots, asked)
        daemon.end()
        assert daemon.made <= CHURN * READS * slots


def take_some(
    daemon: Daemon, asked: list[Place], numbers: range, got: dict[int, list[int]]
) -> None:
    for number in numbers:
        got[number] = daemon.stream.take(asked[number]).ids.tolist()
