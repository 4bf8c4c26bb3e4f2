"""``loaderd start``, ``status``, ``stop`` and ``serve`` with a real daemon."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from loaderd.cli import scan, scan_epoch, stat
from loaderd.cli.main import main
from loaderd.ipc import dial
from tests.support.daemons import eventually

DEADLINE = 30.0
LOADERD = [sys.executable, "-m", "loaderd"]
STAT = [sys.executable, "-c", "from loaderd.cli.main import stat; raise SystemExit(stat())"]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    mine = {k: v for k, v in os.environ.items() if not k.startswith("LOADERD_")}
    return mine | {"XDG_RUNTIME_DIR": str(tmp_path), "LOADERD_WORKERS": "1", "COLUMNS": "100"}


@pytest.fixture
def socket(tmp_path: Path) -> str:
    return str(tmp_path / "loaderd" / "default.sock")


@pytest.fixture
def run(environ: dict[str, str]) -> Iterator[Run]:
    def call(*words: str, program: list[str] = LOADERD) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*program, *words], env=environ, text=True, capture_output=True, timeout=DEADLINE
        )

    try:
        yield call
    finally:
        call("stop", "--timeout=5")


@pytest.fixture
def started(run: Run, socket: str) -> Iterator[psutil.Process]:
    done = run("start")
    assert done.returncode == 0, done.stderr
    process = psutil.Process(dial.observe(socket).daemon.pid)
    family = [process, *process.children(recursive=True)]
    yield process
    run("stop", "--timeout=5")
    assert not psutil.wait_procs(family, DEADLINE)[1]


@pytest.fixture
def silent(
    started: psutil.Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[psutil.Process]:
    """The daemon, stopped; commands of this process wait for it but a moment, and only once."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(dial, "SOON", 0.3)
    monkeypatch.setattr(dial, "TIMEOUT", 3600.0)
    started.suspend()
    yield started
    if not gone(started):
        started.resume()


def gone(process: psutil.Process) -> bool:
    """Ended; where no init reaps orphans, as in many containers, a zombie remains."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@contextlib.contextmanager
def serving(environ: dict[str, str], *flags: str) -> Iterator[subprocess.Popen[str]]:
    """``loaderd serve``, once it has said that it is ready."""
    ready, tell = os.pipe()
    words = [*LOADERD, "serve", f"--ready-fd={tell}", *flags]
    with subprocess.Popen(
        words, env=environ, pass_fds=[tell], stderr=subprocess.PIPE, text=True
    ) as process:
        os.close(tell)
        try:
            assert select.select([ready], [], [], DEADLINE)[0]
            assert os.read(ready, 2) == b"1"
            assert os.read(ready, 2) == b""  # closed, here and in every worker
            yield process
        finally:
            os.close(ready)
            process.kill()


class TestStart:
    def test_it_says_in_one_line_what_runs_where(
        self, run: Run, socket: str, tmp_path: Path
    ) -> None:
        done = run("start")
        assert (done.returncode, done.stderr) == (0, "")
        pid = dial.observe(socket).daemon.pid
        log = socket.replace(".sock", ".log")
        assert done.stdout == f'loaderd "default" is up: pid {pid}, socket {socket}, log {log}\n'
        assert os.stat(log).st_mode & 0o777 == 0o600
        assert os.stat(tmp_path / "loaderd").st_mode & 0o777 == 0o700

    def test_it_is_detached(self, started: psutil.Process) -> None:
        assert os.getsid(started.pid) == started.pid
        assert os.readlink(f"/proc/{started.pid}/fd/0") == "/dev/null"
        assert started.cwd() == "/"

    def test_a_second_one_is_refused(self, run: Run, started: psutil.Process) -> None:
        done = run("start")
        assert done.returncode == 1
        assert done.stderr.startswith(f"loaderd: another daemon (pid {started.pid}) is running at ")
        assert started.is_running()

    def test_a_failure_shows_the_log(self, run: Run, tmp_path: Path) -> None:
        """Only the child finds out that the lock's name is taken by a folder."""
        (tmp_path / "loaderd" / "default.lock").mkdir(parents=True)
        done = run("start")
        assert done.returncode == 1
        *log, last = done.stderr.splitlines()
        assert log[-1].startswith("loaderd: ")
        assert "default.lock" in log[-1]
        assert 'File "' not in done.stderr
        assert last.startswith('loaderd "default" did not start: it ended before it answered; ')

    def test_its_file_is_read_again_at_sighup(
        self, environ: dict[str, str], run: Run, socket: str, tmp_path: Path
    ) -> None:
        file = tmp_path / "loaderd.toml"
        file.write_text("workers = 1\nnice = 1\n")
        del environ["LOADERD_WORKERS"]
        environ["LOADERD_CONFIG"] = os.path.relpath(file)
        assert run("start", "--nice=2").returncode == 0
        seen = dial.observe(socket)
        assert seen.workers_wanted == 1
        file.write_text("workers = 2\nnice = 3\n")
        os.kill(seen.daemon.pid, signal.SIGHUP)
        old = {worker.pid for worker in seen.workers}

        def renewed() -> bool:
            pids = {worker.pid for worker in dial.observe(socket).workers}
            return len(pids) == 2 and not pids & old

        eventually(renewed)
        (nice,) = {psutil.Process(w.pid).nice() for w in dial.observe(socket).workers}
        assert nice == 2  # the flag goes on to win

    def test_what_its_file_says_of_places_waits_for_the_next_start_and_is_told(
        self, environ: dict[str, str], run: Run, socket: str, tmp_path: Path
    ) -> None:
        """Paths count from the folder of ``start``, which the daemon has left since."""
        file = tmp_path / "loaderd.toml"
        file.write_text('cache_dir = "caches"\n')
        environ["LOADERD_CONFIG"] = str(file)
        assert run("start").returncode == 0
        pid = dial.observe(socket).daemon.pid
        log = Path(socket.replace(".sock", ".log"))
        try:
            os.kill(pid, signal.SIGHUP)
            eventually(lambda: "replacing" in log.read_text())
            assert "stays" not in log.read_text()
            file.write_text('cache_dir = "elsewhere"\nname = "gpu0"\n')
            os.kill(pid, signal.SIGHUP)
            kept = f"cache_dir stays {os.path.abspath('caches')} until the daemon is started again"
            eventually(lambda: kept in log.read_text())
            assert "name stays default until the daemon is started again" in log.read_text()
        finally:
            assert run("stop", f"--socket={socket}").returncode == 0

    def test_of_two_at_once_one_is_told_of_the_other(
        self, environ: dict[str, str], run: Run, socket: str
    ) -> None:
        pipe = subprocess.PIPE
        both = [
            subprocess.Popen([*LOADERD, "start"], env=environ, stdout=pipe, stderr=pipe, text=True)
            for _ in range(2)
        ]
        told = {one.communicate(timeout=DEADLINE)[1]: one.returncode for one in both}
        pid = dial.observe(socket).daemon.pid
        text = f"loaderd: another daemon (pid {pid}) is running at {socket}: "
        assert told == {"": 0, text + "use it, or end it with `loaderd stop`\n": 1}

    def test_one_that_hangs_is_another_too(
        self, silent: psutil.Process, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["start"]) == 1
        assert f"another daemon (pid {silent.pid}) is running" in capsys.readouterr().err


class TestStop:
    def test_afterwards_nothing_is_left(
        self, run: Run, started: psutil.Process, socket: str
    ) -> None:
        family = started.children(recursive=True)
        done = run("stop")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == 'loaderd "default" is stopped\n'
        assert gone(started)
        assert not psutil.wait_procs(family, DEADLINE)[1]
        assert not os.path.exists(socket)
        assert run("status").returncode == 3

    def test_one_that_hangs_is_killed_with_a_word(
        self,
        started: psutil.Process,
        socket: str,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        started.suspend()
        assert main(["stop", "--timeout=0.2", f"--socket={socket}"]) == 0
        told = capsys.readouterr().err
        assert told.splitlines() == [
            f'loaderd "default" (pid {started.pid}) does not answer: sending it SIGTERM',
            f'loaderd "default" (pid {started.pid}) did not end within 0.2 s: killing it',
        ]
        assert gone(started)

    def test_the_timeout_is_for_all_of_it(self, silent: psutil.Process) -> None:
        begun = time.monotonic()
        assert main(["stop", "--timeout=3"]) == 0
        assert 2 < time.monotonic() - begun < 6
        assert gone(silent)

    def test_trainers_that_are_attached_are_named(
        self, run: Run, started: psutil.Process, socket: str, photos: Path
    ) -> None:
        words = [sys.executable, "-c", READER, socket, str(photos)]
        with subprocess.Popen(words, stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            assert other.stdout.readline()
            with scan_epoch.opened(dial.dial(socket), scan._spec(str(photos))):
                done = run("stop")
            other.kill()
        pids = ", ".join(map(str, sorted([os.getpid(), other.pid])))
        assert done.stdout.splitlines() == [
            f"2 trainers are attached (pids {pids}); they wait for a daemon at the same address, "
            "up to their reconnect timeout",
            'loaderd "default" is stopped',
        ]

    def test_one_trainer_is_not_called_several(
        self, run: Run, started: psutil.Process, socket: str, photos: Path
    ) -> None:
        with scan_epoch.opened(dial.dial(socket), scan._spec(str(photos))):
            first, _ = run("stop").stdout.splitlines()
        assert first.startswith(f"1 trainer is attached (pid {os.getpid()}); it waits for ")

    def test_the_trainer_of_a_private_one_does_not_wait(
        self, environ: dict[str, str], run: Run, socket: str, photos: Path
    ) -> None:
        with serving(environ, f"--owner={os.getpid()}") as process:
            with scan_epoch.opened(dial.dial(socket), scan._spec(str(photos))):
                first, _ = run("stop").stdout.splitlines()
            process.wait(DEADLINE)
        assert first == f"its trainer (pid {os.getpid()}) starts another when it needs one"


READER = """
import signal, sys
from loaderd.cli import scan, scan_epoch
from loaderd.ipc import dial
with scan_epoch.opened(dial.dial(sys.argv[1]), scan._spec(sys.argv[2])):
    print("open", flush=True)
    signal.pause()
"""


class TestStatus:
    def test_json_says_who_runs(self, run: Run, started: psutil.Process, socket: str) -> None:
        done = run("status", "--json")
        assert done.returncode == 0
        got = json.loads(done.stdout)
        assert (got["running"], got["pid"], got["socket"]) == (True, started.pid, socket)
        assert (got["workers"], got["streams"]) == (1, 0)

    def test_one_that_does_not_answer_runs_and_is_1(
        self, silent: psutil.Process, socket: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["status"]) == 1
        assert capsys.readouterr().out == (
            f'loaderd "default" is running, but the daemon at {socket} (pid {silent.pid}) does not '
            f"answer: it is stopped or hangs; `kill -CONT {silent.pid}` continues one that was "
            "stopped, `loaderd stop` ends it\n"
        )

    def test_json_says_so_too(
        self, silent: psutil.Process, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["status", "--json"]) == 1
        got = json.loads(capsys.readouterr().out)
        assert (got["running"], got["answers"], got["pid"]) == (True, False, silent.pid)
        assert got["workers"] is None

    def test_it_answers_again_when_it_is_continued(self, run: Run, silent: psutil.Process) -> None:
        assert main(["status"]) == 1
        silent.resume()
        assert run("status").returncode == 0

    @pytest.mark.parametrize("words", [[], ["--watch"], ["--json"]])
    def test_loaderd_stat_says_that_it_does_not_answer(
        self, words: list[str], silent: psutil.Process, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert stat.main(words) == 1
        got = capsys.readouterr()
        assert got.out == ""
        assert f"(pid {silent.pid}) does not answer" in got.err

    def test_loaderd_stat_shows_it(self, run: Run, started: psutil.Process) -> None:
        done = run(program=STAT)
        assert (done.returncode, done.stderr) == (0, "")
        assert f"pid {started.pid}" in done.stdout
        assert "workers  1/1 up" in done.stdout
        assert "Nothing is read: no stream is open." in done.stdout


class TestServe:
    def test_sigterm_drains_and_ends_with_0(self, environ: dict[str, str]) -> None:
        with serving(environ) as process:
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE) == 0
            assert process.stderr is not None
            first, *_ = process.stderr.read().splitlines()
        assert " INFO " in first

    def test_a_second_daemon_at_the_same_address_is_refused(
        self, environ: dict[str, str], run: Run
    ) -> None:
        with serving(environ):
            done = run("serve")
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith("loaderd: ")
        assert "Traceback" not in done.stderr

    def test_a_private_one_is_found_and_ends_with_its_owner(
        self, environ: dict[str, str], run: Run, tmp_path: Path
    ) -> None:
        ready, tell = os.pipe()
        trainer = [sys.executable, "-c", TRAINER, str(tell)]
        with subprocess.Popen(trainer, env=environ, pass_fds=[tell]) as owner:
            os.close(tell)
            assert select.select([ready], [], [], DEADLINE)[0]
            os.close(ready)
            assert '"private-1" (private)' in run(program=STAT).stdout
            daemon = dial.observe(str(tmp_path / "loaderd" / "private-1.sock")).daemon.pid
            family = [psutil.Process(daemon), *psutil.Process(daemon).children(recursive=True)]
            owner.kill()
        assert not psutil.wait_procs(family, DEADLINE)[1]


TRAINER = """
import os, signal, subprocess, sys
words = [sys.executable, "-m", "loaderd", "serve", "--name=private-1"]
words += [f"--owner={os.getpid()}", f"--ready-fd={sys.argv[1]}"]
subprocess.Popen(words, pass_fds=[int(sys.argv[1])], stderr=subprocess.DEVNULL)
signal.pause()
"""
