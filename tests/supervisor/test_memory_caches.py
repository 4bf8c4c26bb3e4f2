"""Caches in memory share the room: none that is in use gives way, and none for no reason."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from loaderd.cache import memory
from loaderd.cache.layout import Head
from loaderd.cache.store import Store
from loaderd.supervisor.memory_caches import MemoryCaches
from tests.cache.conftest import closed_at_once  # noqa: F401
from tests.support import caches
from tests.support.daemons import eventually

ROW = 4096
WHOLE = Head(ROW, {}, (8,), 8).claim
"""Bytes of a cache of eight images."""


class Streams:
    """What supervisor, opener and worker do for streams with a cache in memory."""

    def __init__(self, limit: int) -> None:
        self.caches = MemoryCaches(limit)

    def begin(self, *keys: str, count: int = 8) -> tuple[str, int, int]:
        """What the supervisor gives to the opener."""
        return self.caches.take(keys, Head(ROW, {}, (count,), count).claim)

    def finish(self, begun: tuple[str, int, int], names: Iterable[int] = range(8)) -> Store:
        """The stream's cache, filled as far as it goes."""
        key, fd, room = begun
        wanted = caches.files([*names])
        turn = self.caches.turn
        mine, granted = memory.open_cache(fd, turn, caches.head(ROW), wanted, room)
        count = len(granted.rows)
        self.caches.opened(key, Head(ROW, {}, (count,), count).claim)
        store = Store(mine, (1, 1, ROW), granted.rows)
        for sample, name in enumerate(names):
            store.keep(sample, np.full((1, 1, ROW), name + 1, np.uint8), 1)
        return store

    def opened(self, *keys: str, names: Iterable[int] = range(8)) -> Store:
        return self.finish(self.begin(*keys, count=len([*names])), names)

    def there(self, *keys: str, names: Iterable[int] = range(8)) -> int:
        """How many of the files are there for the next stream."""
        begun = self.begin(*keys, count=len([*names]))
        mine, granted = memory.open_cache(
            begun[1], self.caches.turn, caches.head(ROW), caches.files([*names]), begun[2]
        )
        self.caches.opened(begun[0], Head(ROW, {}, (8,), 8).claim)
        return count(Store(mine, (1, 1, ROW), granted.rows))

    @property
    def names(self) -> list[str]:
        return [*self.caches._caches]

    def close(self) -> None:
        for cache in self.caches._caches.values():
            os.close(cache.fd)
        os.close(self.caches.turn)


def count(store: Store) -> int:
    return int(store.find(np.arange(len(store._row))).sum())


@pytest.fixture
def streams() -> Iterator[Streams]:
    """With room for two and a half caches."""
    with contextlib.closing(Streams(2 * WHOLE + 5 * ROW)) as made:
        yield made


def test_what_was_kept_is_there_for_the_next_stream(streams: Streams) -> None:
    assert count(streams.opened("a")) == 8
    assert streams.there("a") == 8
    assert streams.caches.nbytes <= WHOLE


def test_parts_of_the_same_files_take_the_room_of_one(streams: Streams) -> None:
    streams.opened("a")
    streams.opened("b")
    for part in (range(4), range(4, 8), range(8)):
        assert streams.there("a", names=part) == len(part)
        assert streams.there("sub", "a", names=part) == len(part)
    assert sorted(streams.names) == ["a", "b"]


def test_the_least_recently_opened_gives_way_once_it_is_known_that_it_must(
    streams: Streams,
) -> None:
    streams.opened("a")
    streams.opened("b")
    begun = streams.begin("c")
    assert streams.names == ["a", "b", "c"]
    third = streams.finish(begun)
    assert streams.names == ["b", "c"]
    assert count(third) == 8


def test_one_that_is_in_use_keeps_its_room(streams: Streams) -> None:
    first, second = streams.opened("a"), streams.opened("b")
    assert count(streams.opened("c")) == 2
    assert count(first) == count(second) == 8
    del first
    assert count(streams.opened("c")) == 8
    assert streams.names == ["b", "c"]


def test_one_that_is_about_to_be_used_counts_with_what_it_may_take(streams: Streams) -> None:
    first, second = streams.begin("a"), streams.begin("b")
    third = streams.begin("c")
    assert third[2] == 5 * ROW
    opened = [streams.finish(begun) for begun in (first, second, third)]
    assert [count(store) for store in opened] == [8, 8, 2]
    assert streams.caches.nbytes <= streams.caches.limit


def test_two_that_open_the_same_one_at_once_get_rows_of_one(streams: Streams) -> None:
    first, second = streams.begin("a", count=6), streams.begin("a", count=6)
    one, other = streams.finish(first, range(6)), streams.finish(second, range(2, 8))
    assert (count(one), count(other)) == (6, 6)
    assert streams.there("a") == 8


def test_openers_take_turns(streams: Streams) -> None:
    lock = os.open(f"/proc/self/fd/{streams.caches.turn}", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with ThreadPoolExecutor(1) as threads:
        job = threads.submit(streams.opened, "a")
        eventually(lambda: caches.is_waited_for(lock))
        assert not job.done()
        os.close(lock)
        assert count(job.result()) == 8


def test_a_stream_that_does_not_open_leaves_the_room_as_it_was(streams: Streams) -> None:
    key, _, _ = streams.begin("a")
    streams.caches.opened(key, WHOLE)
    assert streams.begin("b")[2] == streams.caches.limit


def test_an_opener_that_is_killed_leaves_a_cache_that_can_be_used(
    streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, fd, room = streams.begin("a")

    def killed(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", killed)
        with pytest.raises(KeyboardInterrupt):
            memory.open_cache(
                fd, streams.caches.turn, caches.head(ROW), caches.files(range(8)), room
            )
    streams.caches.opened(key, WHOLE)
    assert count(streams.opened("a")) == 8


def test_rings_take_the_room_of_caches_that_nobody_uses(streams: Streams) -> None:
    used = streams.opened("a")
    streams.opened("b")
    streams.caches.give_way(2**62)
    assert streams.names == ["a"]
    assert count(used) == 8
