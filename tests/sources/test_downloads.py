"""What was read from object stores is kept within its limit, and nobody waits for it."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from loaderd.sources import downloads, object_store
from loaderd.sources.downloads import Downloads
from loaderd.sources.fetches import Fetches, RangeRequest, Remote
from loaderd.sources.ranged import Version
from loaderd.sources.retries import Retries
from loaderd.spec.source import Download
from tests.support.daemons import DEADLINE, eventually

LIMIT = 256_000
DATA = bytes(996)  # a thousand with the checksum


@contextmanager
def counting(folder: Path) -> Iterator[None]:
    """Somebody else counts what is in the folder."""
    with open(folder / ".total", "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def nbytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.bytes"))


def keep(kept: Downloads, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        kept.keep(downloads.name_of("s3://b/a", "1", number, number + 1), DATA)


def of(folder: Path) -> Downloads:
    return Downloads(Download(folder=str(folder), limit=LIMIT))


def test_the_bytes_of_a_sample_are_there_before_they_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, may_write, kept = Version(4, 0, 7), threading.Event(), of(tmp_path)
    monkeypatch.setattr(object_store, "read_whole", lambda _: (b"data", version))
    write = kept.keep

    def slowly(name: str, data: memoryview) -> None:
        assert may_write.wait(DEADLINE)
        write(name, data)

    monkeypatch.setattr(kept, "keep", slowly)
    request = RangeRequest("s3://b/a", 0, 4, version, is_whole=True)
    fetches = Fetches(lambda _: request, Remote(Retries(DEADLINE), kept, lambda _: None))
    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(fetches.take, 0)
        try:
            data, state = taken.result(DEADLINE / 2)
        finally:
            may_write.set()
    assert (bytes(data), state) == (b"data", 7)
    eventually(lambda: kept.get(request.name, 4) == b"data")


def test_nobody_waits_for_the_one_that_counts(tmp_path: Path) -> None:
    kept, other = of(tmp_path), of(tmp_path)
    keep(kept, 2)
    with counting(tmp_path), ThreadPoolExecutor(1) as pool:
        pool.submit(keep, other, 5, 2).result(DEADLINE / 2)
    assert nbytes_of(tmp_path) == 7_000
    keep(other, 1, 7)
    assert int.from_bytes((tmp_path / ".total").read_bytes(), "big") == 8_000


def test_a_folder_is_listed_only_where_it_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed, files = [], downloads._files

    def noted(folder: str) -> Iterator[downloads._Kept]:
        listed.append(folder)
        return files(folder)

    monkeypatch.setattr(downloads, "_files", noted)
    keep(of(tmp_path), 100)
    keep(of(tmp_path), 100, 100)
    assert len(listed) == 1  # there was no total
    last = of(tmp_path)
    keep(last, 300, 200)
    assert len(listed) < 20
    assert LIMIT / 2 < nbytes_of(tmp_path) <= LIMIT
    newest = downloads.name_of("s3://b/a", "1", 499, 500)
    assert last.get(newest, len(DATA)) == DATA


def test_many_at_once_stay_within_the_limit(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        for number in range(8):
            pool.submit(keep, of(tmp_path), 100, 100 * number)
    assert LIMIT / 2 < nbytes_of(tmp_path) <= LIMIT
