"""Trainers whose process or surroundings are odd: their private daemon works all the same."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.daemons import eventually, gone

ROOT = Path(__file__).parents[2]

BEGIN = """\
import contextlib, os, signal, subprocess, sys
import loaderd_client
from loaderd_client import connect
from loaderd.spec.load import Load
from loaderd.spec.output import Batching, Order, Output
from loaderd.spec.source import Directory
from loaderd.spec.spec import Spec

FOLDER = sys.argv[1]

def rows(session=None):
    "How many images come in a batch of a new stream."
    spec = Spec(
        source=Directory(directory=FOLDER, extensions=(".jpg",)),
        load=Load(target_size=(8, 8)),
        transforms=(),
        output=Output(),
        batch=Batching(batch_size=32),
        order=Order(shuffle=False),
    )
    session = session or loaderd_client.core.session.current()
    return len(session.open(spec, slots=4).take((0, 0)).ids)

def daemon():
    return loaderd_client.core.session.current()._private.pid

import loaderd_client.core.session
"""
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(photos: Path, tmp_path: Path) -> Run:
    """Runs a program that begins as above."""

    def start(
        text: str, *flags: str, by: str = "-c", **more: Any
    ) -> subprocess.CompletedProcess[str]:
        program = BEGIN + textwrap.dedent(text)
        words = ["-c", program] if by == "-c" else [by]
        return subprocess.run(
            [sys.executable, *flags, *words, str(photos)],
            input=program if by == "-" else None,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
            **{"cwd": tmp_path, **more},
        )

    return start


def check(done: subprocess.CompletedProcess[str], *lines: str) -> None:
    assert done.stdout.splitlines() == list(lines), done.stderr


# -- where it lives --------------------------------------------------------------------


def test_folders_that_cannot_be_used_keep_nobody_from_training(run: Run) -> None:
    program = """
        places = {"nothing": "not-there", "a file": "file", "not ours to write": "/proc/self"}
        places["deep"] = "x" * 200
        open("file", "w").close()
        os.mkdir("x" * 200)
        for place in places:
            where = os.path.abspath(places[place])
            os.environ.update(XDG_RUNTIME_DIR=where, TMPDIR=where, HOME=where, XDG_CACHE_HOME=where)
            with connect() as session:
                print(place, rows(session))
    """
    check(run(program), "nothing 32", "a file 32", "not ours to write 32", "deep 32")


def test_a_daemon_is_found_by_a_path_of_any_length(run: Run, tmp_path: Path) -> None:
    program = """
        from loaderd.ipc import dial
        with connect() as session:
            print(len(session.path) > 200, dial.listener(session.path) == session._private.pid)
    """
    deep = tmp_path / ("x" * 200)
    deep.mkdir()
    check(run(program, env={**os.environ, "XDG_RUNTIME_DIR": str(deep)}), "True True")


def test_variables_that_are_not_set_or_were_cleared_are_no_trouble(run: Run) -> None:
    check(run("print(rows())", env={}), "32")
    check(run("os.environ.clear(); print(rows())"), "32")


def test_a_folder_of_sockets_that_vanishes_is_missed_by_nobody(run: Run) -> None:
    program = """
        import shutil
        print(rows())
        shutil.rmtree(os.environ["XDG_RUNTIME_DIR"])
        print(rows())
        child = os.fork()
        if not child:
            os._exit(rows() != 32)
        print(os.waitpid(child, 0)[1])
        before = daemon()
        os.kill(before, signal.SIGKILL)
        print(rows(), daemon() != before)
        os.mkdir(os.environ["XDG_RUNTIME_DIR"])
    """
    check(run(program), "32", "32", "0", "32 True")


def test_the_working_directory_may_change_and_go(run: Run, tmp_path: Path) -> None:
    program = """
        os.mkdir("work")
        os.chdir("work")
        os.rmdir(os.getcwd())
        print(rows())
        os.chdir("/")
        print(rows())
    """
    check(run(program), "32", "32")


# -- what the trainer's process does ----------------------------------------------------


def test_a_program_that_takes_the_trainers_place_leaves_no_daemon(run: Run) -> None:
    """Not even a dead one, which it would have to wait for."""
    program = """
        import psutil
        rows()
        print(daemon(), *[one.pid for one in psutil.Process(daemon()).children(recursive=True)])
        sys.stdout.flush()
        after = "import os; print(os.waitpid(-1, 0))"
        os.execv(sys.executable, [sys.executable, "-c", after])
    """
    done = run(program)
    assert "ChildProcessError" in done.stderr
    pids = [int(word) for word in done.stdout.split()]
    assert len(pids) > 2
    members = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    eventually(lambda: all(map(gone, members)))


def test_a_trainer_that_waits_for_all_its_children_does_not_wait_for_the_daemon(run: Run) -> None:
    program = """
        rows()
        for _ in range(2):
            if not os.fork():
                os._exit(0)
        with contextlib.suppress(ChildProcessError):
            while True:
                os.wait()
        print(rows())
    """
    check(run(program), "32")


def test_signals_that_the_trainer_ignores_or_blocks_are_the_daemons_as_ever(run: Run) -> None:
    program = """
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        print(rows())
        with open(f"/proc/{daemon()}/status") as file:
            blocked = int(next(line.split()[1] for line in file if line.startswith("SigBlk")), 16)
        print([one.name for one in (signal.SIGTERM, signal.SIGHUP) if blocked >> one - 1 & 1])
        from loaderd.ipc import dial
        worker = dial.observe(loaderd_client.core.session.current().path).workers[0].pid
        os.kill(worker, signal.SIGKILL)
        while not dial.observe(loaderd_client.core.session.current().path).restarts:
            pass
        print(rows())
    """
    check(run(program), "32", "[]", "32")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_trainer_that_becomes_another_user_goes_on_with_its_daemon(run: Run) -> None:
    program = """
        print(rows())
        before = daemon()
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        print(rows(), daemon() == before)
        loaderd_client.core.session.current().close()
    """
    check(run(program), "32", "32 True")


def test_forked_children_and_threads_connect_at_once(run: Run) -> None:
    program = """
        from concurrent.futures import ThreadPoolExecutor
        rows()
        children = []
        for _ in range(4):
            children.append(os.fork())
            if not children[-1]:
                code = 1
                try:
                    code = rows() != 32
                finally:
                    os._exit(code)
        with ThreadPoolExecutor(4) as threads:
            print(*threads.map(lambda _: rows(), range(4)))
        print(*[os.waitpid(child, 0)[1] for child in children])
    """
    check(run(program), "32 32 32 32", "0 0 0 0")


def test_standard_streams_may_be_closed(run: Run, tmp_path: Path) -> None:
    program = """
        for stream in (sys.stdin, sys.stdout, sys.stderr):
            stream.close()
        os.closerange(0, 3)
        with open("rows", "w") as file:
            file.write(str(rows()))
    """
    done = run(program)
    assert (tmp_path / "rows").read_text() == "32", done.returncode


def test_a_trainer_may_lose_the_terminal_whose_session_it_leads(
    photos: Path, tmp_path: Path
) -> None:
    program = f"""{BEGIN}
import traceback
signal.signal(signal.SIGHUP, signal.SIG_IGN)
rows()
print("up", flush=True)
with open("rows", "w") as file:
    try:
        with contextlib.suppress(OSError):
            sys.stdin.read()
        file.write(str(rows()))
    except BaseException:
        traceback.print_exc(file=file)
os._exit(0)
"""
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(tmp_path)
        os.execv(sys.executable, [sys.executable, "-c", program, str(photos)])
    said = b""
    while b"up\r\n" not in said:
        said += os.read(terminal, 1000)
    os.close(terminal)  # the session gets SIGHUP, and its input ends
    assert os.waitpid(pid, 0)[1] == 0, said
    assert (tmp_path / "rows").read_text() == "32"


# -- how Python runs it -----------------------------------------------------------------


@pytest.mark.parametrize("flags", [["-I"], ["-O"], ["-P"], ["-X", "utf8"]], ids=str)
def test_python_may_be_run_with_any_flags(run: Run, flags: list[str]) -> None:
    check(run("print(rows())", *flags), "32")


def test_the_program_may_be_no_file(run: Run) -> None:
    check(run("print(rows())", by="-"), "32")
    unnamed = """
        import types
        sys.modules["__main__"] = types.ModuleType("__main__")
        print(rows())
    """
    check(run(unnamed), "32")


def test_python_without_site_finds_what_it_was_told(photos: Path, tmp_path: Path) -> None:
    path = [str(ROOT), str(ROOT / "client"), *sys.path]  # it may be installed by a finder
    program = f"import sys; sys.path[:] = {path!r}\n{BEGIN}print(rows())"
    done = subprocess.run(
        [sys.executable, "-S", "-c", program, str(photos)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    check(done, "32")


FORBID = """
import os
def forbidden(*_):
    raise PermissionError(1, "Operation not permitted")
os.pidfd_open = forbidden
"""


def test_where_pidfds_are_forbidden_all_works(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(FORBID)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    program = """
        print(rows())
        before = daemon()
        os.kill(before, signal.SIGKILL)
        print(rows(), daemon() != before)
        words = [sys.executable, "-m", "loaderd"]
        print(*[subprocess.run([*words, verb], stdout=-3).returncode for verb in ("start", "stop")])
        os.pidfd_open(os.getpid())
    """
    done = run(program)
    check(done, "32", "32 True", "0 0")
    assert "PermissionError" in done.stderr


# -- how much it gives way --------------------------------------------------------------


def test_niceness_is_added_to_what_the_trainer_has(run: Run) -> None:
    """An ordinary user may not lower it."""
    program = """
        os.nice(5)
        os.environ["LOADERD_NICE"] = "3"
        import psutil
        from loaderd.ipc import dial
        rows()
        print(os.getpriority(os.PRIO_PROCESS, daemon()))
        seen = dial.observe(loaderd_client.core.session.current().path)
        print(*{psutil.Process(worker.pid).nice() for worker in seen.workers})
    """
    check(run(program), "5", "8")
