"""Assigns the rows of a cache to files.

A row belongs to one state of one file for as long as any process has the cache open. So streams
of any selection of the same files share rows, a file that has changed gets a new row, and a
stream that listed the earlier state keeps its row. Openers take turns, and only they write the
columns KEYS, STATES and USED; workers write rows and marks.

An opener with exclusive access may also free rows: of files that have changed, and, where there
is no room for all, the least recently used.
"""

from __future__ import annotations

import bisect
import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from loaderd.cache import layout
from loaderd.cache.layout import KEYS, MARKS, STATES, USED, Head
from loaderd.sources.file_identity import UNREADABLE, FileStates, Numbers

NO_ROW = 0
"""Stands for no row: the first columns begin there."""

_MIX = np.int64(-7046029254386353131)
Bools = NDArray[np.bool_]
Places = NDArray[np.intp]


class Granted(NamedTuple):
    """The rows of a stream in a cache.

    Attributes:
        rows: int64 (n, 3), by sample: key and state of its file, and the number of its row or
            ``NO_ROW``. Samples of one file have one row.
        lacking: number of samples without a row for lack of room.
    """

    rows: Numbers
    lacking: int


def lock_alone(fd: int) -> bool:
    """Takes an exclusive lock if no other process uses the file; returns whether it did."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def taking_turns(fd: int) -> Iterator[None]:
    """Holds the openers' lock within the block; closes its descriptor afterwards."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


class Index:
    """The rows of a cache, whose descriptor the caller closes, matched with a stream's files."""

    def __init__(self, fd: int, head: Head, files: FileStates) -> None:
        self._fd = fd
        self._head = head
        self._files = files
        self._alone = lock_alone(fd)
        self._rows = layout.row_numbers(head)
        self._columns = [layout.read_column(fd, head, column) for column in layout.COLUMNS]
        self._readable = np.flatnonzero(files.states != UNREADABLE)
        self._ids = _ids(files.keys, files.states)[self._readable]
        self._place = _search(self._ids, _ids(self._columns[KEYS], self._columns[STATES]))
        """By readable sample: the index of its file's row among all rows, or -1."""
        self._missing = _distinct(self._ids[self._place < 0])
        """Of the samples without a row: the first of each file, and the file of each."""
        if self._alone:
            self._free(self._stale())

    def claim(self, before: float) -> int:
        """Bytes of the cache once all files of the stream have a filled row.

        Args:
            before: unused rows last used before this time (seconds since 1970) are reused.
        """
        spare = int((self._columns[USED][self._evictable()] < before).sum())
        more = max(0, len(self._missing[0]) - spare)
        grown = self._head.grown(more) if more > self._vacant.sum() else self._head
        return grown.overhead + (self._assigned + more) * self._head.row_bytes

    def grant(self, room: int) -> Granted:
        """Assigns rows to as many files as the room allows, and marks the cache as in use.

        Args:
            room: the cache's limit in bytes.

        Raises:
            OSError: the file cannot be written, or there is no room for any row.
        """
        self._shorten(room)
        self._make_vacant(room)
        self._assign(self._affordable(room))
        self._columns[USED][self._place[self._place >= 0]] = int(time.time())
        for column in (KEYS, STATES, USED):
            layout.write_column(self._fd, self._head, column, self._columns[column])
        self._head = replace(self._head, assigned=self._assigned)
        layout.write_head(self._fd, self._head)
        fcntl.flock(self._fd, fcntl.LOCK_SH)
        return self._granted()

    @property
    def _vacant(self) -> Bools:
        """Rows that belong to no file."""
        vacant: Bools = self._columns[STATES] == UNREADABLE
        return vacant

    @property
    def _assigned(self) -> int:
        return int((~self._vacant).sum())

    def _unmatched(self) -> Places:
        matched = np.zeros(len(self._rows), np.bool_)
        matched[self._place[self._place >= 0]] = True
        return np.flatnonzero(~matched & ~self._vacant)

    def _stale(self) -> Places:
        """Rows of earlier states of the stream's files."""
        others = self._unmatched()
        if not len(others):
            return others
        return others[_search(self._columns[KEYS][others], self._files.keys[self._readable]) >= 0]

    def _evictable(self) -> Places:
        """Rows that may be freed, the least recently used first."""
        if not self._alone:
            return np.zeros(0, np.intp)
        others = self._unmatched()
        return others[np.argsort(self._columns[USED][others], kind="stable")]

    def _affordable(self, room: int) -> int:
        """How many more rows may be assigned."""
        fit = self._capacity(room)
        beyond = fit - len(self._rows)
        if beyond > 0:  # the columns of their extent take room as well
            fit -= beyond - bisect.bisect(range(1, beyond + 1), room, key=self._claim_beyond)
        return max(0, fit - self._assigned)

    def _capacity(self, room: int) -> int:
        """How many rows the room holds, with the columns that exist."""
        return max(0, (room - self._head.overhead) // self._head.row_bytes)

    def _claim_beyond(self, rows: int) -> int:
        """Bytes of the cache with ``rows`` more rows, all filled."""
        return self._head.grown(rows).overhead + (len(self._rows) + rows) * self._head.row_bytes

    def _free(self, places: Places) -> None:
        """Frees rows; needs exclusive access."""
        if not len(places):
            return
        for column in (MARKS, STATES, KEYS, USED):
            self._columns[column][places] = 0
            layout.write_column(self._fd, self._head, column, self._columns[column])

    def _shorten(self, room: int) -> None:
        """Drops the last rows if more are assigned than the room holds."""
        fit = self._capacity(room)
        if not self._alone or self._assigned <= fit:
            return
        self._free(np.arange(fit, len(self._rows)))
        self._head = layout.shorten(self._fd, self._head, fit)
        self._rows = layout.row_numbers(self._head)
        self._columns = [column[: len(self._rows)] for column in self._columns]
        self._place[self._place >= fit] = -1
        self._missing = _distinct(self._ids[self._place < 0])

    def _make_vacant(self, room: int) -> None:
        """Frees unused rows, and adds new ones, for the files without a row."""
        missing = len(self._missing[0])
        short = missing - self._affordable(room)
        if short > 0:
            self._free(self._evictable()[:short])
        short = min(missing, self._affordable(room)) - int(self._vacant.sum())
        if short > 0:
            self._grow(short)

    def _grow(self, rows: int) -> None:
        try:
            self._head = layout.add_extent(self._fd, self._head, rows)
        except OSError as error:
            if not layout.is_full(error) or not self._head.sizes:
                raise
            return  # the existing rows can be used
        layout.write_head(self._fd, self._head)
        more = layout.row_numbers(self._head)
        added = np.zeros(len(more) - len(self._rows), np.int64)
        self._rows = more
        self._columns = [np.concatenate([column, added]) for column in self._columns]

    def _assign(self, most: int) -> None:
        """Assigns vacant rows to the files that have none, in the order of the stream's list."""
        first, file_of = self._missing
        lacking = np.flatnonzero(self._place < 0)
        places = np.flatnonzero(self._vacant)[: min(len(first), most)]
        samples = self._readable[lacking[first[: len(places)]]]
        self._columns[KEYS][places] = self._files.keys[samples]
        self._columns[STATES][places] = self._files.states[samples]
        by_file = np.full(len(first), -1, np.intp)
        by_file[: len(places)] = places
        self._place[lacking] = by_file[file_of]

    def _granted(self) -> Granted:
        out = np.zeros((len(self._files.keys), 3), np.int64)
        out[:, 0], out[:, 1] = self._files
        out[self._readable, 2] = np.append(self._rows, NO_ROW)[self._place]  # index -1 is NO_ROW
        return Granted(out, int((self._place < 0).sum()))


def _ids(keys: Numbers, states: Numbers) -> Numbers:
    """One number for each file in a state.

    Two that collide overwrite each other's row; the row's mark shows which of them it holds.
    """
    return keys + states * _MIX


def _search(ids: Numbers, among: Numbers) -> Places:
    """The index of each of some numbers among others, or -1."""
    out = np.full(len(ids), -1, np.intp)
    if not len(among):
        return out
    order, asked = np.argsort(among), np.argsort(ids)  # both sorted: random look-ups are slower
    ordered, ids = among[order], ids[asked]
    at = np.minimum(np.searchsorted(ordered, ids), len(among) - 1)
    there = ordered[at] == ids
    out[asked[there]] = order[at[there]]
    return out


def _distinct(ids: Numbers) -> tuple[Places, Places]:
    """The indices of each number's first occurrence, and, for each number, its index therein."""
    every = np.arange(len(ids))
    ordered = np.sort(ids)
    if (ordered[1:] != ordered[:-1]).all():  # true of nearly all lists, and fast to check
        return every, every
    _, first, which = np.unique(ids, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = every[: len(order)]
    return first[order], rank[which]
