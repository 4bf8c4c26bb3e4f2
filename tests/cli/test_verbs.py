"""Arguments and errors of ``loaderd``: what is refused, how, and with which exit code."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from loaderd import __version__
from loaderd.cli import decoders, serve
from loaderd.cli.exit_codes import guarded
from loaderd.cli.main import loaded, main
from loaderd.errors import (
    DaemonError,
    ForeignDaemon,
    InvalidArgument,
    LoaderdError,
    MissingDependency,
    NoDaemon,
)
from loaderd.ipc import address, segment
from loaderd.launch import launch

VERBS = (
    "serve",
    "start",
    "stop",
    "status",
    "stat",
    "errors",
    "scan",
    "preview",
    "index",
    "cache",
    "doctor",
)


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("NAME", "SOCKET", "CONFIG", "WORKERS", "MEMORY"):
        monkeypatch.delenv(f"LOADERD_{name}", raising=False)
    return tmp_path / "loaderd"


@pytest.fixture
def no_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_spec(name: str) -> object:
        return None if name in ("cv2", "PIL") else importlib.util.find_spec(name)

    monkeypatch.setattr(decoders, "find_spec", find_spec)


class TestExitCodes:
    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (DaemonError("it says why"), 1),
            (NoDaemon("it says why"), 1),
            (MissingDependency("it says why"), 1),
            (InvalidArgument("it says why"), 2),
        ],
    )
    def test_a_typed_error_is_one_line(
        self, error: LoaderdError, code: int, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def fail() -> int:
            raise error

        assert guarded("loaderd", fail) == code
        assert capsys.readouterr().err == "loaderd: it says why\n"

    def test_ctrl_c_is_130_and_quiet(self, capsys: pytest.CaptureFixture[str]) -> None:
        def interrupt() -> int:
            raise KeyboardInterrupt

        assert guarded("loaderd", interrupt) == 130
        assert capsys.readouterr().err == ""

    def test_a_fault_of_our_own_keeps_its_traceback(self) -> None:
        def fault() -> int:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            guarded("loaderd", fault)

    def test_an_error_cannot_reach_the_terminals_controls(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def fail() -> int:
            raise DaemonError("\x1b[2J")

        guarded("loaderd", fail)
        assert capsys.readouterr().err == "loaderd: \\x1b[2J\n"


class TestHelp:
    @pytest.mark.parametrize("argv", [["--help"], *([verb, "--help"] for verb in VERBS)])
    def test_it_has_examples(self, argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            main(argv)
        assert caught.value.code == 0
        assert "examples:\n  loaderd" in capsys.readouterr().out

    def test_what_is_for_starters_only_is_not_in_it(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit):
            main(["serve", "--help"])
        shown = capsys.readouterr().out
        assert "owner" not in shown
        assert "ready" not in shown

    def test_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            main(["--version"])
        assert capsys.readouterr().out == f"loaderd {__version__}\n"

    @pytest.mark.parametrize("argv", [[], ["dance"], ["start", "--dance"], ["stop", "--timeout=x"]])
    def test_a_wrong_word_is_2(self, argv: list[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            main(argv)
        assert caught.value.code == 2

    def test_python_m_is_the_command(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "loaderd", "--version"], capture_output=True, check=True
        )
        assert done.stdout.decode() == f"loaderd {__version__}\n"


def test_the_entry_that_every_worker_imports_loads_nothing_else() -> None:
    program = "import sys, loaderd.cli.main; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    loaded = done.stdout.decode().split()
    assert {name for name in loaded if name.startswith("loaderd")} == {
        "loaderd",
        "loaderd.cli",
        "loaderd.cli.main",
    }
    assert not {"argparse", "rich", "msgspec", "psutil"} & set(loaded)


@pytest.mark.parametrize("verb", ["serve", "start"])
class TestBeforeTheDaemon:
    def test_missing_decoders_are_named_with_the_cure(
        self, verb: str, no_decoders: None, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([verb]) == 1
        assert capsys.readouterr().err == (
            "loaderd: the daemon needs pillow-simd, opencv-python-headless, which this Python "
            'lacks: pip install "loaderd[daemon]"\n'
        )

    def test_a_wrong_value_is_2(self, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([verb, "--workers=0"]) == 2
        assert capsys.readouterr().err.startswith("loaderd: --workers: '0' is not allowed")

    def test_looking_for_decoders_imports_none(self, verb: str) -> None:
        program = (
            "import sys; from loaderd.cli.main import main; "
            f"main(['{verb}', '--workers=0']); "
            "raise SystemExit(bool({'cv2', 'PIL', 'simplejpeg'} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
        assert done.returncode == 0


class TestFolders:
    def test_the_usual_one_is_for_this_user_only(self, runtime: Path) -> None:
        runtime.mkdir(mode=0o755)
        address.make_folder(str(runtime / "x.sock"))
        assert runtime.stat().st_mode & 0o777 == 0o700

    def test_another_one_keeps_its_access(self, tmp_path: Path) -> None:
        (tmp_path / "mine").mkdir(mode=0o755)
        address.make_folder(str(tmp_path / "mine" / "x.sock"))
        assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o755

    def test_a_link_in_the_usual_place_is_refused(self, runtime: Path, tmp_path: Path) -> None:
        (tmp_path / "trap").mkdir()
        runtime.symlink_to(tmp_path / "trap")
        with pytest.raises(ForeignDaemon, match="is no folder: remove it"):
            address.make_folder(str(runtime / "x.sock"))

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(DaemonError, match="no folder for the socket"):
            address.make_folder(str(tmp_path / "file" / "folder" / "x.sock"))

    def test_a_log_is_never_written_through_a_link(
        self, runtime: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        runtime.mkdir()
        (runtime / "default.log").symlink_to(tmp_path / "victim")
        assert main(["start"]) == 1
        assert "no log file" in capsys.readouterr().err
        assert not (tmp_path / "victim").exists()


class TestWithoutADaemon:
    def test_stop_is_content(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["stop"]) == 0
        assert capsys.readouterr().out == 'loaderd "default" is not running\n'

    def test_a_socket_without_a_daemon_counts_as_none(self, runtime: Path) -> None:
        runtime.mkdir()
        assert main(["stop", f"--socket={runtime}/x.sock"]) == 0
        assert main(["status", f"--socket={runtime}/x.sock"]) == 3

    def test_doctor_says_what_is_there(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["doctor"]) == 0
        shown = capsys.readouterr().out
        versions = "keras {}, .*tensorflow.*, pandas {}".format(*map(version, ("keras", "pandas")))
        assert re.search(f"trainers +{versions}", shown)
        for word in ("simplejpeg", "libjpeg-turbo", "CPUs", "/dev/shm", "default.sock"):
            assert word in shown

    def test_doctor_says_where_caches_cannot_be_made(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["doctor", f"--cache-dir={tmp_path}/new/folder"]) == 0
        assert f"{tmp_path}/new/folder (`loaderd cache ls`)\n" in capsys.readouterr().out
        (tmp_path / "file").touch()
        assert main(["doctor", f"--cache-dir={tmp_path}/file/folder"]) == 0
        assert f"{tmp_path}/file/folder cannot be written: for " in capsys.readouterr().out

    def test_doctor_fails_where_a_decoder_cannot_be_imported(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setitem(sys.modules, "cv2", None)
        assert main(["doctor"]) == 1
        got = capsys.readouterr()
        assert "missing" in got.out
        assert 'pip install "loaderd[daemon]"' in got.err


def test_a_start_that_fails_shows_the_end_of_the_log_of_this_start_only(
    runtime: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime.mkdir()
    (runtime / "default.log").write_text("an older failure\n")
    code = "import sys; [print('line', i) for i in range(30)]; print('\\x1b[2J'); sys.exit(5)"
    monkeypatch.setattr(launch, "_SERVE", code)
    assert main(["start"]) == 1
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "line 11"
    assert lines[-2] == "\\x1b[2J"
    assert lines[-1] == (
        'loaderd "default" did not start: it ended before it answered; the log is '
        f"{runtime}/default.log"
    )
    assert os.stat(runtime / "default.log").st_size > len("an older failure\n")


def test_a_start_that_hangs_is_ended(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import signal; signal.pause()"
    monkeypatch.setattr(launch, "_SERVE", code)
    monkeypatch.setattr(launch, "START_SECONDS", 0.4)
    assert main(["start"]) == 1
    assert "did not answer within 0 s and was killed" in capfd.readouterr().err


def test_the_child_gets_what_was_given_in_the_same_folder_and_reads_the_rest_itself(
    runtime: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"WORKERS": "3", "CACHE_DIR": "there", "NAME": "gpu0"}.items():
        monkeypatch.setenv(f"LOADERD_{name}", value)
    (runtime.parent / "loaderd.toml").write_text("max_bad = '5%'\n")
    monkeypatch.chdir(runtime.parent)
    monkeypatch.setenv("LOADERD_CONFIG", "loaderd.toml")
    code = (
        "import os, sys; print(*sys.argv[1:-1]); print(os.getcwd()); "
        "print(*sorted(k for k in os.environ if 'LOADERD_' in k))"
    )
    monkeypatch.setattr(launch, "_SERVE", code)
    assert main(["start", "--grace=2", "--memory=50%", "--no-user-code"]) == 1
    assert capfd.readouterr().err.splitlines()[:3] == [
        "serve --memory=50% --no-user-code --grace=2",
        str(runtime.parent),
        "LOADERD_CACHE_DIR LOADERD_CONFIG LOADERD_NAME LOADERD_WORKERS",
    ]


def test_a_name_that_is_too_long_comes_with_the_cure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["start", "--name", "x" * 100]) == 2
    told = capsys.readouterr().err
    assert "the socket's file name is longer than 80 bytes" in told
    assert "choose a shorter one with --name or --socket" in told


SHORT = (
    "only 64.0 MiB of shared memory are free in /dev/shm: rings will be small or refused; "
    "make it larger (docker run --shm-size)"
)


class TestLittleSharedMemory:
    def test_start_warns(
        self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(segment, "free", lambda: 2**26)
        monkeypatch.setattr(launch, "_SERVE", "sys.exit(1)")
        assert main(["start"]) == 1
        assert capfd.readouterr().err.startswith(f"loaderd: {SHORT}\n")

    def test_serve_warns_in_its_log(self, runtime: Path) -> None:
        (runtime / "default.lock").mkdir(parents=True)  # so it ends soon
        program = (
            "from loaderd.cli.main import main; from loaderd.ipc import segment; "
            "segment.free = lambda: 2**26; raise SystemExit(main(['serve']))"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert done.returncode == 1
        assert done.stderr.splitlines()[0].endswith(f" WARNING {SHORT}")

    def test_a_byte_more_is_enough(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(segment, "free", lambda: 2**26 + 1)
        assert serve.shortage() == ""


ENTRIES = {
    "loaderd": [sys.executable, "-m", "loaderd", "status"],
    "loaderd-stat": [sys.executable, "-c", "from loaderd.cli.main import stat; stat()"],
}
WAITS = """
import time

class Waits:
    def {method}(self):
        print("here", flush=True)
        while True:
            time.sleep(0.01)

Waits()
"""


class TestCtrlCWhileModulesLoad:
    @pytest.mark.parametrize("module", ["argparse", "msgspec", "rich"])
    @pytest.mark.parametrize("entry", ENTRIES)
    def test_it_ends_the_command_without_a_word(
        self, entry: str, module: str, tmp_path: Path
    ) -> None:
        self._interrupt(entry, module, WAITS.format(method="__init__"), tmp_path)

    def test_also_where_an_exception_would_be_lost(self, tmp_path: Path) -> None:
        self._interrupt("loaderd", "msgspec", WAITS.format(method="__del__"), tmp_path)

    def _interrupt(self, entry: str, module: str, code: str, folder: Path) -> None:
        (folder / f"{module}.py").write_text(code)
        environ = os.environ | {"PYTHONPATH": str(folder)}
        pipe = subprocess.PIPE
        with subprocess.Popen(ENTRIES[entry], env=environ, stdout=pipe, stderr=pipe) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == b"here\n"
                process.send_signal(signal.SIGINT)
                assert process.communicate(timeout=30) == (b"", b"")
                assert process.returncode == 130
            finally:
                process.kill()

    def test_one_that_is_ignored_stays_so(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "noted.py").write_text("import signal\nseen = signal.getsignal(2)\n")
        monkeypatch.syspath_prepend(tmp_path)
        usual = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            assert loaded("noted").seen is signal.SIG_IGN
        finally:
            signal.signal(signal.SIGINT, usual)
            sys.modules.pop("noted", None)
