"""How many workers there are."""

from __future__ import annotations

from typing import cast

from loaderd import config
from loaderd.supervisor.children import ForkServer
from loaderd.supervisor.worker_processes import LINGER_SECONDS, WorkerProcesses


def some_processes(workers: int) -> WorkerProcesses:
    return WorkerProcesses(config.load({"workers": str(workers)}, {}), cast(ForkServer, None))


def test_as_many_stand_in_as_wait_and_no_more_than_there_are_workers() -> None:
    processes = some_processes(2)
    missing = []
    for waiting in (0, 1, 5):
        processes.stand_in(waiting, now=100.0)
        missing.append(processes.missing(now=100.0))
    assert missing == [2, 3, 4]


def test_those_who_stand_in_stay_for_a_while() -> None:
    processes = some_processes(2)
    processes.stand_in(2, now=100.0)
    processes.stand_in(0, now=100.0 + LINGER_SECONDS)
    assert processes.missing(now=101.0) == 4
    processes.stand_in(1, now=100.1 + LINGER_SECONDS)
    assert processes.missing(now=101.0) == 3
