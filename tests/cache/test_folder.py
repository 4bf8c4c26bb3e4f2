"""Caches share the room: the least recently opened gives way, never one that is in use."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from loaderd.cache import folder, store
from loaderd.cache.store import Head
from loaderd.errors import CacheError

ROW = 4096
SAMPLES = 8
STATES = np.stack([np.ones(SAMPLES, np.int64)] * 2 + [np.arange(SAMPLES)], axis=1)
AA, BB, CC, DD = (letter * 32 for letter in "abcd")


def head() -> Head:
    return Head(SAMPLES, ROW, 0, {"directory": "/photos"})


def opened(where: Path, key: str, size: int | None = None) -> tuple[int, int]:
    fd, granted = folder.open_cache(str(where), key, head(), STATES, size)
    return fd, granted.granted


def filled(where: Path, key: str, size: int | None = None) -> None:
    """A cache that is full, and closed again."""
    fd, granted = opened(where, key, size)
    cache = store.Store(fd, (1, 1, ROW), STATES)
    for sample in range(granted):
        cache.keep(sample, np.full((1, 1, ROW), sample + 1, np.uint8), (1, 1))


def keys(where: Path) -> list[str]:
    return [found.key for found in folder.caches(str(where))]


def age(where: Path, *oldest_first: str) -> None:
    for hours, key in enumerate(reversed(oldest_first), 1):
        at = 1_700_000_000 - 3600 * hours
        os.utime(where / f"{key}{folder.ENDING}", (at, at))


def test_caches_are_found_with_what_they_hold(tmp_path: Path) -> None:
    filled(tmp_path, AA)
    (found,) = folder.caches(str(tmp_path))
    assert found.key == AA
    assert found.head is not None
    assert found.head.about == {"directory": "/photos"}
    assert SAMPLES * ROW <= found.nbytes <= SAMPLES * ROW + 4 * 4096


def test_a_folder_that_is_not_there_has_none(tmp_path: Path) -> None:
    assert folder.caches(str(tmp_path / "missing")) == []


def test_what_does_not_fit_is_not_granted(tmp_path: Path) -> None:
    half = head()._replace(granted=4).claim
    fd, granted = opened(tmp_path, AA, size=half)
    os.close(fd)
    assert granted == 4


def test_more_is_granted_when_there_is_more_room(tmp_path: Path) -> None:
    filled(tmp_path, AA, size=head()._replace(granted=4).claim)
    fd, granted = opened(tmp_path, AA, size=10**6)
    cache = store.Store(fd, (1, 1, ROW), STATES)
    assert granted == SAMPLES
    assert cache.find(np.arange(SAMPLES)).sum() == 4


def test_the_least_recently_opened_gives_way(tmp_path: Path) -> None:
    for key in (AA, BB, CC):
        filled(tmp_path, key)
    age(tmp_path, BB, AA, CC)
    assert keys(tmp_path) == [BB, AA, CC]
    size = 3 * head().nbytes + 2 * 4096
    fd, granted = opened(tmp_path, DD, size)
    os.close(fd)
    assert granted == SAMPLES
    assert keys(tmp_path) == [AA, CC, DD]


def test_one_that_is_in_use_never_gives_way(tmp_path: Path) -> None:
    used, _ = opened(tmp_path, AA)
    fd, granted = opened(tmp_path, BB, head().nbytes)
    assert granted == 0
    assert keys(tmp_path) == [AA, BB]
    os.close(fd)
    os.close(used)


def test_one_in_use_counts_with_all_that_it_may_become(tmp_path: Path) -> None:
    used, _ = opened(tmp_path, AA)
    fd, granted = opened(tmp_path, BB, head().nbytes + head()._replace(granted=3).claim + 4096)
    assert 2 <= granted <= 4
    os.close(fd)
    os.close(used)


def test_a_damaged_one_is_made_anew_and_whoever_maps_it_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / f"{AA}{folder.ENDING}"
    path.write_bytes(b"x" * 10_000)
    with path.open("rb") as old:
        filled(tmp_path, AA)
        assert os.fstat(old.fileno()).st_size == 10_000
    (found,) = folder.caches(str(tmp_path))
    assert found.head is not None


def test_without_a_size_half_of_the_disk_is_the_limit(tmp_path: Path) -> None:
    state = os.statvfs(tmp_path)
    row = state.f_bavail * state.f_frsize // 10
    vast = Head(10, row, 0, {})
    states = np.stack([np.arange(10)] * 3, axis=1)
    fd, granted = folder.open_cache(str(tmp_path), AA, vast, states, None)
    os.close(fd)
    assert 4 <= granted.granted <= 5


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
    (tmp_path / f"{AA}{folder.ENDING}").chmod(0o400)
    with pytest.raises(CacheError, match=f"cannot use {tmp_path}/{AA}"):
        opened(tmp_path, AA)


def test_a_cache_that_is_a_link_is_named(tmp_path: Path) -> None:
    (tmp_path / f"{AA}{folder.ENDING}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CacheError, match=f"cannot use {tmp_path}/{AA}.images: .*--cache-dir"):
        opened(tmp_path, AA)


def test_where_there_is_no_room_for_the_marks_no_file_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, start: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    filled(tmp_path, AA)
    monkeypatch.setattr(os, "posix_fallocate", full)
    for key in (AA, BB):
        with pytest.raises(OSError, match="No space left"):
            opened(tmp_path, key)
    assert keys(tmp_path) == [AA]


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.images").write_bytes(b"mine")
    filled(tmp_path, AA)
    assert keys(tmp_path) == [AA]
    fd, _ = opened(tmp_path, BB, size=1)
    os.close(fd)
    assert keys(tmp_path) == [BB]
    assert (tmp_path / "holiday.images").read_bytes() == b"mine"
