"""Which row belongs to which file: one row for a file in a state, whoever wants it."""

from __future__ import annotations

import errno
import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loaderd.cache import layout
from loaderd.cache.index import NO_ROW
from loaderd.cache.layout import Head
from loaderd.sources.file_identity import FileStates
from tests.support.caches import AMPLE, Kept, files, head

ROW = 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some.images"


def header(path: Path) -> Head:
    with path.open("rb") as file:
        found = layout.read_head(file.fileno())
    assert found is not None
    return found


def room(rows: int, sizes: tuple[int, ...], row_bytes: int = ROW) -> int:
    """Bytes for so many rows of a cache with such extents."""
    return Head(row_bytes, {}, sizes, rows).claim


def small(path: Path, wanted: FileStates, room: int = AMPLE) -> Kept:
    """A cache of images that are soon made."""
    return Kept(path, wanted, room, 64)


def test_ten_choices_of_the_same_files_have_the_rows_of_one(path: Path) -> None:
    everything = Kept(path, files(range(100))).fill()
    for fold in range(5):
        for part in (
            [name for name in range(100) if name % 5 == fold],
            [name for name in reversed(range(100)) if name % 5 != fold],
        ):
            stream = Kept(path, files(part))
            assert all(stream.found())
            assert stream.rows == [everything.rows[name] for name in part]
    assert header(path).assigned == 100


def test_the_first_who_asks_is_asked_for_no_more_than_a_part(path: Path) -> None:
    for part in (range(10), range(5, 40), range(40)):
        assert Kept(path, files(part)).fill().granted.lacking == 0
    assert header(path).assigned == 40
    assert all(Kept(path, files(range(40))).found())


def test_a_file_that_is_listed_twice_has_one_row(path: Path) -> None:
    stream = Kept(path, files([3, 1, 3, 3, 2]))
    assert len(set(stream.rows)) == 3
    assert stream.rows[0] == stream.rows[2] == stream.rows[3]
    stream.store.keep(2, stream.image(2), 1)
    assert stream.found() == [True, False, True, True, False]


def test_rows_lie_in_the_order_of_the_list(path: Path) -> None:
    rows = Kept(path, files([9, 1, 8, 2, 7])).rows
    assert rows == sorted(rows)


def test_what_cannot_be_read_has_no_row(path: Path) -> None:
    wanted = files(range(4))
    wanted.states[2] = 0
    stream = Kept(path, wanted)
    assert [row == NO_ROW for row in stream.rows] == [False, False, True, False]
    assert stream.granted.lacking == 0
    assert stream.fill().found() == [True, True, False, True]


# -- files that change -----------------------------------------------------------------


def changed(which: int) -> FileStates:
    """Five files of which one is no longer what it was."""
    wanted = files(range(5))
    wanted.states[which] = 2
    return wanted


def test_a_file_that_has_changed_gives_its_row_back_where_nobody_else_has_the_cache(
    path: Path,
) -> None:
    Kept(path, files(range(5))).fill()
    later = Kept(path, changed(3))
    assert later.found() == [True, True, True, False, True]
    assert all(later.fill().found())
    assert header(path).assigned == 5


def test_a_file_that_has_changed_gets_a_row_of_its_own_where_another_stream_knows_it_as_it_was(
    path: Path,
) -> None:
    early = Kept(path, files(range(5))).fill()
    late = Kept(path, changed(3))
    assert late.found() == [True, True, True, False, True]
    assert all(late.fill().found())
    assert all(early.found())
    assert header(path).assigned == 6
    del early, late
    assert all(Kept(path, changed(3)).found())
    assert header(path).assigned == 5


def test_a_file_that_is_what_it_was_again_has_its_row_again_while_others_have_it(
    path: Path,
) -> None:
    early = Kept(path, files(range(5))).fill()
    Kept(path, changed(3)).fill()
    assert Kept(path, files(range(5))).rows == early.rows


# -- a cache that grows ----------------------------------------------------------------


def test_a_folder_that_grows_by_a_file_a_day_for_a_year_has_few_extents(path: Path) -> None:
    for day in range(1, 366):
        stream = small(path, files(range(day)))
        stream.store.keep(day - 1, stream.image(day - 1), 1)
        assert stream.store.find(np.array([0, day // 2, day - 1])).all()
    assert all(small(path, files(range(365))).found())
    assert header(path).assigned == 365
    assert len(header(path).sizes) < 10


def test_the_extents_of_a_hundred_million_files_fit_in_the_header() -> None:
    grown = head(ROW)
    while sum(grown.sizes) < 10**8:
        grown = grown.grown(1)
    assert len(grown.sizes) < layout._MAX_EXTENTS // 2


def test_a_cache_that_grows_moves_nothing_that_others_read(path: Path) -> None:
    early = Kept(path, files(range(5))).fill()
    for more in range(10, 300, 40):
        assert all(Kept(path, files(range(more))).fill().found())
        assert all(early.found())
        assert not early.store.lost


@pytest.mark.parametrize("size", [1, 3, 192, 5000])
def test_rows_of_any_size_lie_apart(path: Path, size: int) -> None:
    early = Kept(path, files(range(3)), row_bytes=size).fill()
    late = Kept(path, files(range(200)), row_bytes=size).fill()
    assert all(early.found())
    assert all(late.found())
    assert all(Kept(path, files(range(200)), row_bytes=size).found())


# -- where there is no room ------------------------------------------------------------


def test_as_many_as_fit_have_rows(path: Path) -> None:
    stream = Kept(path, files(range(10)), room(4, (4,))).fill()
    assert sum(stream.found()) == 4
    assert stream.granted.lacking == 6
    assert os.stat(path).st_blocks * 512 <= room(4, (4,))


def test_where_nothing_fits_nobody_has_a_row(path: Path) -> None:
    assert Kept(path, files(range(3)), 0).fill().granted.lacking == 3
    assert Kept(path, files(range(3)), 5000).granted.lacking == 3


def test_with_more_room_the_others_follow(path: Path) -> None:
    first = Kept(path, files(range(10)), room(4, (4,))).fill()
    there = np.flatnonzero(first.found()).tolist()
    more = Kept(path, files(range(10)))
    assert np.flatnonzero(more.found()).tolist() == there
    assert all(more.fill().found())


def test_with_less_room_a_cache_is_shortened_if_nobody_else_has_it(path: Path) -> None:
    early = Kept(path, files(range(10))).fill()
    taken = os.stat(path).st_blocks
    assert Kept(path, files(range(10)), room(4, (10,))).granted.lacking == 0
    del early
    late = Kept(path, files(range(10)), room(4, (10,)))
    assert (late.granted.lacking, sum(late.found())) == (6, 4)
    assert os.stat(path).st_blocks < 0.7 * taken
    assert sum(late.fill().found()) == 4
    assert all(Kept(path, files(range(10))).fill().found())


def test_a_shortened_cache_loses_the_extents_behind_and_can_grow_again(path: Path) -> None:
    for count in (5, 30, 100):
        Kept(path, files(range(count))).fill()
    less = Kept(path, files(range(100)), room(20, (5, 64)))
    assert 15 <= sum(less.found()) <= 100 - less.granted.lacking == 20
    del less
    assert Kept(path, files(range(100)), 0).granted.lacking == 100
    assert header(path).sizes == ()
    assert all(Kept(path, files(range(100))).fill().found())


def test_the_rows_that_were_not_wanted_for_the_longest_time_give_way(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(1_700_000_000, 60)
    monkeypatch.setattr(time, "time", lambda: next(clock))
    ample = room(8, (4, 64))
    for part in (range(4), range(4, 8), range(2)):
        Kept(path, files(part), ample).fill()
    assert all(Kept(path, files(range(8, 11)), ample).fill().found())
    assert header(path).assigned == 8
    there = Kept(path, files(range(8)), ample).found()
    assert there[:2] == [True, True]  # wanted last
    assert sum(there[2:4]) + sum(there[4:]) == 3
    assert there[2:4] == [False, False]  # wanted first


def test_rows_that_somebody_may_want_never_give_way(path: Path) -> None:
    tight = room(4, (4,))
    early = Kept(path, files(range(4)), tight).fill()
    late = Kept(path, files(range(4, 8)), tight)
    assert late.granted.lacking == 4
    assert not any(late.fill().found())
    assert all(early.found())


def test_a_folder_whose_files_come_and_go_stays_within_its_room(path: Path) -> None:
    tight = room(20, (10, 64))
    for day in range(30):
        week = Kept(path, files(range(day, day + 10)), tight)
        assert week.granted.lacking == 0
        assert all(week.fill().found())
        del week
    assert os.stat(path).st_blocks * 512 <= tight


# -- whatever happens to an opener -----------------------------------------------------


class Killed(BaseException):
    """An opener that goes no further."""


def killed_at(call: int, patch: pytest.MonkeyPatch) -> None:
    """Ends the opener before it writes for the so-manieth time."""
    calls = itertools.count()

    def ends(truth: Callable[..., Any]) -> Callable[..., Any]:
        def write(*args: Any) -> Any:
            if next(calls) == call:
                raise Killed
            return truth(*args)

        return write

    for name in ("pwrite", "ftruncate", "posix_fallocate"):
        patch.setattr(os, name, ends(getattr(os, name)))


def openings(path: Path) -> list[Callable[[], Kept]]:
    """One that grows, one that reuses the rows of files that have changed, one that shortens."""
    return [
        lambda: small(path, files(range(200))),
        lambda: small(path, files(range(20), version=2)),
        lambda: small(path, files(range(20)), room(7, (10, 64), 64)),
        lambda: small(path, files(range(30, 40)), room(12, (10, 64), 64)),
    ]


@pytest.mark.parametrize("which", range(4))
def test_wherever_an_opener_is_killed_every_row_that_is_served_is_right(
    which: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for call in itertools.count():
        path = tmp_path / f"{call}.images"
        small(path, files(range(10))).fill()
        small(path, files(range(20))).fill()
        with monkeypatch.context() as patch:
            killed_at(call, patch)
            try:
                openings(path)[which]()
            except Killed:
                pass
            else:
                break
        for wanted in (files(range(20)), files(range(20), version=2), files(range(200))):
            late = small(path, wanted)
            late.found()
            assert late.granted.lacking == 0
            assert all(late.fill().found())
            del late
    assert call > 2


def test_what_a_killed_opener_has_left_behind_the_end_is_no_part_of_the_next_extent(
    path: Path,
) -> None:
    small(path, files(range(3))).fill()
    fd = os.open(path, os.O_RDWR)
    layout.add_extent(fd, header(path), 64)  # and never says so
    os.close(fd)
    late = small(path, files(range(320)))  # whose marks would lie where a guard was
    with path.open("rb") as file:
        marks = layout.read_column(file.fileno(), header(path), layout.MARKS)
    assert (marks != 0).sum() == 3
    assert all(late.fill().found())


def test_a_disk_that_is_full_when_a_cache_shall_grow_leaves_what_is_there(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    Kept(path, files(range(10))).fill()
    monkeypatch.setattr(os, "posix_fallocate", full)
    late = Kept(path, files(range(5, 25)))
    assert late.granted.lacking == 15
    assert late.found() == [True] * 5 + [False] * 15
    with pytest.raises(OSError, match="No space left"):
        Kept(path.with_name("new.images"), files(range(3)))


def test_who_truncates_a_cache_before_it_grows_is_found_out(path: Path) -> None:
    early = Kept(path, files(range(10))).fill()
    before = header(path)
    os.truncate(path, before.extents[0].first * ROW)
    fd = os.open(path, os.O_RDWR)
    assert layout.read_head(fd) is None
    layout.write_head(fd, layout.add_extent(fd, before, 100))  # as if it had not looked
    os.close(fd)
    assert early.store.row(3) is None
    assert early.store.lost
    assert not any(Kept(path, files(range(50))).found())
