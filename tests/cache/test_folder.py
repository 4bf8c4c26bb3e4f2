"""Caches share the room: the least recently opened gives way, never one that is in use."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from loaderd.cache import folder
from loaderd.cache.layout import Head
from loaderd.cache.store import Store
from loaderd.errors import CacheError
from tests.support import caches
from tests.support.daemons import eventually

ROW = 4096
SAMPLES = 8
AA, BB, CC, DD = (letter * 32 for letter in "abcd")
WHOLE = Head(ROW, {}, (SAMPLES,), SAMPLES).claim
"""Bytes of a cache that is full."""


def opened(
    where: Path, *keys: str, size: int | None = None, names: Iterable[int] = range(SAMPLES)
) -> tuple[int, int]:
    """A descriptor of a cache in use, and how many of the files have a row."""
    wanted = caches.files([*names])
    fd, granted = folder.open_cache(str(where), keys, caches.head(ROW), wanted, size)
    return fd, len(granted.rows) - granted.lacking


def filled(
    where: Path, *keys: str, size: int | None = None, names: Iterable[int] = range(8)
) -> int:
    """A cache that is full, and closed again; returns how many of the files are there."""
    wanted = caches.files([*names])
    fd, granted = folder.open_cache(str(where), keys, caches.head(ROW), wanted, size)
    cache = Store(fd, (1, 1, ROW), granted.rows)
    for sample in range(len(granted.rows)):
        cache.keep(sample, np.full((1, 1, ROW), sample + 1, np.uint8), 1)
    return int(cache.find(np.arange(len(granted.rows))).sum())


def keys(where: Path) -> list[str]:
    return [found.key for found in folder.caches(str(where))]


def age(where: Path, *oldest_first: str) -> None:
    for hours, key in enumerate(reversed(oldest_first), 1):
        at = 1_700_000_000 - 3600 * hours
        os.utime(where / f"{key}{folder.EXTENSION}", (at, at))


def test_caches_are_found_with_what_they_hold(tmp_path: Path) -> None:
    filled(tmp_path, AA)
    (found,) = folder.caches(str(tmp_path))
    assert found.key == AA
    assert found.head is not None
    assert found.head.about == {"directory": "/photos"}
    assert SAMPLES * ROW <= found.nbytes <= WHOLE


def test_a_folder_that_is_not_there_has_none(tmp_path: Path) -> None:
    assert folder.caches(str(tmp_path / "missing")) == []


def test_what_does_not_fit_is_not_granted(tmp_path: Path) -> None:
    fd, granted = opened(tmp_path, AA, size=WHOLE - 4 * ROW)
    os.close(fd)
    assert granted == 4


def test_more_is_granted_when_there_is_more_room(tmp_path: Path) -> None:
    assert filled(tmp_path, AA, size=WHOLE - 4 * ROW) == 4
    fd, granted = opened(tmp_path, AA, size=10**6)
    os.close(fd)
    assert granted == SAMPLES
    assert filled(tmp_path, AA, size=10**6) == SAMPLES


def test_a_cache_of_a_folder_above_will_do_and_the_nearest_is_taken(tmp_path: Path) -> None:
    filled(tmp_path, BB, CC, names=range(4))
    filled(tmp_path, AA, BB, CC, names=range(4, 8))
    assert keys(tmp_path) == [BB]
    assert filled(tmp_path, CC, names=range(3)) == 3
    filled(tmp_path, AA, BB, CC, names=range(8, 20))
    assert keys(tmp_path) == [CC, BB]


def test_the_least_recently_opened_gives_way(tmp_path: Path) -> None:
    for key in (AA, BB, CC):
        filled(tmp_path, key)
    age(tmp_path, BB, AA, CC)
    assert keys(tmp_path) == [BB, AA, CC]
    fd, granted = opened(tmp_path, DD, size=3 * WHOLE + 2 * 4096)
    os.close(fd)
    assert granted == SAMPLES
    assert keys(tmp_path) == [AA, CC, DD]


def test_rows_that_were_wanted_before_another_cache_give_way_before_it(tmp_path: Path) -> None:
    filled(tmp_path, AA)
    filled(tmp_path, BB)
    for key, at in ((AA, 1_700_000_000), (BB, 4_000_000_000)):
        os.utime(tmp_path / f"{key}{folder.EXTENSION}", (at, at))
    tight = 2 * WHOLE + ROW
    assert filled(tmp_path, AA, size=tight, names=range(4, 12)) == 8
    assert keys(tmp_path) == [AA, BB]
    os.utime(tmp_path / f"{BB}{folder.EXTENSION}", (1_600_000_000, 1_600_000_000))
    assert filled(tmp_path, AA, size=tight, names=range(12, 20)) == 8
    assert keys(tmp_path) == [AA]


def test_nobody_gives_way_for_files_that_are_there_already(tmp_path: Path) -> None:
    filled(tmp_path, AA)
    filled(tmp_path, BB)
    for part in (range(4), range(4, 8), range(8)):
        assert filled(tmp_path, BB, size=2 * WHOLE + 4096, names=part) == len(part)
    assert keys(tmp_path) == [AA, BB]


def test_one_that_is_in_use_never_gives_way(tmp_path: Path) -> None:
    used, _ = opened(tmp_path, AA)
    fd, granted = opened(tmp_path, BB, size=WHOLE)
    assert granted == 0
    assert keys(tmp_path) == [AA, BB]
    os.close(fd)
    os.close(used)


def test_one_in_use_counts_with_all_that_it_may_become(tmp_path: Path) -> None:
    used, _ = opened(tmp_path, AA)
    fd, granted = opened(tmp_path, BB, size=2 * WHOLE - 5 * ROW)
    assert granted == 3
    os.close(fd)
    os.close(used)


def test_a_damaged_one_is_made_anew_and_whoever_maps_it_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / f"{AA}{folder.EXTENSION}"
    path.write_bytes(b"x" * 10_000)
    with path.open("rb") as old:
        filled(tmp_path, AA)
        assert os.fstat(old.fileno()).st_size == 10_000
    (found,) = folder.caches(str(tmp_path))
    assert found.head is not None


def test_without_a_size_half_of_the_disk_is_the_limit(tmp_path: Path) -> None:
    state = os.statvfs(tmp_path)
    vast = Head(state.f_bavail * state.f_frsize // 10, {})
    wanted = caches.files(range(10))
    fd, granted = folder.open_cache(str(tmp_path), [AA], vast, wanted, None)
    os.close(fd)
    assert 5 <= granted.lacking <= 6


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_that_must_not_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(CacheError, match=str(tmp_path)):
        opened(tmp_path / "sub", AA)


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match=r"cannot use the cache folder .*/file: it is a file"):
        opened(tmp_path / "file", AA)
    with pytest.raises(CacheError, match=r"cannot use the cache folder .*/sub: Not a directory"):
        opened(tmp_path / "file" / "sub", AA)


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_cache_that_must_not_be_written_is_named(tmp_path: Path) -> None:
    filled(tmp_path, AA)
    (tmp_path / f"{AA}{folder.EXTENSION}").chmod(0o400)
    with pytest.raises(CacheError, match=f"cannot use {tmp_path}/{AA}"):
        opened(tmp_path, AA)


def test_a_cache_that_is_a_link_is_named(tmp_path: Path) -> None:
    (tmp_path / f"{AA}{folder.EXTENSION}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CacheError, match=f"cannot use {tmp_path}/{AA}.images: .*--cache-dir"):
        opened(tmp_path, AA)


def test_where_there_is_no_room_for_the_columns_no_file_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, start: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    filled(tmp_path, AA, names=range(5))
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        opened(tmp_path, BB)
    assert keys(tmp_path) == [AA]
    fd, there = opened(tmp_path, AA)
    os.close(fd)
    assert there == 5


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.images").write_bytes(b"mine")
    filled(tmp_path, AA)
    assert keys(tmp_path) == [AA]
    fd, _ = opened(tmp_path, BB, size=1)
    os.close(fd)
    assert keys(tmp_path) == [BB]
    assert (tmp_path / "holiday.images").read_bytes() == b"mine"


def test_openers_take_turns(tmp_path: Path) -> None:
    filled(tmp_path, AA)
    lock = os.open(tmp_path / ".lock", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with ThreadPoolExecutor(1) as threads:
        job = threads.submit(filled, tmp_path, AA)
        eventually(lambda: caches.is_waited_for(lock))
        assert not job.done()
        os.close(lock)
        assert job.result() == SAMPLES


def test_caches_of_earlier_versions_are_listed_and_give_way(tmp_path: Path) -> None:
    old = tmp_path / f"{AA}{folder.EXTENSION}"
    old.write_bytes(b"loaderdC" + (2).to_bytes(4, "little") + bytes(5 * ROW))
    (found,) = folder.caches(str(tmp_path))
    assert found.head is None
    assert filled(tmp_path, BB, AA, size=WHOLE + ROW) == SAMPLES
    assert keys(tmp_path) == [BB]
