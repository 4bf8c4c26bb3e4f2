"""Trainers under a storm: short forms of ``scripts/chaos``, which is what judges."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from scripts.faults import census, clients
from scripts.faults.census import Census
from scripts.faults.clients import Client
from scripts.faults.daemons import end_all

ROOT = Path(__file__).parents[2]
ANY_SPEED = "--least=0.05"
"""What it is, is measured where the machine is quiet, and not beside other tests."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """With a short path: a socket lies in it."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name) / "kept"


def chaos(folder: Path, *words: str) -> subprocess.Popen[str]:
    program = [str(ROOT / "scripts" / "chaos"), "--seed=3", f"--keep={folder}", *words]
    return subprocess.Popen(
        program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    )


def left_of(folder: Path) -> list[str]:
    """Command lines of processes that know the folder."""
    lines = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), *process.environ().values()]
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if process.pid != os.getpid() and any(str(folder) in word for word in words):
            lines.append(" ".join(words[:5]))
    return lines


def check(folder: Path, process: subprocess.Popen[str], timeout: float) -> str:
    said, _ = process.communicate(timeout=timeout)
    assert process.returncode == 0, said
    assert "verdict: nothing lost, nothing twice, no byte changed" in said
    assert left_of(folder) == []
    return said


def test_trainers_lose_nothing_in_a_storm(folder: Path) -> None:
    words = "--minutes=0.12", "--restart-every=2", "--trainers=plain"
    said = check(folder, chaos(folder, ANY_SPEED, *words), timeout=110)
    assert "SIGKILL" in said
    assert (folder / "augmented.history").stat().st_size > 0


def test_ctrl_c_ends_it_and_leaves_nothing(folder: Path) -> None:
    words = "--least=0", "--restart-every=1", "--trainers=plain"
    process = chaos(folder, *words)
    assert process.stdout is not None
    assert any(" batches, " in line for line in process.stdout)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "chaos: interrupted" in said
    assert left_of(folder) == []


@pytest.mark.long
@pytest.mark.timeout(600)
def test_keras_loses_nothing_in_a_storm(folder: Path) -> None:
    check(folder, chaos(folder, ANY_SPEED, "--minutes=2"), timeout=580)


# ---- what counts ------------------------------------------------------------------------

HOLDER = """
import mmap, os, time
fd = os.memfd_create("held")
os.truncate(fd, 5000)
if os.fork() == 0:
    view = mmap.mmap(fd, 5000)
os.write(1, b"there\\n")
time.sleep(60)
"""


def test_what_processes_hold_is_counted() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, start_new_session=True, cwd=ROOT
    ) as process:
        try:
            assert process.stdout is not None
            assert [process.stdout.readline() for _ in range(2)] == [b"there\n"] * 2
            found = census.take(process.pid)
            assert found.processes == 2
            assert found.descriptors == 4
            assert 5000 <= found.shared <= 8192  # once, whoever holds it
            assert not found.within(Census(1, 4, 8192))
            assert not found.within(Census(2, 3, 8192))
            assert not found.within(Census(2, 4, 4096))
            assert found.within(found)
        finally:
            end_all([process.pid])
    assert census.eventually(lambda: not census.members({process.pid}), 10)


@pytest.fixture
def module(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Makes a module that clients can be; returns its name."""

    def make(text: str) -> str:
        folder.mkdir()
        (folder / "odd_client.py").write_text(text)
        monkeypatch.setenv("PYTHONPATH", str(folder))
        return "odd_client"

    return make


def test_a_clients_bad_end_is_a_finding(folder: Path, module: Callable[[str], str]) -> None:
    ends = module("import sys; print('why'); sys.exit(int(sys.argv[1]))")
    for code, findings in ((0, []), (3, ["one ended with code 3: why"])):
        client = Client("one", folder, "/nowhere", ends, str(code))
        client.await_end(30)
        assert client.findings == findings
        client.look()  # it should train
        assert client.findings == [f"one ended with code {code}: why"]


def test_a_trainer_that_gets_nothing_is_a_finding(
    folder: Path, module: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "MAX_SILENT", 0.3)
    client = Client("one", folder, "/nowhere", module("import time; time.sleep(60)"))
    try:
        client.history.write_bytes(b"{}\n")
        client.look()
        assert client.findings == []

        def found() -> bool:
            client.look()
            return bool(client.findings)

        assert census.eventually(found, 30)
        assert client.findings == ["one got no batch for 0.3 s"]
    finally:
        client.kill()
