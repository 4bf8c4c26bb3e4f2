"""The daemon's own end, renewal and address: SIGTERM, SIGHUP, stale files, a second daemon."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from loaderd.errors import DaemonGone
from loaderd.ipc import dial
from loaderd.ipc.prefetch import WHOLE
from loaderd_client import LoaderSequence, Session
from loaderd_client.core import session, stream
from loaderd_client.core.stream import StreamRequest
from tests.support.daemons import Serve, eventually, family, gone, stream_of
from tests.support.streams import a_spec, digest, read_all, run_of, slow


def serve_words(*flags: str) -> list[str]:
    return [sys.executable, "-m", "loaderd", "serve", "--workers=1", *flags]


def test_a_drain_that_cannot_end_ends_after_grace(serve: Serve, photos: Path) -> None:
    with serve(1, "--grace=0.5") as daemon, Session(daemon.path) as session:
        stream = session.open(slow(a_spec(photos)), slots=4)
        stream.take((0, 0))
        (worker,) = daemon.workers()
        os.kill(worker, signal.SIGSTOP)
        daemon.process.terminate()
        assert daemon.process.wait(10) == 0
        with pytest.raises(DaemonGone):
            list(run_of(stream))


def test_a_drain_delivers_what_was_being_filled(serve: Serve, photos: Path) -> None:
    with serve(2, "--grace=20") as daemon, Session(daemon.path) as session:
        undisturbed = [digest(batch) for batch in run_of(session.open(a_spec(photos), slots=4))]
        stream = session.open(a_spec(photos), slots=8)
        eventually(lambda: daemon.snapshot().streams[-1].ready > 0)
        daemon.process.terminate()
        assert daemon.process.wait(20) == 0
        got: list[str] = []
        with pytest.raises(DaemonGone):
            got.extend(digest(batch) for batch in run_of(stream))
        assert got
        assert got == undisturbed[: len(got)]


def test_sighup_renews_all_workers_one_by_one_and_costs_no_byte(serve: Serve, photos: Path) -> None:
    spec = slow(a_spec(photos))
    with serve(workers=2) as daemon:
        before = set(daemon.workers())
        undisturbed = read_all(daemon.path, spec)
        reader = threading.Thread(target=lambda: got.extend(read_all(daemon.path, spec)))
        got: list[str] = []
        reader.start()
        eventually(lambda: bool(daemon.snapshot().streams))
        daemon.process.send_signal(signal.SIGHUP)
        fewest = 2

        def renewed() -> bool:
            nonlocal fewest
            workers = set(daemon.workers())
            fewest = min(fewest, len(workers))
            return len(workers) == 2 and not workers & before

        eventually(renewed)
        assert fewest >= 1
        reader.join(30)
        assert got == undisturbed
    assert "replacing 2 workers one by one" in daemon.log
    assert "is dead" not in daemon.log


def test_sighup_reads_the_file_again_and_a_wrong_one_changes_nothing(
    serve: Serve, photos: Path, tmp_path: Path
) -> None:
    file = tmp_path / "loaderd.toml"
    file.write_text('workers = 1\ngrace = 3\nname = "one"\n')
    flags = f"--config={file}", "--socket=" + os.path.join(os.environ["XDG_RUNTIME_DIR"], "x.sock")
    process = subprocess.Popen(
        [sys.executable, "-m", "loaderd", "serve", *flags], stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        log: list[str] = []
        reader = threading.Thread(target=lambda: log.extend(process.stderr or ()))
        reader.start()
        from loaderd.ipc import dial

        path = flags[1].removeprefix("--socket=")
        eventually(lambda: os.path.exists(path) and bool(dial.observe(path).workers))
        file.write_text("workers = 'many'\n")
        process.send_signal(signal.SIGHUP)
        eventually(lambda: any("settings stay as they are" in line for line in log))
        assert dial.observe(path).workers_wanted == 1
        file.write_text("workers = 3\n")
        process.send_signal(signal.SIGHUP)
        eventually(lambda: len(dial.observe(path).workers) == 3)
        file.write_text("workers = 1\n")
        process.send_signal(signal.SIGHUP)
        eventually(lambda: len(dial.observe(path).workers) == 1)
    finally:
        process.terminate()
        assert process.wait(20) == 0
        reader.join(10)
        process.stderr.close()  # type: ignore[union-attr]


def test_a_second_daemon_at_one_address_is_refused_and_the_first_goes_on(
    serve: Serve, photos: Path
) -> None:
    with serve(workers=1) as daemon:
        second = subprocess.run(serve_words(), capture_output=True, text=True, timeout=30)
        assert second.returncode == 1
        assert f"a daemon already serves {daemon.path}" in second.stderr
        assert second.stderr.count("\n") == 1
        assert len(read_all(daemon.path, a_spec(photos))) == 24


def test_socket_and_lock_of_a_killed_daemon_are_replaced(
    serve: Serve, photos: Path, runtime: str
) -> None:
    with serve(workers=1) as daemon:
        daemon.process.kill()
        daemon.process.wait()
    assert sorted(os.listdir(os.path.dirname(daemon.path))) == ["default.lock", "default.sock"]
    with serve(workers=1) as daemon:
        assert len(read_all(daemon.path, a_spec(photos))) == 24
    assert os.listdir(os.path.dirname(daemon.path)) == []


def test_what_killed_private_daemons_left_is_removed_and_living_ones_are_left_alone(
    serve: Serve, photos: Path, runtime: str
) -> None:
    folder = os.path.join(runtime, "loaderd")
    os.mkdir(folder, 0o700)
    dead, alive = (os.path.join(folder, f"private-{pid}") for pid in (11, 12))
    for name in (dead, alive):
        Path(f"{name}.lock").touch()
        Path(f"{name}.sock").touch()
    with open(f"{alive}.lock") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with serve(workers=1):
            left = sorted(name for name in os.listdir(folder) if name.startswith("private"))
            assert left == ["private-12.lock", "private-12.sock"]


@pytest.mark.parametrize("folder", ["a file", "/proc/loaderd"])
def test_where_the_runtime_folder_cannot_be_used_daemon_and_commands_agree_on_another(
    tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / folder
    if folder == "a file":
        place.write_text("")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))
    name = f"--name=test-{os.getpid()}"
    for verb, said in (("start", "is up"), ("status", "is running"), ("stop", "is stopped")):
        words = [sys.executable, "-m", "loaderd", verb, name]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        assert said in done.stdout
    for left in Path(f"/tmp/loaderd-{os.geteuid()}").glob(f"test-{os.getpid()}.*"):
        assert left.suffix == ".log"
        left.unlink()


def test_a_fork_server_that_was_stopped_holds_up_nobody(serve: Serve, photos: Path) -> None:
    with serve(1) as daemon:
        forkserver = psutil.Process(daemon.workers()[0]).parent()
        assert forkserver is not None
        forkserver.suspend()
        assert len(read_all(daemon.path, a_spec(photos))) == 24


def test_a_fork_server_that_was_stopped_goes_with_a_killed_supervisor_all_the_same(
    serve: Serve,
) -> None:
    with serve(1) as daemon:
        members = family(daemon.process.pid)
        forkserver = psutil.Process(daemon.workers()[0]).parent()
        assert forkserver is not None
        forkserver.suspend()
        daemon.process.kill()
        eventually(lambda: all(map(gone, members)), 5)


def test_of_a_daemon_that_was_stopped_the_user_hears(
    serve: Serve, photos: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "LONG_NS", 10**6)
    monkeypatch.setattr(session, "LONG_SECONDS", 0.1)
    said = ""

    def heard(words: str) -> bool:
        nonlocal said
        said += capfd.readouterr().err
        return words in said

    with serve(1) as daemon, Session(daemon.path) as trainer, ThreadPoolExecutor() as threads:
        first = trainer.open(a_spec(photos), slots=4)
        line = dial.dial(daemon.path)
        daemon.process.send_signal(signal.SIGSTOP)
        try:
            late = threads.submit(first.take, (1, 5))
            eventually(lambda: heard("no batch for"))
            request = StreamRequest(a_spec(photos), 4, WHOLE, ())
            second = threads.submit(session._open, line, request)
            eventually(lambda: heard(f"still waiting for the daemon to list {photos}"))
        finally:
            daemon.process.send_signal(signal.SIGCONT)
        assert late.result(60).place == (1, 5)
        assert second.result(60).take((0, 0)).place == (0, 0)


def test_a_trainer_whose_daemon_was_stopped_is_told_what_to_do(serve: Serve, photos: Path) -> None:
    with serve(1) as daemon, Session(daemon.path, reconnect_timeout=0.2) as trainer:
        sequence = LoaderSequence(a_spec(photos), trainer)
        stream_of(sequence).close()
        daemon.process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(DaemonGone, match=f"kill -CONT {daemon.process.pid}"):
                sequence.fetch(0)
        finally:
            daemon.process.send_signal(signal.SIGCONT)
        assert len(sequence.fetch(0).ids) == 8


def test_ctrl_c_while_the_fork_server_loads_is_no_fault(runtime: str) -> None:
    daemon = subprocess.Popen(
        serve_words(), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    family = psutil.Process(daemon.pid)
    eventually(lambda: len(family.children()) > 0)
    os.killpg(daemon.pid, signal.SIGINT)
    _, said = daemon.communicate(timeout=30)
    assert "Traceback" not in said
    assert daemon.returncode in (0, 130)
