"""Batch systems send signals to all processes of a job: daemons leave them to whom they mean."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from loaderd.ipc import dial
from loaderd.supervisor import worker
from loaderd.supervisor.actions import Death
from loaderd_client import Session
from tests.faults.conftest import Sabotage
from tests.support.daemons import Serve, eventually, family, gone, private_pid
from tests.support.streams import a_spec, digest, read_all, run_of, slow

JOB = [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGXCPU, signal.SIGINT]


def test_a_private_daemon_takes_no_notice_of_what_is_sent_to_its_trainers_job(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOADERD_WORKERS", "2")
    with Session() as session:
        stream = session.open(a_spec(photos), slots=4)
        run = run_of(stream)
        got = [digest(next(run))]
        # Supervisor, fork server, workers, opener, and the resource tracker of multiprocessing.
        eventually(lambda: len(family(private_pid(session))) == 6)
        members = family(private_pid(session))
        for number in JOB:
            for member in members:
                member.send_signal(number)
            got.append(digest(next(run)))
        got += [digest(batch) for batch in run]
        assert dial.observe(session.path).restarts == 0
        assert not any(map(gone, members))
    assert len(set(got)) == 24


def test_it_takes_none_of_what_is_sent_while_it_starts(photos: Path) -> None:
    """Not even a moment passes in which a signal to the job would be its end."""
    program = (
        "import os, signal, sys, threading, time\n"
        "import psutil\n"
        "signal.signal(signal.SIGUSR1, lambda *_: None)\n"
        "def storm():\n"
        "    while True:\n"
        "        for one in psutil.process_iter(['environ']):\n"
        "            if (one.info['environ'] or {}).get('MARK') == sys.argv[1]:\n"
        "                one.send_signal(signal.SIGUSR1)\n"
        "        time.sleep(0.01)\n"
        "threading.Thread(target=storm, daemon=True).start()\n"
        "from loaderd_client import Session\n"
        "with Session():\n"
        "    print('up')\n"
    )
    mark = f"{os.getpid()}-{photos}"
    done = subprocess.run(
        [sys.executable, "-c", program, mark],
        env={**os.environ, "MARK": mark},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "up\n", done.stderr


def test_the_workers_of_a_shared_daemon_take_no_notice_either(serve: Serve, photos: Path) -> None:
    with serve(2) as daemon, Session(daemon.path) as session:
        stream = session.open(slow(a_spec(photos)), slots=4)
        stream.take((0, 0))
        workers = daemon.workers()
        forkserver = psutil.Process(workers[0]).ppid()
        for number in JOB:
            for pid in (*workers, forkserver):
                os.kill(pid, number)
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU):
            daemon.process.send_signal(number)
        assert [stream.take((0, position)).place for position in (1, 2)] == [(0, 1), (0, 2)]
        assert daemon.workers() == workers


FORKS = """
import itertools, os, signal, subprocess, sys

def waits(image):
    # Children are struck at once, before they have done anything.
    for number in (signal.SIGTERM, signal.SIGINT):
        for child in itertools.chain([started()], (forked() for _ in range(100))):
            os.kill(child, number)
            assert os.waitpid(child, 0)[1] in (number, INTERRUPTED << 8)
    return image

INTERRUPTED = 3

def forked():
    try:
        return os.fork() or signal.pause()
    except KeyboardInterrupt:
        os._exit(INTERRUPTED)

def started():
    return subprocess.Popen(["sleep", "60"]).pid
"""


def test_what_a_users_function_starts_is_ended_by_signals_as_ever(
    serve: Serve, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "starts_processes.py").write_text(FORKS)
    script = (
        "import sys, starts_processes\n"
        "from loaderd_client import ImageDataGenerator\n"
        "made = ImageDataGenerator(preprocessing_function=starts_processes.waits)\n"
        "flow = made.flow_from_directory(sys.argv[1], target_size=(9, 9), batch_size=2)\n"
        "print(len(flow[0][0]))\n"
    )
    with serve(1):
        done = subprocess.run(
            [sys.executable, "-c", script, str(photos)],
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.stdout.splitlines()[-1:] == ["2"], done.stderr


@pytest.mark.parametrize(
    ("code", "death"),
    [
        (-signal.SIGTERM, Death.KILLED),
        (-signal.SIGUSR1, Death.KILLED),
        (-signal.SIGHUP, Death.KILLED),
        (-signal.SIGALRM, Death.KILLED),
        (-64, Death.KILLED),
        (None, Death.KILLED),
        (-signal.SIGSEGV, Death.CRASHED),
        (-signal.SIGFPE, Death.CRASHED),
        (-signal.SIGABRT, Death.CRASHED),
        (1, Death.CRASHED),
        (0, Death.CRASHED),
    ],
)
def test_who_dies_by_a_signal_from_elsewhere_is_not_to_blame(
    code: int | None, death: Death
) -> None:
    class Anybody:
        exit_reason = ""

    assert worker.death_of(Anybody(), code, False) == death  # type: ignore[arg-type]
    assert worker.cause_of(code)


def test_a_sample_over_which_workers_get_such_signals_is_not_quarantined(
    sabotage: Sabotage, photos: Path
) -> None:
    with sabotage("decoding", "SIGALRM", name="dog/007.jpg", times=5) as daemon:
        assert len(read_all(daemon.path, a_spec(photos))) == 24
        assert daemon.snapshot().daemon.bad == 0
        eventually(lambda: daemon.snapshot().restarts == 5)
