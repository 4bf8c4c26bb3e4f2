"""What the load is read from: rings, trainers' waits, and the work of this machine's workers."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

from loaderd import config
from loaderd.ipc.messages import Ack
from loaderd.setting_types import AutoCount
from loaderd.supervisor.autotune import CALM_SECONDS
from loaderd.supervisor.load_follower import LoadFollower
from loaderd.supervisor.slots import Event, SlotTable
from loaderd.supervisor.subscribers import Subscribers

SLOTS = 4


class Daemon:
    """Two CPUs, a full ring, and a trainer that takes a batch each second."""

    def __init__(self, workers: int = AutoCount(2, 2)) -> None:
        slots = SlotTable(SLOTS)
        for _ in range(SLOTS):
            slots.apply(slots.fill(), Event.FINISH)
        self.workers = {1: SimpleNamespace(id=1, busy_ns=0, is_remote=False)}
        self.settings = dataclasses.replace(config.load({}, {}), workers=workers)
        self.now = 0.0
        subscriber: Any = SimpleNamespace(stream=SimpleNamespace(id=7), took=Ack((), (), 0, 0, 0))
        self.subscribers = Subscribers({7: subscriber})
        scheduler: Any = SimpleNamespace(streams={7: SimpleNamespace(slots=slots)})
        processes: Any = self
        self.follower = LoadFollower(processes, scheduler, self.subscribers)

    def use(self, count: int) -> None:
        self.settings = dataclasses.replace(self.settings, workers=count)

    def second(self, waited_s: float = 0.0, busy_s: float = 0.1, worker: int = 1) -> int:
        self.now += 1.0
        self.workers[worker].busy_ns += int(busy_s * 1e9)
        took = self.subscribers[7].took
        self.subscribers[7].took = Ack(
            (), (), took.batches + 1, took.samples + 8, took.waited_ns + int(waited_s * 1e9)
        )
        self.follower.check(self.now)
        return int(self.settings.workers)

    def seconds(self, count: float, **load: Any) -> int:
        for _ in range(int(count)):
            self.second(**load)
        return int(self.settings.workers)


def test_a_full_ring_gives_up_a_worker_and_a_wait_takes_it_back() -> None:
    daemon = Daemon()
    assert daemon.seconds(CALM_SECONDS + 2) == 1
    assert daemon.second(waited_s=0.2) == 2


def test_workers_that_are_busy_stay() -> None:
    assert Daemon().seconds(10 * CALM_SECONDS, busy_s=1.5) == 2


def test_the_work_of_other_machines_counts_for_nothing() -> None:
    daemon = Daemon()
    daemon.workers[2] = SimpleNamespace(id=2, busy_ns=0, is_remote=True)
    assert daemon.seconds(CALM_SECONDS + 2, busy_s=9.0, worker=2) == 1


def test_a_number_that_was_given_stays() -> None:
    assert Daemon(workers=2).seconds(10 * CALM_SECONDS) == 2
