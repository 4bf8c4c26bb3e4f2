"""``loaderd stat`` and ``loaderd status`` against a daemon that only shows one snapshot."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loaderd import __version__
from loaderd.cli import main as loaderd
from loaderd.cli import options, stat, target
from loaderd.config import Address
from loaderd.errors import NoDaemon
from loaderd.ipc import channel, dial
from loaderd.ipc.channel import Channel, Closed
from loaderd.ipc.messages import PROTOCOL, Hello, Message, Observe, Observed, Welcome
from loaderd.ipc.snapshot import SCHEMA, DaemonStats, HostStats, Snapshot

STAT = [sys.executable, "-c", "from loaderd.cli.main import stat; raise SystemExit(stat())"]
DEADLINE = 20.0


def zero(kind: type[Any], **fields: Any) -> Any:
    usual = {field.name: field.type() for field in msgspec.structs.fields(kind)}
    return kind(**(usual | fields))


def snapshot(name: str, trouble: str = "") -> Snapshot:
    about = {"name": name, "pid": 4242, "version": __version__, "uptime_s": 61.0}
    daemon = zero(DaemonStats, **about, trouble=trouble)
    return Snapshot(
        schema=SCHEMA,
        time=0.0,
        daemon=daemon,
        host=zero(HostStats, cpus=2),
        streams=(),
        workers=(),
        workers_wanted=2,
        restarts=0,
    )


class Daemon(threading.Thread):
    """Answers Hello and Observe, one client after the other, so many times."""

    def __init__(
        self,
        path: Path,
        protocol: int = PROTOCOL,
        observations: int = 1000,
        troubled: Callable[[int], str] = lambda left: "",
        greets: bool = True,
    ) -> None:
        super().__init__(daemon=True)
        self._greets = greets
        self._troubled = troubled
        path.parent.mkdir(exist_ok=True)
        self.path = path
        self.left = observations
        self._protocol = protocol
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(path))
        self._listener.listen()

    def run(self) -> None:
        with self._listener, contextlib.suppress(OSError):
            while self.left:
                self._serve(Channel(self._listener.accept()[0]))
        self.path.unlink(missing_ok=True)

    def _serve(self, line: Channel) -> None:
        with contextlib.suppress(Closed), contextlib.closing(line):
            while self.left:
                line.send(self._answer(line.receive()))

    def _answer(self, message: Message) -> Message:
        if not self._greets:
            raise Closed
        if isinstance(message, Hello):
            return Welcome(self._protocol, "9.9.9", os.getpid())
        assert isinstance(message, Observe)
        self.left -= 1
        return Observed(snapshot(self.path.stem, self._troubled(self.left)))

    def end(self) -> None:
        self.left = 0
        self._listener.shutdown(socket.SHUT_RDWR)
        self.join(DEADLINE)


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("LOADERD_NAME", "LOADERD_SOCKET", "LOADERD_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "loaderd"


@contextlib.contextmanager
def daemon(runtime: Path, name: str = "default", **how: Any) -> Iterator[Daemon]:
    running = Daemon(runtime / f"{name}.sock", **how)
    running.start()
    try:
        yield running
    finally:
        with contextlib.suppress(OSError):
            running.end()


class TestCheck:
    def test_it_answers_in_a_line_with_the_code_of_a_plugin(
        self, runtime: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with daemon(runtime):
            assert stat.main(["--check", "0.1"]) == 2  # no worker is up
        line = capsys.readouterr().out
        assert line.startswith("LOADERD CRITICAL - no worker is up | waited=U;5;20;0;100 ")

    def test_no_daemon_is_critical(self, runtime: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert stat.main(["--check"]) == 2
        assert capsys.readouterr().out.startswith("LOADERD CRITICAL - no daemon at ")

    def test_a_daemon_of_another_version_is_unknown(
        self, runtime: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with daemon(runtime, protocol=PROTOCOL + 1):
            assert stat.main(["--check", "0.1"]) == 3
        assert "LOADERD UNKNOWN" in capsys.readouterr().out


class TestOnce:
    def test_it_shows_the_daemon(self, runtime: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with daemon(runtime):
            assert stat.main([]) == 0
        shown = capsys.readouterr().out
        assert shown.startswith('loaderd "default"  pid 4242  up 1 min 1 s')
        assert "Nothing is read: no stream is open." in shown
        assert "\x1b" not in shown

    def test_a_pipe_gets_whole_lines_without_spaces_at_their_ends(
        self, runtime: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("COLUMNS")
        with daemon(runtime, troubled=lambda left: "many words " * 20):
            assert stat.main([]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == f"TROUBLE  {'many words ' * 20}".rstrip()
        assert lines == [line.rstrip() for line in lines]

    def test_json_is_one_object(self, runtime: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with daemon(runtime):
            assert stat.main(["--json"]) == 0
        table = json.loads(capsys.readouterr().out)
        assert table["schema"] == SCHEMA
        assert table["verdict"]["bound"] == "NO STREAM"

    def test_no_daemon_is_1_and_a_line(
        self, runtime: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert stat.main([]) == 1
        got = capsys.readouterr()
        assert got.out == ""
        assert got.err.startswith("loaderd-stat: no daemon at ")
        assert "loaderd start" in got.err

    def test_another_protocol_is_1_and_says_what_to_do(
        self, runtime: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with daemon(runtime, protocol=PROTOCOL + 1):
            assert stat.main([]) == 1
        assert "restart the daemon" in capsys.readouterr().err

    @pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "x"])
    def test_a_wrong_interval_is_2(self, value: str) -> None:
        with pytest.raises(SystemExit) as caught:
            stat.main([f"--watch={value}"])
        assert caught.value.code == 2


class TestTwoNames:
    """``loaderd stat`` and ``loaderd-stat`` are the same but for the name in their own lines."""

    @pytest.mark.parametrize("words", [[], ["--json"], ["--name=default"]])
    def test_they_show_the_same(
        self, words: list[str], runtime: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with daemon(runtime):
            assert stat.main(words) == 0
            shown = capsys.readouterr()
            assert loaderd.main(["stat", *words]) == 0
        assert capsys.readouterr() == shown

    def test_both_watch_until_the_daemon_goes(
        self, runtime: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with daemon(runtime, observations=3):
            assert loaderd.main(["stat", "--watch", "0.001"]) == 1
        got = capsys.readouterr()
        assert len(got.out.splitlines()) == 3 + 1
        assert got.err == 'loaderd: loaderd "default" (pid 4242) went away\n'

    def test_both_know_the_same_options(self, capsys: pytest.CaptureFixture[str]) -> None:
        shown = []
        for main, words in ((stat.main, ["--help"]), (loaderd.main, ["stat", "--help"])):
            with pytest.raises(SystemExit):
                main(words)
            shown.append(capsys.readouterr().out.replace("loaderd stat", "loaderd-stat"))
        assert shown[0] == shown[1]
        assert "loaderd-stat --watch 5 >log" in shown[0]

    @pytest.mark.parametrize("entry", ["loaderd-stat", "loaderd stat"])
    def test_version(self, entry: str, capsys: pytest.CaptureFixture[str]) -> None:
        main = stat.main if entry == "loaderd-stat" else loaderd.main
        with pytest.raises(SystemExit):
            main([*entry.split()[1:], "--version"])
        assert capsys.readouterr().out == f"{entry} {__version__}\n"


class TestWatch:
    def test_rows_into_a_pipe_until_the_daemon_goes(
        self, runtime: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with daemon(runtime, observations=23):
            assert stat.main(["--watch", "0.001"]) == 1
        got = capsys.readouterr()
        lines = got.out.splitlines()
        assert [i for i, line in enumerate(lines) if "batch/s" in line] == [0, 21]
        assert len(lines) == 23 + 2
        assert got.err == 'loaderd-stat: loaderd "default" (pid 4242) went away\n'

    def test_trouble_is_said_between_the_rows_when_it_comes_and_when_it_goes(
        self, runtime: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def troubled(left: int) -> str:
            return "no worker can start" if left in (1, 2) else ""

        with daemon(runtime, observations=4, troubled=troubled):
            assert stat.main(["--watch", "0.001"]) == 1
        lines = capsys.readouterr().out.splitlines()
        said = [i for i, line in enumerate(lines) if "start" in line or "over" in line]
        assert [lines[i] for i in said] == [
            "TROUBLE  no worker can start",
            "the trouble is over",
        ]
        assert said == [2, 5]

    def test_one_that_falls_silent_has_not_gone_away(
        self, runtime: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(dial, "SOON", 0.3)
        over = threading.Event()

        def silent(left: int) -> str:
            return "" if left else str(over.wait(DEADLINE))

        with daemon(runtime, observations=2, troubled=silent):
            assert stat.main(["--watch", "0.001"]) == 1
            over.set()
        got = capsys.readouterr()
        assert len(got.out.splitlines()) == 2
        assert f"default.sock (pid {os.getpid()}) does not answer: " in got.err

    def test_json_lines(self, runtime: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with daemon(runtime, observations=3):
            assert stat.main(["--watch", "0.001", "--json"]) == 1
        lines = capsys.readouterr().out.splitlines()
        assert [json.loads(line)["schema"] for line in lines] == [SCHEMA] * 3

    def test_no_daemon_at_the_beginning_is_an_error(
        self, runtime: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert stat.main(["--watch"]) == 1
        assert "no daemon at" in capsys.readouterr().err

    def test_ctrl_c_is_the_usual_end(self, runtime: Path) -> None:
        with daemon(runtime), watching() as watch:
            assert watch.stdout is not None
            assert b"batch/s" in watch.stdout.readline()
            assert watch.stdout.readline()
            watch.send_signal(signal.SIGINT)
            assert watch.wait(DEADLINE) == 0
            assert watch.stderr is not None
            assert watch.stderr.read() == b""

    def test_a_reader_that_goes_away_is_no_traceback(self, runtime: Path) -> None:
        with daemon(runtime), watching() as watch:
            assert watch.stdout is not None
            watch.stdout.readline()
            watch.stdout.close()
            assert watch.wait(DEADLINE) == 141
            assert watch.stderr is not None
            assert watch.stderr.read() == b""

    def test_a_terminal_is_repainted(self, runtime: Path) -> None:
        with daemon(runtime, observations=3), terminal() as (ours, theirs):
            watch = subprocess.Popen([*STAT, "--watch=0.01"], stdout=theirs, stderr=theirs)
            os.close(theirs)
            shown = everything(ours)
            assert watch.wait(DEADLINE) == 1
        assert shown.count('loaderd "default"') >= 3
        assert "\x1b[1A\x1b[2K" in shown  # up a line, and erase it
        assert shown.rstrip("\r\n").endswith("went away")


@contextlib.contextmanager
def listening(runtime: Path) -> Iterator[str]:
    """A socket whose owner accepts no connection."""
    runtime.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(runtime / "default.sock"))
        listener.listen(1)
        yield str(runtime / "default.sock")


@contextlib.contextmanager
def watching() -> Iterator[subprocess.Popen[bytes]]:
    pipe = subprocess.PIPE
    with subprocess.Popen([*STAT, "--watch=0.01"], stdout=pipe, stderr=pipe) as process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    ours, theirs = pty.openpty()
    try:
        yield ours, theirs
    finally:
        os.close(ours)


def everything(fd: int) -> str:
    shown = b""
    while select.select([fd], [], [], DEADLINE)[0]:
        try:
            shown += os.read(fd, 65536)
        except OSError:  # how a terminal reports that its last writer is gone
            break
    return shown.decode()


class TestWhichDaemon:
    def wanted(self, *argv: str) -> Address:
        parser = argparse.ArgumentParser()
        stat.add_options(parser)
        return options.address(parser.parse_args(argv))

    def test_the_default_comes_first(self, runtime: Path) -> None:
        with daemon(runtime), daemon(runtime, "private-4711"):
            assert target.find(self.wanted()).name == "default"

    def test_the_only_other_one_is_found(self, runtime: Path) -> None:
        (runtime / "dead.sock").parent.mkdir()
        (runtime / "dead.sock").touch()
        with daemon(runtime, "private-4711"):
            assert target.find(self.wanted()).name == "private-4711"

    def test_several_are_named(self, runtime: Path) -> None:
        with (
            daemon(runtime, "private-1"),
            daemon(runtime, "private-2"),
            pytest.raises(NoDaemon, match=r"--name: private-1, private-2$"),
        ):
            target.find(self.wanted())

    def test_a_daemon_that_was_named_is_never_another(self, runtime: Path) -> None:
        with daemon(runtime, "private-4711"):
            assert target.find(self.wanted("--name=default")).name == "default"
            assert stat.main(["--name=default"]) == 1

    def test_a_variable_names_one_too(self, runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LOADERD_NAME", "gpu0")
        with daemon(runtime, "private-4711"):
            assert target.find(self.wanted()).name == "gpu0"


class TestStatus:
    def test_it_runs(self, runtime: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with daemon(runtime):
            assert loaderd.main(["status"]) == 0
        (line,) = capsys.readouterr().out.splitlines()
        assert line == (
            f'loaderd "default" is running: pid 4242, up 1 min 1 s, 0 workers, 0 streams, '
            f"socket {runtime}/default.sock, version {__version__}"
        )

    def test_trouble_is_mentioned(self, runtime: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with daemon(runtime, troubled=lambda left: "no worker can start"):
            assert loaderd.main(["status"]) == 0
            assert capsys.readouterr().out.endswith("; TROUBLE: no worker can start\n")
            assert loaderd.main(["status", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["trouble"] == "no worker can start"

    def test_it_runs_as_json(self, runtime: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with daemon(runtime, "private-4711"):
            assert loaderd.main(["status", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {
            "running": True,
            "answers": True,
            "name": "private-4711",
            "pid": 4242,
            "socket": str(runtime / "private-4711.sock"),
            "version": __version__,
            "uptime_s": 61.0,
            "workers": 0,
            "streams": 0,
            "shards": [],
            "shared": [],
            "trouble": "",
        }

    def test_one_that_accepts_no_connection_runs(
        self, runtime: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with listening(runtime) as path, contextlib.ExitStack() as stack:
            with contextlib.suppress(BlockingIOError):
                while True:
                    stack.enter_context(contextlib.closing(channel.connect(path)))
            assert loaderd.main(["status"]) == 1
            assert loaderd.main(["stop"]) == 1
        got = capsys.readouterr()
        cure = f"`fuser -k {runtime}/default.lock` kills it"
        assert got.out.startswith('loaderd "default" is running, but the daemon at ')
        assert cure in got.out
        assert cure in got.err

    def test_one_that_hangs_up_ends(
        self, runtime: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with daemon(runtime, greets=False):
            assert loaderd.main(["status"]) == 3
        assert "default.sock hung up: perhaps it ends" in capsys.readouterr().out

    def test_it_does_not_run(self, runtime: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert loaderd.main(["status"]) == 3
        assert capsys.readouterr().out.startswith('loaderd "default" is not running: no daemon')
        assert loaderd.main(["status", "--json"]) == 3
        got = json.loads(capsys.readouterr().out)
        assert (got["running"], got["pid"]) == (False, None)
