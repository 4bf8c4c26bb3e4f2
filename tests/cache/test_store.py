"""A row counts if it is that of the file as it is, and whole; else it is decoded again."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from loaderd.cache import store
from loaderd.cache.store import Head, States, Store
from loaderd.errors import CacheError

SHAPE = (5, 7, 3)
SAMPLES = 10
ALL = np.arange(SAMPLES)
ROWS = np.array([3, 1, 4, 0, 5, 9, 2, 6, 8, 7])  # of the samples


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some.images"


def states(mtime: int = 1000) -> States:
    return np.stack([ALL + 100, np.full(SAMPLES, mtime), ROWS], axis=1)


def head(granted: int = SAMPLES) -> Head:
    return Head(SAMPLES, int(np.prod(SHAPE)), granted, {"directory": "/photos"})


def opened(path: Path, known: States | None = None, granted: int = SAMPLES) -> Store:
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    known = states() if known is None else known
    store.adopt(fd, head(granted), known)
    return Store(fd, SHAPE, known)


def image(sample: int) -> np.ndarray:
    return np.random.default_rng(sample).integers(0, 256, SHAPE, np.uint8)


def state(sample: int, mtime: int = 1000) -> tuple[int, int]:
    return (sample + 100, mtime)


def spoil(path: Path, sample: int) -> None:
    at = head().rows_at + int(ROWS[sample]) * head().row_bytes
    with path.open("r+b") as file:
        file.seek(at + 20)
        file.write(b"\0\0\0\0")


def test_what_was_kept_is_found_and_reads_the_same(path: Path) -> None:
    cache = opened(path)
    for sample in (2, 3, 7):
        cache.keep(sample, image(sample), state(sample))
    assert np.flatnonzero(cache.find(ALL)).tolist() == [2, 3, 7]
    for sample in (2, 3, 7):
        assert (cache.row(sample) == image(sample)).all()


def test_several_are_gathered_at_once(path: Path) -> None:
    cache = opened(path)
    for sample in ALL.tolist():
        cache.keep(sample, image(sample), state(sample))
    ids = np.array([9, 0, 4])
    assert cache.find(ids).all()
    out = np.zeros((3, *SHAPE), np.uint8)
    cache.gather(ids, out)
    assert (out == np.stack([image(9), image(0), image(4)])).all()


def test_it_is_there_for_the_next_who_opens_it(path: Path) -> None:
    opened(path).keep(4, image(4), state(4))
    assert opened(path).find(np.array([4])).all()


def test_a_row_without_its_mark_does_not_count(path: Path) -> None:
    cache = opened(path)
    at = head().rows_at + int(ROWS[3]) * head().row_bytes
    with path.open("r+b") as file:
        file.seek(at)
        file.write(image(3).tobytes())
    assert not cache.find(ALL).any()


def test_a_row_that_does_not_fit_its_mark_is_not_served_and_can_be_written_again(
    path: Path,
) -> None:
    opened(path).keep(3, image(3), state(3))
    spoil(path, 3)
    cache = opened(path)
    assert not cache.find(np.array([3])).any()
    cache.keep(3, image(3), state(3))
    assert cache.find(np.array([3])).all()


def test_an_empty_file_that_is_no_image_is_never_found(path: Path) -> None:
    cache = opened(path, states() * np.array([0, 0, 1]))
    assert not cache.find(ALL).any()


def test_a_file_that_has_changed_is_forgotten_when_nobody_else_uses_the_cache(path: Path) -> None:
    opened(path).keep(3, image(3), state(3))
    cache = opened(path, states(mtime=2000))
    assert not cache.find(ALL).any()
    cache.keep(3, image(33), state(3, mtime=2000))
    assert (cache.row(3) == image(33)).all()
    assert cache.find(np.array([3])).all()


def test_what_others_rely_on_is_not_written_over(path: Path) -> None:
    older = opened(path)
    older.keep(3, image(3), state(3))
    newer = opened(path, states(mtime=2000))
    assert not newer.find(ALL).any()
    newer.keep(3, image(33), state(3, mtime=2000))
    assert not newer.find(ALL).any()
    assert older.find(np.array([3])).all()
    assert (older.row(3) == image(3)).all()


def test_a_file_that_changed_after_the_stream_was_opened_is_not_kept(path: Path) -> None:
    cache = opened(path)
    cache.keep(3, image(3), state(3, mtime=2000))
    assert not cache.find(ALL).any()


def test_rows_that_were_not_granted_are_not_kept(path: Path) -> None:
    cache = opened(path, granted=4)
    for sample in ALL.tolist():
        cache.keep(sample, image(sample), state(sample))
    assert sorted(ROWS[cache.find(ALL)].tolist()) == [0, 1, 2, 3]


def test_images_that_are_no_bytes_are_not_kept(path: Path) -> None:
    cache = opened(path)
    cache.keep(3, image(3).astype(np.uint16), state(3))
    assert not cache.find(ALL).any()


@contextlib.contextmanager
def small_files() -> Iterator[None]:
    """No file may become longer than the first half of the cache: as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (head().rows_at + 5 * head().row_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_ends_the_writing_and_nothing_else(path: Path) -> None:
    cache = opened(path)
    with small_files():
        for sample in (0, 5, 2, 1, 9, 3):  # the second one's row does not fit
            cache.keep(sample, image(sample), state(sample))
    assert cache.trouble == "File too large"
    assert np.flatnonzero(cache.find(ALL)).tolist() == [0]


def test_holes_take_no_room(path: Path) -> None:
    large = Head(10**6, 150 * 150 * 3, 10**6, {})
    with path.open("w+b") as file:
        store.write_head(file.fileno(), large)
        assert os.fstat(file.fileno()).st_size == large.nbytes > 60 * 10**9
        assert os.fstat(file.fileno()).st_blocks * 512 < 10**5


def test_the_pages_of_the_marks_are_taken_at_once(path: Path) -> None:
    many = Head(10**5, 3, 0, {})
    nobody = np.stack([np.full(10**5, -1), np.full(10**5, -1), np.arange(10**5)], axis=1)
    with path.open("w+b") as file:
        store.adopt(file.fileno(), many, nobody)
        assert os.fstat(file.fileno()).st_blocks * 512 >= many.rows_at


@pytest.mark.parametrize("damage", [b"", b"x" * 5000])
def test_a_file_that_is_no_cache_is_known_by_its_head(path: Path, damage: bytes) -> None:
    path.write_bytes(damage)
    with path.open("rb") as file:
        assert store.read_head(file.fileno()) is None


def test_a_cache_of_another_shape_is_refused(path: Path) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    store.adopt(fd, head(), states())
    with pytest.raises(CacheError, match="does not fit"):
        Store(fd, (4, 7, 3), states())
