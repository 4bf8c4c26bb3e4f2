"""Which row of a cache belongs to which file: what an opener decides, when it is its turn.

A row belongs to one state of one file for as long as anybody has the cache open. So streams
of any choice of the same files find the same rows, a file that has changed gets a row of its
own, and a stream that knows the file as it was keeps what it has. Openers take turns, and only
they write what is decided here; workers write rows and marks.

An opener that has the cache alone may also take rows back: of files that have changed, and,
where there is no room for all, those that no stream has wanted for the longest time.
"""

from __future__ import annotations

import bisect
import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from loaderd.cache import layout
from loaderd.cache.layout import KEYS, MARKS, STATES, USED, Head
from loaderd.sources.file_identity import UNREADABLE, FileStates, Numbers

NO_ROW = 0
"""The number of no row: there the first columns begin."""

_MIX = np.int64(-7046029254386353131)
Bools = NDArray[np.bool_]
Places = NDArray[np.intp]


class Granted(NamedTuple):
    """What a stream gets of a cache.

    Attributes:
        rows: int64 (n, 3), by sample: key and state of its file, and the number of its row or
            ``NO_ROW``. Samples of one file have one row.
        lacking: samples whose files could be kept, if there were room.
    """

    rows: Numbers
    lacking: int


def lock_alone(fd: int) -> bool:
    """Takes the lock if nobody else has the file in use."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def taking_turns(fd: int) -> Iterator[None]:
    """Waits for the openers before; the descriptor of what they all lock is closed in the end."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


class Index:
    """The rows of a cache, and the files that a stream wants to have there.

    Args:
        fd: descriptor of the cache, which stays the caller's.
        head: its header.
        files: the stream's.
    """

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
        """By readable sample: the place of its file's row among all rows, or -1."""
        self._missing = _distinct(self._ids[self._place < 0])
        """Of the samples without a row: the first of each file, and which file each is of."""
        if self._alone:
            self._free(self._stale())

    def claim(self, before: float) -> int:
        """Bytes that the cache takes once all files of the stream have a row that is filled.

        Args:
            before: rows that no stream has wanted since then are taken back for it.
        """
        spare = int((self._columns[USED][self._unwanted()] < before).sum())
        more = max(0, len(self._missing[0]) - spare)
        grown = self._head.grown(more) if more > self._vacant.sum() else self._head
        return grown.overhead + (self._assigned + more) * self._head.row_bytes

    def grant(self, room: int) -> Granted:
        """Gives rows to the files, as far as the room goes, and marks the cache as in use.

        Args:
            room: bytes that the cache may take.

        Raises:
            OSError: the file cannot be written, or there is no room for any row.
        """
        self._shorten(room)
        self._make_vacant(room, len(self._missing[0]))
        self._assign(self._affordable(room))
        self._columns[USED][self._place[self._place >= 0]] = int(time.time())
        for column in (KEYS, STATES, USED):
            layout.write_column(self._fd, self._head, column, self._columns[column])
        self._head = Head(self._head.row_bytes, self._head.about, self._head.sizes, self._assigned)
        layout.write_head(self._fd, self._head)
        fcntl.flock(self._fd, fcntl.LOCK_SH)
        return self._granted()

    # -- what there is ----------------------------------------------------------------

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

    def _unwanted(self) -> Places:
        """Rows that may be taken back, those that were not wanted for the longest time first."""
        if not self._alone:
            return np.zeros(0, np.intp)
        others = self._unmatched()
        return others[np.argsort(self._columns[USED][others], kind="stable")]

    def _affordable(self, room: int) -> int:
        """How many rows more may be given to files."""
        fit = self._fit(room)
        beyond = fit - len(self._rows)
        if beyond > 0:  # the columns of the extent that they need take room as well
            fit -= beyond - bisect.bisect(range(1, beyond + 1), room, key=self._claim_beyond)
        return max(0, fit - self._assigned)

    def _fit(self, room: int) -> int:
        """How many rows may belong to files, if there are as many."""
        return max(0, (room - self._head.overhead) // self._head.row_bytes)

    def _claim_beyond(self, rows: int) -> int:
        """Bytes that the cache takes with all of its rows, and some more."""
        return self._head.grown(rows).overhead + (len(self._rows) + rows) * self._head.row_bytes

    # -- what changes -----------------------------------------------------------------

    def _free(self, places: Places) -> None:
        """Takes rows back; nobody else may have the cache open."""
        if not len(places):
            return
        for column in (MARKS, STATES, KEYS, USED):
            self._columns[column][places] = 0
            layout.write_column(self._fd, self._head, column, self._columns[column])

    def _shorten(self, room: int) -> None:
        """Gives room back, if there are more rows than may be."""
        fit = self._fit(room)
        if not self._alone or self._assigned <= fit:
            return
        self._free(np.arange(fit, len(self._rows)))
        self._head = layout.shorten(self._fd, self._head, fit)
        self._rows = layout.row_numbers(self._head)
        self._columns = [column[: len(self._rows)] for column in self._columns]
        self._place[self._place >= fit] = -1
        self._missing = _distinct(self._ids[self._place < 0])

    def _make_vacant(self, room: int, missing: int) -> None:
        """Takes back rows that nobody wants, and makes new ones, for so many files."""
        short = missing - self._affordable(room)
        if short > 0:
            self._free(self._unwanted()[:short])
        short = min(missing, self._affordable(room)) - int(self._vacant.sum())
        if short > 0:
            self._grow(short)

    def _grow(self, rows: int) -> None:
        try:
            self._head = layout.add_extent(self._fd, self._head, rows)
        except OSError as error:
            if not layout.is_full(error) or not self._head.sizes:
                raise
            return  # what is there already can be used
        layout.write_head(self._fd, self._head)
        more = layout.row_numbers(self._head)
        added = np.zeros(len(more) - len(self._rows), np.int64)
        self._rows = more
        self._columns = [np.concatenate([column, added]) for column in self._columns]

    def _assign(self, most: int) -> None:
        """Gives vacant rows to the files that have none, in the order of the stream's list."""
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
        out[self._readable, 2] = np.append(self._rows, NO_ROW)[self._place]  # the last is at -1
        return Granted(out, int((self._place < 0).sum()))


def _ids(keys: Numbers, states: Numbers) -> Numbers:
    """One number for a file in a state.

    Should two have the same one, they write one row in turn, and a row proves whose it is.
    """
    mixed: Numbers = keys + states * _MIX
    return mixed


def _search(ids: Numbers, among: Numbers) -> Places:
    """The place of each of some numbers among others, or -1."""
    out = np.full(len(ids), -1, np.intp)
    if not len(among):
        return out
    order, asked = np.argsort(among), np.argsort(ids)  # both, as a million at random take longer
    ordered, ids = among[order], ids[asked]
    at = np.minimum(np.searchsorted(ordered, ids), len(among) - 1)
    there = ordered[at] == ids
    out[asked[there]] = order[at[there]]
    return out


def _distinct(ids: Numbers) -> tuple[Places, Places]:
    """Where each of some numbers is found first, in order; and for all, which of those it is."""
    every = np.arange(len(ids))
    ordered = np.sort(ids)
    if (ordered[1:] != ordered[:-1]).all():  # as in nearly all lists, and found out soon
        return every, every
    _, first, which = np.unique(ids, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = every[: len(order)]
    return first[order], rank[which]
