"""``loaderd cache``: what it lists, what it removes, and what it says of damage."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from loaderd.cache import folder, images, layout, store
from loaderd.cli.main import main
from loaderd.spec.load import Load
from loaderd_client import Session
from tests.support.caches import files
from tests.support.daemons import Serve
from tests.support.streams import a_spec, digest

SAMPLES = 8
PLAIN = Load(target_size=(40, 50))
KEY, OTHER = "3f0c9a81d2e44b6f" * 2, "3f77a0c2b19d8e55" * 2

Run = Callable[..., tuple[int, list[str], str]]


@pytest.fixture(autouse=True)
def where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The default folder of the caches."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "loaderd"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """``loaderd cache …``: exit code, lines on stdout, stderr."""

    def call(*words: str) -> tuple[int, list[str], str]:
        code = main(["cache", *words])
        shown = capsys.readouterr()
        return code, shown.out.splitlines(), shown.err

    return call


def make(
    where: Path,
    key: str,
    load: Load = PLAIN,
    kept: Sequence[int] = range(SAMPLES),
    directory: str = "/photos",
) -> Path:
    """A cache that is not open, with some of its rows."""
    empty = images.head(load, directory, "Decoder 1.0")
    fd, granted = folder.open_cache(str(where), [key], empty, files(range(SAMPLES)), 10**9)
    cache = store.Store(fd, load.array_shape, granted.rows)
    for sample in kept:
        cache.keep(sample, np.full(load.array_shape, sample + 1, np.uint8), 1)
    return where / f"{key}{folder.EXTENSION}"


def damage(path: Path, sample: int) -> None:
    """Another byte in a row."""
    with path.open("r+b") as file:
        head = layout.read_head(file.fileno())
        assert head is not None
        os.pwrite(file.fileno(), b"\xff", head.row_at(head.extents[0].first + sample) + 5)


def names(where: Path) -> set[str]:
    return {found.key for found in folder.caches(str(where))}


class TestLs:
    def test_a_line_says_what_is_in_a_cache(self, where: Path, run: Run) -> None:
        path = make(where, KEY, kept=range(5))
        now = time.time()
        os.utime(path, (now - 125, now - 125))
        code, lines, _ = run("ls")
        assert code == 0
        assert lines[0].startswith("3f0c9a81d2e4  ")
        assert " ago  5 of 8 images  40x50 rgb nearest  /photos" in lines[0]
        assert "    2 min 5 s ago" in lines[0]
        assert lines[1].startswith("1 cache, ")
        assert lines[1].endswith(f"KiB, in {where}")

    def test_what_is_unusual_is_said(self, where: Path, run: Run) -> None:
        odd = msgspec.structs.replace(
            PLAIN, color_mode="rgba", interpolation="box", aspect="crop", decode="scaled"
        )
        make(where, KEY, odd)
        assert " 40x50 rgba box crop scaled  /photos" in run("ls")[1][0]

    def test_lines_that_look_alike_say_what_differs(self, where: Path, run: Run) -> None:
        make(where, KEY)
        make(where, OTHER, msgspec.structs.replace(PLAIN, truncated=True, compat="fixed"))
        make(where, "ab" * 16, msgspec.structs.replace(PLAIN, color_mode="rgba"))
        ends = sorted(line.partition("/photos")[2] for line in run("ls")[1][:3])
        assert ends == ["", "  truncated=False  compat=keras", "  truncated=True  compat=fixed"]

    def test_the_least_recently_used_comes_first_and_columns_line_up(
        self, where: Path, run: Run
    ) -> None:
        for key, ago in ((KEY, 5), (OTHER, 86399)):
            used = time.time() - ago
            os.utime(make(where, key), (used, used))
        first, second, total = run("ls")[1]
        assert (first[:4], second[:4]) == ("3f77", "3f0c")
        assert first.index(" ago ") == second.index(" ago ")
        assert total.startswith("2 caches, ")

    def test_json(self, where: Path, run: Run) -> None:
        path = make(where, KEY, kept=[3])
        code, (line,), _ = run("ls", "--json")
        row: dict[str, Any] = json.loads(line)
        assert code == 0
        assert row.pop("bytes") == path.stat().st_blocks * 512
        assert row.pop("used") == pytest.approx(time.time(), abs=60)
        assert row == {
            "key": KEY,
            "path": str(path),
            "damaged": False,
            "samples": SAMPLES,
            "cached": 1,
            "exif": False,
            "directory": "/photos",
            "target_size": [40, 50],
            "color_mode": "rgb",
            "interpolation": "nearest",
            "aspect": "stretch",
            "truncated": False,
            "compat": "keras",
            "decode": "exact",
            "reading": "load_img",
            "decoders": "Decoder 1.0",
        }

    def test_without_caches(self, where: Path, run: Run) -> None:
        assert run("ls") == (0, [f"0 caches, 0 B, in {where}"], "")
        assert run("ls", "--json") == (0, [], "")

    def test_a_file_that_is_no_cache(self, where: Path, run: Run) -> None:
        where.mkdir()
        (where / f"{KEY}{folder.EXTENSION}").write_bytes(b"x" * 9000)
        (where / "notes.txt").write_text("not ours")
        code, lines, _ = run("ls")
        assert code == 0
        assert lines[0].endswith("ago  damaged, or of another version")
        row = json.loads(run("ls", "--json")[1][0])
        assert row["damaged"] is True
        assert set(row) == {"key", "path", "bytes", "used", "damaged"}

    def test_names_reach_the_terminal_without_controls(self, where: Path, run: Run) -> None:
        make(where, KEY, directory="/\x1b[2J")
        assert run("ls")[1][0].endswith("  /\\x1b[2J")

    def test_names_that_are_no_utf8_reach_the_terminal(self, where: Path, run: Run) -> None:
        make(where, KEY, directory="/photos/\udcff\udcfe")
        assert run("ls")[1][0].endswith("  /photos/\\udcff\\udcfe")
        row = json.loads(run("ls", "--json")[1][0])
        assert row["directory"] == "/photos/\udcff\udcfe"

    def test_a_cache_of_an_earlier_version_is_listed_and_can_be_removed(
        self, where: Path, run: Run
    ) -> None:
        where.mkdir()
        (where / f"{KEY}{folder.EXTENSION}").write_bytes(
            b"loaderdC" + (2).to_bytes(4, "little") + bytes(9000)
        )
        make(where, OTHER)
        assert "damaged, or of another version" in "".join(run("ls")[1])
        assert run("rm", KEY)[0] == 0
        assert names(where) == {OTHER}

    def test_files_that_are_not_ours_are_not_listed(self, where: Path, run: Run) -> None:
        where.mkdir()
        (where / f"holiday{folder.EXTENSION}").touch()
        assert run("ls") == (0, [f"0 caches, 0 B, in {where}"], "")

    @pytest.mark.parametrize("how", ["flag", "variable", "file"])
    def test_the_folder_is_the_one_that_was_chosen(
        self, how: str, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        chosen, words = tmp_path / "chosen", []
        make(chosen, KEY)
        if how == "flag":
            words = [f"--cache-dir={chosen}"]
        elif how == "variable":
            monkeypatch.setenv("LOADERD_CACHE_DIR", str(chosen))
        else:
            (tmp_path / "loaderd.toml").write_text(f'cache_dir = "{chosen}"\n')
            words = [f"--config={tmp_path}/loaderd.toml"]
        assert run("ls", *words)[1][-1].endswith(f"in {chosen}")
        assert run("rm", "--all", *words)[0] == 0
        assert names(chosen) == set()

    def test_a_folder_that_is_none_is_an_error(self, where: Path, run: Run) -> None:
        where.write_text("")
        code, _, said = run("ls")
        assert code == 1
        assert said == f"loaderd: cannot read the cache folder {where}: Not a directory\n"


class TestRm:
    def test_one_by_the_beginning_of_its_key(self, where: Path, run: Run) -> None:
        make(where, KEY)
        make(where, OTHER)
        code, lines, _ = run("rm", "3f0")
        assert code == 0
        assert lines[0].startswith("removed 1 cache, ")
        assert names(where) == {OTHER}

    def test_one_that_is_named_twice_counts_once(self, where: Path, run: Run) -> None:
        make(where, KEY)
        assert run("rm", "3f0", KEY)[1][0].startswith("removed 1 cache, ")

    def test_all(self, where: Path, run: Run) -> None:
        make(where, KEY)
        make(where, OTHER)
        assert run("rm", "--all")[1][0].startswith("removed 2 caches, ")
        assert names(where) == set()
        assert run("rm", "--all") == (0, [f"removed 0 caches, 0 B, in {where}"], "")

    @pytest.mark.parametrize(
        ("words", "why"),
        [
            (["3f"], "2 caches' keys begin with '3f'"),
            (["3f0c", "9"], "no cache's key begins with '9'"),
            ([""], "no cache's key begins with ''"),
            ([], "name the caches to remove, or --all"),
            (["3f0c", "--all"], "name the caches to remove, or --all"),
        ],
    )
    def test_what_is_not_clear_is_2_and_removes_nothing(
        self, words: list[str], why: str, where: Path, run: Run
    ) -> None:
        make(where, KEY)
        make(where, OTHER)
        code, lines, said = run("rm", *words)
        assert (code, lines) == (2, [])
        assert said.startswith(f"loaderd: {why}")
        assert "`loaderd cache ls`" in said
        assert names(where) == {KEY, OTHER}

    def test_an_empty_key_is_not_the_only_cache(self, where: Path, run: Run) -> None:
        make(where, KEY)
        assert run("rm", "")[0] == 2
        assert names(where) == {KEY}


class TestVerify:
    def test_whole_rows(self, where: Path, run: Run) -> None:
        make(where, KEY)
        make(where, OTHER, kept=[1, 2])
        code, lines, _ = run("verify")
        assert code == 0
        assert sorted(lines[:2]) == [
            "3f0c9a81d2e4  8 rows, 0 damaged",
            "3f77a0c2b19d  2 rows, 0 damaged",
        ]
        assert lines[2] == f"2 caches verified, 0 rows damaged, in {where}"

    def test_damaged_rows_are_forgotten(self, where: Path, run: Run) -> None:
        path = make(where, KEY)
        damage(path, 2)
        damage(path, 7)
        assert run("verify") == (
            1,
            ["3f0c9a81d2e4  8 rows, 2 damaged", f"1 cache verified, 2 rows damaged, in {where}"],
            "",
        )
        assert run("verify") == (
            0,
            ["3f0c9a81d2e4  6 rows, 0 damaged", f"1 cache verified, 0 rows damaged, in {where}"],
            "",
        )

    def test_only_the_ones_that_are_named(self, where: Path, run: Run) -> None:
        damage(make(where, KEY), 0)
        make(where, OTHER)
        assert run("verify", "3f7")[0] == 0
        assert run("verify", "3f0")[0] == 1
        assert run("verify", "abc")[0] == 2

    def test_a_file_that_is_no_cache_is_removed_and_said(self, where: Path, run: Run) -> None:
        path = make(where, KEY)
        os.truncate(path, 5000)
        make(where, OTHER)
        code, lines, _ = run("verify")
        assert code == 1
        assert "3f0c9a81d2e4  removed: damaged, or of another version" in lines
        assert lines[-1] == f"1 cache verified, 0 rows damaged, in {where}"
        assert names(where) == {OTHER}
        assert run("verify")[0] == 0

    def test_one_that_gives_way_meanwhile_is_passed_over(
        self, where: Path, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make(where, KEY)
        found = folder.caches(str(where))
        folder.remove(found[0])
        monkeypatch.setattr(folder, "caches", lambda where: found)
        assert run("verify")[0] == 0
        assert " 0 of 8 images " in run("ls")[1][0]


class TestWithADaemon:
    def test_a_cache_in_use_is_listed_verified_and_removed(
        self, serve: Serve, photos: Path, where: Path, run: Run
    ) -> None:
        spec = msgspec.structs.replace(a_spec(photos), cache="disk")
        with serve() as daemon, Session(daemon.path) as session:
            stream = session.open(spec, slots=4)
            first = [digest(stream.take((0, position))) for position in range(stream.batches)]
            row = json.loads(run("ls", "--json")[1][0])
            assert (row["cached"], row["samples"]) == (96, 96)
            assert row["directory"] == str(photos)
            assert run("verify")[1][-1] == f"1 cache verified, 0 rows damaged, in {where}"
            assert run("rm", row["key"][:6])[0] == 0
            assert names(where) == set()
            again = [digest(stream.take((0, 0)))]
            again += [digest(stream.take((0, position))) for position in range(1, stream.batches)]
            assert again == first

    @pytest.mark.parametrize("words", [["ls", "--json"], ["rm", "--all"], ["verify"]])
    def test_a_daemon_that_uses_another_folder_is_told(
        self, serve: Serve, tmp_path: Path, where: Path, run: Run, words: list[str]
    ) -> None:
        other = tmp_path / "my caches"
        with serve(1, f"--cache-dir={other}"):
            assert run(*words)[2] == (
                'loaderd: the daemon "default" has its caches in another folder than '
                f"{where}: add --cache-dir '{other}'\n"
            )
            assert run(*words, f"--cache-dir={where}")[2] == ""


@pytest.mark.parametrize("words", [[], ["dance"], ["ls", "--all"], ["rm", "--json"]])
def test_a_wrong_word_is_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["cache", *words])
    assert caught.value.code == 2
