"""Gateways come as the workers of other machines do: one for every eight."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from loaderd.setting_types import WorkerRange
from loaderd.supervisor import remote_servers
from loaderd.supervisor.children import Child, ForkServer
from loaderd.supervisor.loop import Loop
from loaderd.supervisor.remote_servers import RemoteServers


class FakeServer:
    """A gateway that joins when it is told to."""

    def __init__(self, loop: Loop, address: str, tells: bool) -> None:
        self.tells = tells
        self.connected = False
        self.trouble = ""
        self.count = 0
        self.began = False

    def begin(self) -> None:
        self.began = True

    def spawn(self, target: Callable[..., None], *args: Any, revocable: bool = False) -> Child:
        assert self.connected
        self.count += 1
        return cast(Child, None)


class Forks:
    def __init__(self) -> None:
        self.others: list[FakeServer] = []


def made(monkeypatch: pytest.MonkeyPatch, least: int, most: int) -> tuple[RemoteServers, Forks]:
    monkeypatch.setattr(remote_servers, "RemoteServer", FakeServer)
    forks, wanted = Forks(), WorkerRange(least, most)
    there = RemoteServers(cast(Loop, None), cast(ForkServer, forks), "head:1", wanted)
    return there, forks


def ask(there: RemoteServers, count: int) -> None:
    for _ in range(count):
        there.spawn(lambda: None)


def test_none_is_asked_for_before_a_gateway_has_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    there, forks = made(monkeypatch, 0, 20)
    assert [server.began for server in forks.others] == [True]
    assert there.missing(0, 0) == 0
    assert not there.connected
    forks.others[0].connected = True
    assert there.missing(0, 0) == 8


def test_another_gateway_comes_when_the_workers_of_all_are_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there, forks = made(monkeypatch, 0, 20)
    forks.others[0].connected = True
    ask(there, there.missing(0, 0))
    assert there.missing(8, 7) == 0
    assert len(forks.others) == 1
    assert there.missing(8, 8) == 0
    assert len(forks.others) == 2
    assert there.missing(8, 8) == 0, "the second one has not joined yet"
    assert len(forks.others) == 2
    forks.others[1].connected = True
    ask(there, there.missing(8, 8))
    assert [server.count for server in forks.others] == [8, 8]
    there.missing(16, 16)
    forks.others[2].connected = True
    assert there.missing(16, 16) == 4
    assert there.missing(20, 20) == 0
    assert len(forks.others) == 3
    assert [server.tells for server in forks.others] == [True, False, False]


def test_as_many_as_the_least_workers_need_are_started_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there, forks = made(monkeypatch, 17, 64)
    assert len(forks.others) == 3
    forks.others[1].connected = True
    assert there.missing(0, 0) == 8


def test_the_trouble_of_one_counts_while_no_other_has_joined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there, forks = made(monkeypatch, 9, 64)
    forks.others[1].trouble = "no cluster"
    assert there.trouble == "no cluster"
    forks.others[0].connected = True
    assert there.trouble == ""
