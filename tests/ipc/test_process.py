"""Processes that are no children of ours are known by more than their number."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from loaderd.ipc import process
from loaderd.ipc.process import Process
from tests.support.daemons import eventually


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as running:
        yield running
        running.kill()


def test_it_lives_until_it_ends(sleeper: subprocess.Popen[bytes]) -> None:
    found = Process(sleeper.pid)
    assert found.alive
    assert not found.wait(0)
    found.send(signal.SIGKILL)
    assert found.wait(10)  # nobody has taken note of its end yet
    sleeper.wait()
    assert not found.alive
    found.send(signal.SIGKILL)


def test_a_later_process_of_the_same_number_is_another(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Process(sleeper.pid)
    monkeypatch.setattr(found, "_started", "1")
    assert not found.alive
    found.send(signal.SIGKILL)
    assert sleeper.poll() is None


def test_a_name_with_brackets_and_spaces_is_no_trouble() -> None:
    words = ["-c", 'printf "(a) b" > /proc/self/comm; echo; read x']
    with subprocess.Popen(["sh", *words], stdin=-1, stdout=-1) as odd:
        assert odd.stdout is not None
        odd.stdout.readline()
        assert Process(odd.pid).alive
        odd.communicate(b"\n")


def test_where_proc_hides_it_its_number_is_what_counts(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Process(sleeper.pid)
    monkeypatch.setattr(process, "_state", lambda pid: process._State(True, ""))
    found = Process(sleeper.pid)
    assert found.alive
    assert before.alive
    sleeper.kill()
    sleeper.wait()
    assert not found.alive


def test_one_that_is_gone_already_never_lived() -> None:
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    eventually(lambda: not Process(child).alive)


def test_the_time_on_a_cpu_grows_with_work() -> None:
    before = process.cpu_times(os.getpid())
    sum(range(2_000_000))
    assert process.cpu_times(os.getpid())[0] > before[0]


def test_a_process_that_is_gone_has_no_times() -> None:
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    assert process.cpu_times(ended.pid) == (0, 0)
