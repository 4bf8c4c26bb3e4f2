"""A row counts if it is that of the file as it is, and whole; else it is decoded again."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from loaderd.cache import layout, store
from loaderd.cache.layout import Head
from loaderd.cache.store import Store
from loaderd.sources.file_identity import FileStates
from tests.support import caches

SHAPE = (5, 7, 3)
SAMPLES = 10
ALL = np.arange(SAMPLES)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some.images"


def known(version: int = 1) -> FileStates:
    return caches.files([3, 1, 4, 0, 5, 9, 2, 6, 8, 7], version)


def head(path: Path) -> Head:
    with path.open("rb") as file:
        found = layout.read_head(file.fileno())
    assert found is not None
    return found


def opened(path: Path, version: int = 1, shape: tuple[int, int, int] = SHAPE) -> Store:
    fd, granted = caches.adopted(path, caches.head(int(np.prod(shape))), known(version))
    return Store(fd, shape, granted.rows)


def filled(cache: Store) -> Store:
    """It, with all samples, and found."""
    for sample in ALL.tolist():
        cache.keep(sample, image(sample), 1)
    assert cache.find(ALL).all()
    return cache


def reads(cache: Store, sample: int, wanted: np.ndarray) -> bool:
    """Whether the cache gives these pixels."""
    pixels = cache.row(sample)
    return pixels is not None and bool((pixels == wanted).all())


def image(sample: int) -> np.ndarray:
    return np.random.default_rng(sample).integers(0, 256, SHAPE, np.uint8)


def row_at(path: Path, cache: Store, sample: int) -> int:
    return head(path).row_at(int(cache._row[sample]))


def write(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def test_what_was_kept_is_found_and_reads_the_same(path: Path) -> None:
    cache = opened(path)
    for sample in (2, 3, 7):
        cache.keep(sample, image(sample), 1)
    assert np.flatnonzero(cache.find(ALL)).tolist() == [2, 3, 7]
    for sample in (2, 3, 7):
        assert reads(cache, sample, image(sample))


@pytest.mark.parametrize("name", ["", "some.images"])
def test_several_are_gathered_at_once(path: Path, name: str) -> None:
    fd, granted = caches.adopted(path, caches.head(int(np.prod(SHAPE))), known())
    if not name:
        path.unlink()  # as one in memory: its rows are used in place
    cache = filled(Store(fd, SHAPE, granted.rows))
    ids = np.array([9, 0, 4])
    assert cache.find(ids).all()
    out = np.zeros((3, *SHAPE), np.uint8)
    assert cache.gather(ids, out)
    assert (out == np.stack([image(9), image(0), image(4)])).all()
    assert reads(cache, 4, image(4))


def test_it_is_there_for_the_next_who_opens_it(path: Path) -> None:
    opened(path).keep(4, image(4), 1)
    assert opened(path).find(np.array([4])).all()


def test_a_row_without_its_mark_does_not_count(path: Path) -> None:
    cache = opened(path)
    write(path, row_at(path, cache, 3), image(3).tobytes())
    assert not cache.find(ALL).any()


def test_a_row_that_does_not_fit_its_mark_is_not_served_and_can_be_written_again(
    path: Path,
) -> None:
    opened(path).keep(3, image(3), 1)
    cache = opened(path)
    write(path, row_at(path, cache, 3) + 20, bytes(4))
    assert not cache.find(np.array([3])).any()
    cache.keep(3, image(3), 1)
    assert cache.find(np.array([3])).all()


def test_a_row_of_another_file_is_not_served_whatever_its_mark(path: Path) -> None:
    """As after a loss of power, when one page came to the disk and another did not."""
    first = filled(opened(path))
    pixels, mark = first.row(3), first._mark(int(first._row[3]))
    assert pixels is not None
    later = opened(path)
    write(path, row_at(path, later, 4), pixels.tobytes())
    place = store._mark_at(head(path), int(later._row[4]))
    write(path, place, mark.to_bytes(8, "little"))
    assert not later.find(np.array([4])).any()
    assert not opened(path, version=2).find(ALL).any()


def test_a_file_of_which_nothing_is_known_is_never_kept(path: Path) -> None:
    cache = opened(path, version=0)
    cache.keep(3, image(3), 0)
    assert not cache.find(ALL).any()


def test_a_file_that_changed_after_the_stream_was_opened_is_not_kept(path: Path) -> None:
    cache = opened(path)
    cache.keep(3, image(3), 2)
    cache.keep(4, image(4), 0)
    assert not cache.find(ALL).any()


def test_images_that_are_no_bytes_are_not_kept(path: Path) -> None:
    cache = opened(path)
    cache.keep(3, image(3).astype(np.uint16), 1)
    assert not cache.find(ALL).any()


@contextlib.contextmanager
def small_files(size: int) -> Iterator[None]:
    """No file may become longer: as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_ends_the_writing_and_nothing_else(path: Path) -> None:
    cache = opened(path)
    with small_files(row_at(path, cache, 5)):
        for sample in (0, 5, 2, 1, 9, 3):  # the second one's row does not fit
            cache.keep(sample, image(sample), 1)
    assert cache.trouble == "File too large"
    assert np.flatnonzero(cache.find(ALL)).tolist() == [0]


def test_holes_take_no_room(path: Path) -> None:
    wanted = caches.files(range(10**6))
    fd, granted = caches.adopted(path, caches.head(150 * 150 * 3), wanted, 10**11)
    os.close(fd)
    assert granted.lacking == 0
    assert path.stat().st_size > 60 * 10**9
    assert path.stat().st_blocks * 512 < 33 * 10**6


def test_the_pages_of_the_columns_are_taken_at_once(path: Path) -> None:
    fd, _ = caches.adopted(path, caches.head(3), caches.files(range(10**5)))
    os.close(fd)
    assert path.stat().st_blocks * 512 >= 10**5 * 32


@pytest.mark.parametrize("damage", [b"", b"x" * 5000])
def test_a_file_that_is_no_cache_is_known_by_its_head(path: Path, damage: bytes) -> None:
    path.write_bytes(damage)
    with path.open("rb") as file:
        assert layout.read_head(file.fileno()) is None


@pytest.mark.parametrize("field", range(0, 48, 4))
def test_a_damaged_head_is_no_reason_to_fail(path: Path, field: int) -> None:
    opened(path)
    for damage in (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\1\0\0\0"):
        write(path, field, damage)
        with path.open("rb") as file:
            layout.read_head(file.fileno())


def test_names_of_any_characters_fit_in_the_head(path: Path) -> None:
    about = {"directory": "\U0001f600\udcff\n" * 100}
    with path.open("w+b") as file:
        layout.write_head(file.fileno(), Head(4096, about))
        found = layout.read_head(file.fileno())
    assert found == Head(4096, about)


def test_a_cache_of_an_earlier_version_is_known_for_none(path: Path) -> None:
    path.write_bytes(b"loaderdC" + (2).to_bytes(4, "little") + bytes(50_000))
    with path.open("rb") as file:
        assert layout.read_head(file.fileno()) is None


def test_a_cache_of_another_shape_is_not_used(path: Path) -> None:
    fd, granted = caches.adopted(path, caches.head(int(np.prod(SHAPE))), known())
    cache = Store(fd, (4, 7, 3), granted.rows)
    assert (cache.trouble, cache.lost) == (store.LOST, True)
    assert not cache.find(ALL).any()
    cache.keep(3, image(3)[:4], 1)


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.97])
def test_rows_of_a_file_that_was_truncated_are_not_served_whoever_writes_to_it(
    path: Path, kept: float
) -> None:
    cache, other = filled(opened(path)), opened(path)
    whole = head(path)
    os.truncate(path, int(kept * whole.nbytes))
    store.forget(other._fd, whole, int(other._row.max()))  # as by one who was about to write
    os.pwrite(other._fd, image(1).tobytes(), whole.row_at(int(other._row.max())))
    os.ftruncate(other._fd, whole.nbytes)
    out = np.zeros((SAMPLES, *SHAPE), np.uint8)
    assert not cache.gather(ALL, out)
    assert (cache.trouble, cache.lost) == (store.LOST, True)
    assert not cache.find(ALL).any()


def test_one_row_of_a_file_that_was_truncated_is_none(path: Path) -> None:
    cache = filled(opened(path))
    os.truncate(path, 0)
    assert cache.row(3) is None
    assert cache.lost


def test_nothing_is_written_to_a_file_that_was_truncated(path: Path) -> None:
    cache = opened(path)
    os.truncate(path, 0)
    cache.keep(3, image(3), 1)
    assert cache.lost
    assert path.stat().st_size == 0
