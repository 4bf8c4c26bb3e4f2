"""With no daemon at the address the trainer gets its own, which ends as the trainer does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from loaderd.errors import NoDaemon
from loaderd.ipc import dial
from loaderd.launch.launch import Launch
from loaderd_client import Session, connect
from tests.support.daemons import Serve, eventually, family, gone, private_pid, serving
from tests.support.streams import a_spec, run_of
from tests.support.trainers import a_dataset

PROGRAM = """
    import sys
    from pathlib import Path
    from loaderd_client import Session
    from tests.process.test_streams import a_spec
    session = Session()
    stream = session.open(a_spec(Path(sys.argv[1])), slots=4)
    batch = stream.take((0, 0))
    print(session._private.pid, flush=True)
"""
Trainer = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def trainer(photos: Path) -> Iterator[Trainer]:
    started: list[subprocess.Popen[str]] = []

    def start(then: str) -> subprocess.Popen[str]:
        program = textwrap.dedent(PROGRAM) + then
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(photos)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def daemon_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    assert process.stdout is not None
    return family(int(process.stdout.readline()))


ENDS: dict[str, tuple[str, Callable[[subprocess.Popen[str]], object]]] = {
    "returns": ("input()", lambda process: process.communicate("\n")),
    "raises": ("input(); raise SystemExit(3)", lambda process: process.communicate("\n")),
    "is killed": ("input()", lambda process: process.kill()),
    "gets SIGTERM": ("input()", lambda process: process.terminate()),
    "gets Ctrl-C": ("input()", lambda process: process.send_signal(signal.SIGINT)),
    "leaves at once": ("input(); import os; os._exit(0)", lambda p: p.communicate("\n")),
}


@pytest.mark.parametrize("how", ENDS)
def test_the_daemon_is_gone_however_the_trainer_ends(
    trainer: Trainer, runtime: str, how: str
) -> None:
    then, end = ENDS[how]
    before = set(os.listdir("/dev/shm"))
    process = trainer(then)
    members = daemon_of(process)
    assert len(members) >= 3
    end(process)
    process.wait(10)
    eventually(lambda: all(gone(member) for member in members), 10)
    eventually(lambda: set(os.listdir("/dev/shm")) <= before)
    assert os.listdir(os.path.join(runtime, "loaderd")) == []


def test_a_child_that_outlives_the_trainer_does_not_keep_the_daemon(trainer: Trainer) -> None:
    then = "import os, signal; pid = os.fork() or signal.pause(); print(pid, flush=True); input()"
    process = trainer(then)
    members = daemon_of(process)
    assert process.stdout is not None
    child = psutil.Process(int(process.stdout.readline()))
    process.kill()
    process.wait(10)
    try:
        eventually(lambda: all(gone(member) for member in members), 10)
    finally:
        child.kill()


def test_it_says_so_in_one_line(trainer: Trainer) -> None:
    _, stderr = trainer("").communicate(timeout=30)
    assert stderr.count("\n") == 1
    assert "no daemon at" in stderr
    assert "loaderd start" in stderr


def test_beside_a_daemon_that_does_not_answer_it_says_so(
    serve: Serve, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dial, "TIMEOUT", 0.2)
    with serve(1) as daemon:
        daemon.process.send_signal(signal.SIGSTOP)
        try:
            Session().close()
        finally:
            daemon.process.send_signal(signal.SIGCONT)
        said = f"the daemon at {daemon.path} (pid {daemon.process.pid}) does not answer; started"
        assert said in capfd.readouterr().err


def test_a_context_manager_closes_everything(photos: Path) -> None:
    with connect() as session:
        stream = session.open(a_spec(photos), slots=4)
        batch = next(run_of(stream))
        members = family(private_pid(session))
    eventually(lambda: all(gone(member) for member in members))
    assert batch.images.max() <= 1.0  # what was handed out stays valid


def test_a_stream_that_nobody_else_can_share_is_warned_of(photos: Path) -> None:
    with connect(), pytest.warns(UserWarning, match="share='search': only this .*loaderd start"):
        a_dataset(photos, share="search").close()


def test_auto_never_starts_a_daemon_and_says_how_to(runtime: str) -> None:
    with pytest.raises(NoDaemon, match="loaderd start"):
        connect("auto")
    assert not os.path.exists(os.path.join(runtime, "loaderd"))


def test_a_given_address_without_a_daemon_is_an_error(runtime: str) -> None:
    with pytest.raises(NoDaemon, match=r"elsewhere\.sock"):
        connect(f"{runtime}/elsewhere.sock")


def test_a_private_daemon_that_cannot_start_says_why(
    monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    monkeypatch.setenv("LOADERD_WORKERS", "many")
    with pytest.raises(NoDaemon, match="LOADERD_WORKERS"):
        Session()


def test_ctrl_c_while_it_starts_leaves_nothing(
    runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Launch, "_end_booting", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Session()
    monkeypatch.undo()
    eventually(lambda: not serving(f"--owner={os.getpid()}"))
