"""A daemon comes up, or the start says in one line why not, and nothing is left of it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from loaderd.errors import NoDaemon, NoDescriptor
from loaderd.launch import interpreter, launch
from loaderd.launch.launch import Launch, last_lines
from loaderd.launch.private import PrivateDaemon
from tests.support.daemons import eventually, serving

MARK = f"--owner={os.getpid()}"


@pytest.fixture
def log() -> Iterator[int]:
    fd = os.memfd_create("log")
    yield fd
    os.close(fd)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = os.listdir("/proc/self/fd")
    yield
    eventually(lambda: not serving(MARK))
    assert os.listdir("/proc/self/fd") == before


def test_it_is_no_child_of_ours_and_leads_a_session(
    log: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "print(os.getppid(), os.getsid(0) == os.getpid()); os.write({}, b'1')"
    monkeypatch.setattr(launch, "_SERVE", program.format("int(sys.argv[-1].split('=')[1])"))
    started = Launch([MARK], log)
    assert started.wait()
    assert started.process is not None
    parent, leads = last_lines(log)[0].split()
    assert int(parent) != os.getpid()
    assert leads == "True"
    with pytest.raises(ChildProcessError):
        os.waitpid(started.process.pid, os.WNOHANG)


@pytest.mark.parametrize(
    ("program", "failure"),
    [
        ("sys.exit(3)", "ended before it answered"),
        ("os.kill(os.getpid(), 9)", "ended before it answered"),
        ("import signal; signal.pause()", "did not answer within 1 s and was killed"),
    ],
)
def test_what_does_not_come_up_is_ended(
    program: str, failure: str, log: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "_SERVE", program)
    monkeypatch.setattr(launch, "START_SECONDS", 1.0)
    started = Launch([MARK], log)
    assert not started.wait()
    assert started.failure == failure
    assert started.process is not None
    assert not started.process.alive


def test_a_python_that_does_not_even_begin_is_no_daemon(
    log: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interpreter, "find", lambda: "/bin/false")
    started = Launch([MARK], log)
    assert not started.wait()
    assert started.process is None


@pytest.mark.parametrize(
    ("number", "kind", "text"),
    [
        (errno.EAGAIN, NoDaemon, "no process could be started for a daemon"),
        (errno.ENOMEM, NoDaemon, "no process could be started for a daemon"),
        (errno.EMFILE, NoDescriptor, "no descriptor is left for a daemon: this process"),
        (errno.ENFILE, NoDescriptor, "no descriptor is left for a daemon: the system"),
    ],
)
def test_what_the_system_refuses_is_one_line(
    number: int, kind: type[Exception], text: str, log: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(subprocess, "Popen", refused)
    with pytest.raises(kind, match=text) as raised:
        Launch([MARK], log)
    assert "\n" not in str(raised.value)
    with pytest.raises(kind, match=text):
        PrivateDaemon([MARK])


def test_a_private_daemon_that_cannot_start_says_why_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(launch, "_SERVE", "raise SystemExit('this\\nand that\\x1b[2J')")
    with pytest.raises(NoDaemon, match="could not start: this; and that") as raised:
        PrivateDaemon([MARK])
    assert str(raised.value).isprintable()


def test_the_variables_of_a_start_reach_no_child_of_the_daemon(
    log: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "print([name for name in os.environ if 'BOOT' in name]); sys.stdout.flush()"
    monkeypatch.setattr(launch, "_SERVE", program)
    assert not Launch([MARK], log).wait()
    assert last_lines(log) == ["[]"]


def test_a_name_in_sys_path_that_no_text_holds_is_handed_on(
    log: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = os.fsdecode(b"/odd/\xff'\"\\\n")
    monkeypatch.setattr(sys, "path", [*sys.path, odd])
    monkeypatch.setattr(launch, "_SERVE", "print(ascii(sys.path)); sys.stdout.flush()")
    assert not Launch([MARK], log).wait()
    assert ascii(odd) in last_lines(log)[0]
