"""How many workers there are."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from loaderd import config
from loaderd.ipc.messages import WorkerReady
from loaderd.supervisor.children import ForkServer
from loaderd.supervisor.remote_servers import RemoteServers
from loaderd.supervisor.worker import Worker
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


class Counted:
    """In the place of gateways: gives children that do nothing, and keeps how many it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []

    def spawn(self, *_: object, revocable: bool) -> Any:
        return SimpleNamespace(pid=0, code=None, trouble="", close=lambda: None)

    def missing(self, there: int, up: int) -> int:
        self.told.append((there, up))
        return 0


class NoIteration(dict[int, Worker]):
    def __iter__(self) -> Iterator[int]:
        raise AssertionError("all workers are looked at")

    keys = values = items = cast(Any, __iter__)


def test_workers_of_other_machines_are_counted_without_a_look_at_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = Counted()
    remotes, forks = cast(RemoteServers, there), cast(ForkServer, there)
    processes = WorkerProcesses(config.load({"workers": "3"}, {}), forks, remotes=remotes)
    started = [processes.start(remote) for remote in (True, False, True)]
    first, local, second = (one for one in started if one is not None)
    ready = WorkerReady(7, "", socket.gethostname())
    processes.up(first, ready)
    processes.up(local, ready)
    for name in ("workers", "remote", "_local"):
        monkeypatch.setattr(processes, name, NoIteration(getattr(processes, name)))
    assert processes.missing(now=100.0) == 2
    processes.next_start(now=100.0)
    processes.missing_remote(now=100.0)
    processes.up(second, ready)
    processes.missing_remote(now=100.0)
    processes.reap(first, attaching=False)
    processes.missing_remote(now=100.0)
    assert there.told == [(2, 1), (2, 2), (1, 1)]
    assert processes.missing(now=100.0) == 2
