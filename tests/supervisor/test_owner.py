"""The trainer of a private daemon: what it may ask for, and that its end is seen."""

from __future__ import annotations

import dataclasses
import logging
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from loaderd import config
from loaderd.ipc import channel
from loaderd.ipc.channel import Channel
from loaderd.ipc.messages import Confirm, Connect, Stop
from loaderd.supervisor.loop import Loop
from loaderd.supervisor.owner import Owner
from tests.support.daemons import eventually


class Control:
    """An owner's end of the control socket, and what the daemon's end has reported."""

    def __init__(self, loop: Loop, pid: int | None = None) -> None:
        ours, theirs = channel.pair()
        self.channel = Channel(ours)
        self.said: list[str] = []
        self.fds: list[int] = []
        settings = dataclasses.replace(
            config.load({}, {}), owner=pid or os.getpid(), control_fd=theirs.detach()
        )
        self.owner = Owner(
            settings,
            loop,
            connect=self.fds.append,
            stop=lambda: self.said.append("stop"),
            gone=lambda: self.said.append("gone"),
        )


@pytest.fixture
def loop() -> Iterator[Loop]:
    with Loop() as loop:
        yield loop


def test_it_connects_by_descriptors_and_asks_for_the_end(loop: Loop) -> None:
    control = Control(loop)
    fd = os.memfd_create("x")
    control.channel.send(Connect(), [fd])
    loop.turn(0)
    control.channel.send(Stop())
    loop.turn(0)
    assert [os.fstat(one).st_ino for one in control.fds] == [os.fstat(fd).st_ino]
    assert control.said == ["stop"]
    for one in (fd, *control.fds):
        os.close(one)


@pytest.mark.parametrize("fds", [0, 2])
def test_what_else_it_says_is_logged_and_keeps_no_descriptor(
    loop: Loop, caplog: pytest.LogCaptureFixture, fds: int
) -> None:
    control = Control(loop)
    sent = [os.memfd_create("x") for _ in range(fds)]
    before = len(os.listdir("/proc/self/fd"))
    with caplog.at_level(logging.ERROR, "loaderd"):
        control.channel.send(Connect() if fds else Confirm(), sent)
        loop.turn(0)
    assert "the owner sent" in caplog.text
    assert len(os.listdir("/proc/self/fd")) == before
    assert not control.said
    for fd in sent:
        os.close(fd)


def test_the_end_of_its_socket_is_its_end(loop: Loop) -> None:
    control = Control(loop)
    control.owner.check()
    assert not control.said
    control.channel.close()
    loop.turn(0)
    assert control.said == ["gone"]
    loop.turn(0)
    assert control.said == ["gone"]


def test_the_end_of_its_process_is_its_end_though_a_child_has_the_socket(loop: Loop) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        control = Control(loop, process.pid)
        control.owner.check()
        assert not control.said
        process.kill()

    def seen() -> bool:
        control.owner.check()
        return control.said[:1] == ["gone"]

    eventually(seen)
