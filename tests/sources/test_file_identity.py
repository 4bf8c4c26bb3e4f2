"""A file has one key however it is reached, and another state whatever is done to it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from loaderd.ipc import manifest
from loaderd.ipc.manifest import Manifest
from loaderd.sources import file_identity as files
from loaderd.sources.file_identity import UNREADABLE, FileStates
from loaderd.sources.files import FileReader

HOUR = 3600 * 10**9


def look(root: Path | str, *names: str | bytes) -> FileStates:
    listed = [os.fsencode(name) for name in names]
    table = manifest.pack(str(root), ("a",), listed, np.zeros(len(names), np.int32))
    return files.look(Manifest.view(table))


def keys(root: Path | str, *names: str | bytes) -> list[int]:
    found: list[int] = look(root, *names).keys.tolist()
    return found


def state(path: Path) -> int:
    """Of a file; that which a worker sees is the same."""
    found = int(look(path.parent, path.name).states[0])
    assert found == files.state_of(os.stat(path)) != UNREADABLE
    return found


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "set" / "cat" / "1.bmp"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"yesterday's pixels")
    os.utime(path, (0, 0))
    return path


# -- which file it is ------------------------------------------------------------------


def test_a_file_has_one_key_by_whatever_path_it_is_reached(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = keys(tmp_path / "set", "cat/1.bmp")
    (tmp_path / "link").symlink_to("set")
    fold = tmp_path / "fold" / "cat"
    fold.mkdir(parents=True)
    (fold / "1.bmp").symlink_to(image)
    (fold / "2.bmp").symlink_to("../../link/cat/1.bmp")
    (fold / "3.bmp").symlink_to("2.bmp")
    (fold / "folder").symlink_to("../../set/cat")
    (tmp_path / "to link").symlink_to("fold")
    assert keys(tmp_path / "link", "cat/1.bmp") == whole
    assert keys(f"{tmp_path}/set/", "cat/1.bmp") == whole
    assert keys(f"{tmp_path}/fold/../set", "cat/../cat/1.bmp") == whole
    assert keys(tmp_path / "fold", *(f"cat/{number}.bmp" for number in (1, 2, 3))) == 3 * whole
    assert keys(tmp_path / "to link", "cat/folder/1.bmp") == whole
    assert keys("", str(image)) == whole
    monkeypatch.chdir(tmp_path)
    assert keys("set", "cat/1.bmp") == whole
    monkeypatch.chdir(image.parent)
    assert keys("", "1.bmp") == whole


def test_every_name_is_a_file_of_its_own(tmp_path: Path) -> None:
    names = [b"a", b"A", b"a ", b"b\xff.jpg", b"b\xfe.jpg", b"line\nbreak", b"line", b"x\x1b[2J"]
    for name in names:
        (tmp_path / os.fsdecode(name)).write_bytes(b"same")
    assert len(set(keys(tmp_path, *names))) == len(names)


def test_what_is_not_there_or_leads_nowhere_has_no_state(tmp_path: Path, image: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "lost").symlink_to("nowhere")
    found = look(tmp_path, "a", "lost", "missing", "set/cat/1.bmp", "set/cat/1.bmp/2", "no/3")
    assert (found.states != UNREADABLE).tolist() == [False, False, False, True, False, False]


def test_a_hundred_thousand_are_looked_at_in_blocks(tmp_path: Path, image: Path) -> None:
    found = look(image.parent, *["1.bmp", "2.bmp"] * 70_000)
    assert len(set(found.keys.tolist())) == 2
    assert found.states.tolist() == [files.state_of(os.stat(image)), UNREADABLE] * 70_000


# -- in which state it is --------------------------------------------------------------


def rewrite(path: Path) -> None:
    path.write_bytes(b"tomorrow's pixels!")


def replace(path: Path) -> None:
    """As `mv` and `rsync -t` do it."""
    other = path.with_suffix(".new")
    rewrite(other)
    os.utime(other, (0, 0))
    other.rename(path)


def restore(path: Path) -> None:
    """As an archive does it that keeps the dates."""
    path.unlink()
    rewrite(path)


def copy_over(path: Path) -> None:
    """As `cp -p` does it: the old file has the new one's pixels and date."""
    other = path.with_suffix(".new")
    rewrite(other)
    os.utime(other, (0, 0))
    shutil.copy2(other, path)


def write_through(path: Path) -> None:
    """A few bytes in the middle."""
    with path.open("r+b") as file:
        os.pwrite(file.fileno(), b"X", 5)


@pytest.mark.parametrize("change", [rewrite, replace, restore, copy_over, write_through])
def test_a_change_that_keeps_size_and_date_is_another_state(image: Path, change: object) -> None:
    before, size = state(image), image.stat().st_size
    change(image)  # type: ignore[operator]
    os.utime(image, (0, 0))
    assert (image.stat().st_size, image.stat().st_mtime_ns) == (size, 0)
    assert state(image) != before


def test_a_folder_of_the_same_name_has_other_files(tmp_path: Path, image: Path) -> None:
    """Two versions side by side, and a link from one to the other."""
    shutil.copytree(tmp_path / "set", tmp_path / "next", copy_function=shutil.copy2)
    before = state(image)
    (tmp_path / "set").rename(tmp_path / "old")
    (tmp_path / "next").rename(tmp_path / "set")
    assert state(image) != before


def test_a_file_that_nobody_touches_stays_in_its_state(image: Path) -> None:
    before = state(image)
    image.read_bytes()
    assert state(image) == before


@pytest.mark.parametrize(
    "seconds", [-1, -(2**31), -11_644_473_600, 2**31, 2**32 + 5, 9_223_372_037, 2**40, 0]
)
def test_odd_dates_are_states_like_others(seconds: int) -> None:
    """Before 1970, of Windows's first day, and behind 2262, of a file in memory."""
    path = Path("/dev/shm") / f"loaderd-test-{os.getpid()}"
    path.write_bytes(b"some")
    try:
        os.utime(path, ns=(0, seconds * 10**9 + 7))
        before = state(path)
        os.utime(path, ns=(0, seconds * 10**9 + 8))
        assert state(path) != before
    finally:
        path.unlink()


def status(**said: int) -> os.stat_result:
    """What a file system may say."""
    usual = {"st_size": 10, "st_mtime_ns": 0, "st_ctime_ns": 0} | said
    sequence = (0o100644, said.get("st_ino", 7), 99, 1, 0, 0, usual["st_size"], 0, 0, 0)
    return os.stat_result(sequence, usual)


def test_numbers_of_any_size_are_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    odd = [
        status(st_size=2**63 - 1, st_ino=2**64 - 1),
        status(st_size=0, st_ino=0),
        status(st_mtime_ns=-(2**70) + 3, st_ctime_ns=2**80 + 5),
        status(st_mtime_ns=-1),
        status(st_mtime_ns=-2),
        status(),
    ]
    said = {b"/%d" % number: one for number, one in enumerate(odd)}
    truth = os.lstat
    with monkeypatch.context() as patch:
        patch.setattr(os, "lstat", lambda path: said.get(path) or truth(path))
        found = look("/", *map(str, range(len(odd)))).states.tolist()
    assert found == [files.state_of(one) for one in odd]
    assert len(set(found)) == len(odd)
    assert UNREADABLE not in found


# -- whether it may be kept ------------------------------------------------------------


def kept(said: Sequence[int], before: int) -> list[bool]:
    """Whether files that have changed then are kept, read at some time."""
    stats = [status(st_ctime_ns=changed) for changed in said]
    return [files.settled_state(one, before) == files.state_of(one) for one in stats]


def test_a_file_that_has_just_changed_may_change_again_unseen_and_is_not_kept(
    image: Path,
) -> None:
    rewrite(image)
    assert files.settled_state(image.stat(), time.time_ns()) == UNREADABLE
    assert files.settled_state(image.stat(), time.time_ns() + HOUR) == state(image)


def test_the_clocks_of_file_systems_tick_differently() -> None:
    now = time.time_ns() // 10**9 * 10**9
    fine = [now - age * 10**6 + 1 for age in (0, 20, 99, 101, 1500)]
    assert kept(fine, now) == [False, False, False, True, True]
    whole = [now - age * 10**9 for age in (0, 1, 2, 3, 4)]
    assert kept(whole, now) == [False, False, False, True, True]


def test_a_file_that_is_rewritten_while_it_is_read_is_not_kept(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, truth = FileReader(), os.readv
    reader.read(bytes(image))
    later = time.time_ns() + HOUR
    assert files.settled_state(reader.status, later) == state(image)

    def meanwhile(descriptor: int, buffers: list[memoryview]) -> int:
        rewrite(image)
        os.utime(image, (0, 0))
        return truth(descriptor, buffers)

    monkeypatch.setattr(os, "readv", meanwhile)
    reader.read(bytes(image))
    assert files.settled_state(reader.status, later) == UNREADABLE


def test_a_change_while_the_reader_waited_for_the_disk_is_a_fresh_one() -> None:
    now = time.time_ns()
    assert kept([now - 1], now - 60 * 10**9) == [False]


def test_dates_to_come_are_another_clocks_and_no_reason_to_decode_for_ever() -> None:
    now = time.time_ns()
    assert kept([now + HOUR, now + 10**9 * 2**33], now) == [True, True]


# -- file systems that number files anew -----------------------------------------------

MOUNTS = """\
22 27 0:20 / /proc rw,relatime - proc proc rw
31 27 8:17 / /media/stick\\040one rw shared:5 - vfat /dev/sdb1 rw,fmask=0022
32 27 0:47 / /mnt/far rw - fuse.sshfs me@far:/data rw,user_id=0
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
"""


@pytest.mark.parametrize(
    ("device", "name"),
    [((8, 17), "vfat"), ((0, 47), "fuse.sshfs"), ((254, 0), "ext4"), ((9, 9), "")],
)
def test_a_file_system_is_known_by_its_device(device: tuple[int, int], name: str) -> None:
    assert files.file_system(MOUNTS, os.makedev(*device)) == name


@pytest.mark.parametrize(("name", "same"), [("vfat", True), ("fuse.sshfs", True), ("ext4", False)])
def test_a_number_counts_where_the_file_system_keeps_it(
    name: str, same: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "file_system", lambda mounts, device: name)
    files._kept_numbers.cache_clear()
    try:
        one, other = (files.state_of(status(st_ino=number)) for number in (5, 6))
        assert (one == other) == same
    finally:
        files._kept_numbers.cache_clear()
