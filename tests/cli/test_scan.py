"""``loaderd scan``: real scans of real files, some of which crash a decoder or hang in it."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from PIL import Image

from loaderd.cli import scan
from loaderd.cli.main import main
from loaderd.ipc import address, dial
from loaderd.ipc.text import printable
from loaderd.launch import launch
from loaderd.launch.launch import last_lines
from tests.cli.test_stat import everything
from tests.support.daemons import eventually, family, gone

ROOT = Path(__file__).parents[2]
DEADLINE = 30.0
SCAN = [sys.executable, "-m", "loaderd", "scan"]


@pytest.fixture(autouse=True)
def nothing_is_left(runtime: str) -> Iterator[None]:
    before = psutil.Process().children()  # other tests may have brought multiprocessing's tracker
    yield
    folder = os.path.join(runtime, "loaderd")
    eventually(lambda: not os.path.exists(folder) or not os.listdir(folder))
    assert psutil.Process().children() == before


@pytest.fixture
def folder(photos: Path, tmp_path: Path) -> Path:
    """25 photos, in a folder of a folder."""
    shutil.copytree(photos / "emu", tmp_path / "data" / "birds" / "emu")
    return tmp_path / "data"


def spoil(folder: Path) -> list[str]:
    """Makes some of it unreadable; returns the paths as they are printed, in order."""
    photo = (folder / "birds/emu/000.jpg").read_bytes()
    (folder / "birds" / "cut.jpeg").write_bytes(photo[: len(photo) // 2])
    os.mkfifo(folder / "birds" / "emu" / "waits\x1b.jpg")
    (folder / "top.PNG").write_bytes(b"")
    (folder / "notes.txt").write_text("no image, and none by its name")
    names = ("birds/cut.jpeg", r"birds/emu/waits\x1b.jpg", "top.PNG")
    return [f"{folder}/{name}" for name in names]


class TestWhatItFinds:
    def test_every_bad_image_is_a_line_and_the_code_is_1(
        self, folder: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        bad = spoil(folder)
        assert main(["scan", str(folder)]) == 1
        got = capfd.readouterr()
        *lines, summary = got.out.splitlines()
        assert [line.partition(": ")[0] for line in lines] == bad
        assert lines[1].endswith(": not a regular file")
        assert summary == "28 images, 3 bad"
        assert got.err == ""

    def test_where_all_can_be_read_the_code_is_0(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["scan", str(folder)]) == 0
        assert capsys.readouterr().out == "25 images, 0 bad\n"

    def test_json_is_one_object(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        bad = spoil(folder)
        assert main(["scan", str(folder), "--json"]) == 1
        got = json.loads(capsys.readouterr().out)
        assert [printable(row["path"]) for row in got["bad"]] == bad
        assert [row["quarantined"] for row in got["bad"]] == [False] * 3
        assert "not a regular file" in got["bad"][1]["reason"]
        assert (got["directory"], got["images"], got["bad_images"]) == (str(folder), 28, 3)
        assert (got["untried_images"], got["troubles"]) == (0, [])

    def test_json_has_names_as_the_file_system_has_them(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        names = sorted(
            os.path.join(os.fsencode(folder), name)
            for name in (b"a\nb.jpg", rb"a\nb.jpg", b"\xff.jpg")
        )
        for name in names:
            Path(os.fsdecode(name)).touch()
        assert main(["scan", str(folder), "--json"]) == 1
        got = json.loads(capsys.readouterr().out)
        assert sorted(os.fsencode(row["path"]) for row in got["bad"]) == names

    @pytest.mark.parametrize("module", ["iterators", "image_options"])
    def test_all_that_either_rule_of_keras_lists_is_looked_at(self, module: str) -> None:
        source = (ROOT / "client" / "loaderd_client" / "keras" / f"{module}.py").read_text()
        found = re.search(r"^EXTENSIONS = (\(.*\))$", source, re.MULTILINE)
        assert found
        for extension in ast.literal_eval(found[1]):
            assert extension.endswith(scan.EXTENSIONS)

    def test_limits_come_from_flags_or_variables_as_for_any_daemon(
        self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LOADERD_MAX_PIXELS", "100")
        monkeypatch.setenv("LOADERD_MAX_BAD", "0%")
        assert main(["scan", str(folder)]) == 1
        assert capsys.readouterr().out.endswith("\n25 images, 25 bad\n")
        assert main(["scan", str(folder), "--max-pixels=1M"]) == 0

    def test_what_could_not_be_tried_is_no_bad_image_and_no_success(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Image.new("RGB", (10_000, 9_000)).save(folder / "huge.jpg", "png")
        assert main(["scan", str(folder), "--worker-memory=200M", "--workers=1"]) == 1
        got = capsys.readouterr()
        assert got.out == "26 images, 0 bad, 26 not tried\n"
        assert "huge.jpg" in got.err
        assert "--worker-memory" in got.err


class TestWhatItRefuses:
    @pytest.mark.parametrize(
        "words",
        [["nowhere"], [""], [__file__], [".", "--workers=0"], [".", "--max-pixels=x"]],
    )
    def test_a_wrong_argument_is_2(
        self, words: list[str], capsys: pytest.CaptureFixture[str], runtime: str
    ) -> None:
        assert main(["scan", *words]) == 2
        assert capsys.readouterr().err.startswith("loaderd: ")
        assert os.listdir(runtime) == []

    def test_a_folder_without_images_is_an_error(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["scan", str(tmp_path)]) == 1
        assert capsys.readouterr().err == (
            f"loaderd: No images found in {tmp_path}, nor in its subfolders\n"
        )

    def test_a_daemon_that_cannot_start_says_why(
        self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(launch, "_SERVE", "raise OSError('the disk is on fire')")
        assert main(["scan", str(folder)]) == 1
        (told,) = capsys.readouterr().err.splitlines()
        assert told.startswith("loaderd: the private daemon could not start: ")
        assert "the disk is on fire" in told

    def test_it_needs_no_place_where_it_could_be_found(
        self, folder: Path, capsys: pytest.CaptureFixture[str], runtime: str
    ) -> None:
        lock = Path(runtime, "loaderd", f"scan-{os.getpid()}.lock")
        lock.mkdir(parents=True)
        assert main(["scan", str(folder)]) == 0
        assert capsys.readouterr().out == "25 images, 0 bad\n"
        lock.rmdir()


SABOTAGED = """
import sys
from loaderd.cli import main
from loaderd.launch import launch

launch._SERVE = f"from tests.faults import saboteur; saboteur.serve({sys.argv[1]!r}, sys.argv[2:])"
raise SystemExit(main.main(["scan", *sys.argv[2:]]))
"""


class Scan:
    """A scan in which a file harms the worker that decodes it, and what it has started."""

    def __init__(self, folder: Path, struck: Path, harm: str, *words: str) -> None:
        struck.mkdir()
        self._struck = struck
        plan = {"stage": "decoding", "harm": harm, "folder": str(struck), "times": 9, "name": "007"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", SABOTAGED, json.dumps(plan), str(folder), *words],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def in_the_midst(self) -> list[psutil.Process]:
        """Waits for the harm; the scan's processes, its daemon second."""
        eventually(lambda: bool(os.listdir(self._struck)))
        socket = address.socket_path(f"scan-{self.process.pid}")
        return [psutil.Process(self.process.pid), *family(dial.listener(socket) or 0)]

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, out, err


class TestWhatItSurvives:
    @pytest.mark.parametrize("harm", ["SIGSEGV", "hang"])
    def test_a_file_that_kills_its_worker_is_found_and_the_rest_is_tried(
        self, folder: Path, tmp_path: Path, harm: str
    ) -> None:
        words = "--sample-timeout=0.3", "--workers=2", "--json"
        code, out, err = Scan(folder, tmp_path / "struck", harm, *words).end()
        assert (code, err) == (1, "")
        got = json.loads(out)
        assert (got["images"], got["bad_images"], got["untried_images"]) == (25, 1, 0)
        (bad,) = got["bad"]
        assert bad["path"] == f"{folder}/birds/emu/007.jpg"
        assert bad["quarantined"]

    def test_ctrl_c_ends_it_with_all_that_it_started(self, folder: Path, tmp_path: Path) -> None:
        running = Scan(folder, tmp_path / "struck", "hang")
        members = running.in_the_midst()
        running.process.send_signal(signal.SIGINT)
        assert running.end() == (130, "", "")
        assert all(gone(member) for member in members)

    def test_its_death_ends_all_that_it_started(self, folder: Path, tmp_path: Path) -> None:
        running = Scan(folder, tmp_path / "struck", "hang")
        members = running.in_the_midst()
        running.process.kill()
        running.end()
        eventually(lambda: all(gone(member) for member in members))

    def test_the_death_of_its_daemon_is_an_error(self, folder: Path, tmp_path: Path) -> None:
        running = Scan(folder, tmp_path / "struck", "hang")
        running.in_the_midst()[1].kill()
        code, out, err = running.end()
        assert (code, out) == (1, "")
        assert err.splitlines()[-1].startswith("loaderd: the daemon went away")


def test_a_terminal_sees_a_bar_and_the_output_is_free_of_it(folder: Path) -> None:
    bad = spoil(folder)
    ours, theirs = pty.openpty()
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, ours)
        words = [*SCAN, str(folder)]
        running = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=theirs, text=True)
        os.close(theirs)
        shown = everything(ours)
        out, _ = running.communicate(timeout=DEADLINE)
    assert "scanning" in shown
    assert "100%" in shown
    assert len(out.splitlines()) == len(bad) + 1
    assert "\x1b" not in out


def test_the_log_of_a_long_scan_is_cut(tmp_path: Path) -> None:
    with open(tmp_path / "log", "w+b") as file:
        file.writelines(b"line %d\n" % number for number in range(20_000))
        file.flush()
        lines = last_lines(file.fileno())
    assert lines == [f"line {number}" for number in range(19_980, 20_000)]
