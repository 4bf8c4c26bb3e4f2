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
    known = states() if known is None else known
    return Store(adopted(path, head(granted), known), SHAPE, known)


def adopted(path: Path, what: Head, known: States) -> int:
    """The descriptor of the file, which is made if it is missing."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    if not os.fstat(fd).st_size:
        os.ftruncate(fd, what.nbytes)
    store.adopt(fd, what, known)
    return fd


def filled(cache: Store) -> Store:
    """It, with all samples, and found."""
    for sample in ALL.tolist():
        cache.keep(sample, image(sample), state(sample))
    assert cache.find(ALL).all()
    return cache


def reads(cache: Store, sample: int, wanted: np.ndarray) -> bool:
    """Whether the cache gives these pixels."""
    pixels = cache.row(sample)
    return pixels is not None and bool((pixels == wanted).all())


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
        assert reads(cache, sample, image(sample))


@pytest.mark.parametrize("name", ["", "some.images"])
def test_several_are_gathered_at_once(path: Path, name: str) -> None:
    known = states()
    fd = adopted(path, head(), known)
    if not name:
        path.unlink()  # as one in memory: its rows are used in place
    cache = filled(Store(fd, SHAPE, known))
    ids = np.array([9, 0, 4])
    assert cache.find(ids).all()
    out = np.zeros((3, *SHAPE), np.uint8)
    assert cache.gather(ids, out)
    assert (out == np.stack([image(9), image(0), image(4)])).all()
    assert reads(cache, 4, image(4))


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
    assert reads(cache, 3, image(33))
    assert cache.find(np.array([3])).all()


def test_what_others_rely_on_is_not_written_over(path: Path) -> None:
    older = opened(path)
    older.keep(3, image(3), state(3))
    newer = opened(path, states(mtime=2000))
    assert not newer.find(ALL).any()
    newer.keep(3, image(33), state(3, mtime=2000))
    assert not newer.find(ALL).any()
    assert older.find(np.array([3])).all()
    assert reads(older, 3, image(3))


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
        os.ftruncate(file.fileno(), large.nbytes)
        store.write_head(file.fileno(), large)
        assert os.fstat(file.fileno()).st_size == large.nbytes > 60 * 10**9
        assert os.fstat(file.fileno()).st_blocks * 512 < 10**5


def test_the_pages_of_the_marks_are_taken_at_once(path: Path) -> None:
    many = Head(10**5, 3, 0, {})
    nobody = np.stack([np.full(10**5, -1), np.full(10**5, -1), np.arange(10**5)], axis=1)
    with path.open("w+b") as file:
        os.ftruncate(file.fileno(), many.nbytes)
        store.adopt(file.fileno(), many, nobody)
        assert os.fstat(file.fileno()).st_blocks * 512 >= many.rows_at


@pytest.mark.parametrize("damage", [b"", b"x" * 5000])
def test_a_file_that_is_no_cache_is_known_by_its_head(path: Path, damage: bytes) -> None:
    path.write_bytes(damage)
    with path.open("rb") as file:
        assert store.read_head(file.fileno()) is None


def test_a_cache_of_another_shape_is_not_used(path: Path) -> None:
    fd = adopted(path, head(), states())
    cache = Store(fd, (4, 7, 3), states())
    assert (cache.trouble, cache.lost) == (store.LOST, True)
    assert not cache.find(ALL).any()
    cache.keep(3, image(3)[:4], state(3))


@pytest.mark.parametrize("size", [0, 100, head().rows_at, head().nbytes - 1])
def test_rows_of_a_file_that_was_truncated_are_not_served_whoever_writes_to_it(
    path: Path, size: int
) -> None:
    cache, other = filled(opened(path)), opened(path)
    os.truncate(path, size)
    store.forget(other._fd, SAMPLES - 1)  # longer again, as by one who was about to write
    os.pwrite(other._fd, image(1).tobytes(), head().nbytes - 1 - head().row_bytes)
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
    cache.keep(3, image(3), state(3))
    assert cache.lost
    assert path.stat().st_size == 0


def test_what_is_not_granted_any_more_gives_its_room_back(path: Path) -> None:
    cache = Store(adopted(path, vast(), states()), (64, 64, 3), states())
    for sample in ALL.tolist():
        cache.keep(sample, np.full((64, 64, 3), sample, np.uint8), state(sample))
    del cache
    taken = path.stat().st_blocks
    less = Store(adopted(path, vast(granted=4), states()), (64, 64, 3), states())
    assert sorted(ROWS[less.find(ALL)].tolist()) == [0, 1, 2, 3]
    assert path.stat().st_blocks < 0.6 * taken


def vast(granted: int = SAMPLES) -> Head:
    """Of rows that take whole pages."""
    return Head(SAMPLES, 64 * 64 * 3, granted, {})
