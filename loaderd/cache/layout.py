"""The layout of a cache's file, which can grow.

::

    header | extent | extent | ...        extent: columns | rows                   | guard
    4 KiB                                         int64   | uint8, one image each  | 8 bytes

An opener that has more files than there are rows adds an extent; existing data never moves.
The columns of an extent hold for each of its rows: the key of the image's file, the state of that
file, the row's mark (a checksum), and the time of its last use. A free row has zeros. All parts
are aligned to whole rows from the header, so that a row's number is its distance from there: the
rows of all extents are one array, in which some numbers are taken by columns and guards.

Only the opener that adds an extent writes its guard. Truncating the file removes the last guard,
which neither a worker that goes on writing nor an opener that adds another extent restores: a
reader checks the last guard of its header after each read. (Copying another cache of the same
size over one in use is not detected.)

An extent is at least a quarter of what exists, so a cache that grows row by row has few. Holes
of the file take no room.
"""

from __future__ import annotations

import errno
import json
import os
import struct
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from loaderd.sources.file_identity import Numbers

MAGIC = b"loaderdC"
VERSION = 3
HEADER = 4096

COLUMNS = KEYS, STATES, MARKS, USED = range(4)
_NUMBER = 8
_GUARD = b"loaderdG"
_HEAD = struct.Struct("<8sIIQQI4x")
_MAX_EXTENTS = 200
"""Never reached, as each extent is a quarter of what exists, or larger."""

_MIN_ROWS = 64
_PAGE = 4096


class Extent(NamedTuple):
    """Rows that were added together. Offsets in bytes.

    Attributes:
        at: offset of its columns.
        first: the number of its first row.
        rows: how many it has.
        guard: offset of its guard.
        end: offset of the byte behind it.
    """

    at: int
    first: int
    rows: int
    guard: int
    end: int

    def column_at(self, column: int) -> int:
        """The offset of a column."""
        return self.at + column * self.rows * _NUMBER

    def number_at(self, column: int, row: int) -> int:
        """The offset of a row's number in a column."""
        return self.column_at(column) + (row - self.first) * _NUMBER

    @property
    def columns_bytes(self) -> int:
        """Bytes of its columns."""
        return len(COLUMNS) * self.rows * _NUMBER


@dataclass(frozen=True)
class Head:
    """The header of the file.

    Attributes:
        row_bytes: bytes of a row.
        about: a description of the images, for display.
        sizes: rows of each extent.
        assigned: number of rows that belong to a file, filled or not.
    """

    row_bytes: int
    about: dict[str, Any]
    sizes: tuple[int, ...] = ()
    assigned: int = 0

    @cached_property
    def extents(self) -> tuple[Extent, ...]:
        """The extents, from first to last."""
        found: list[Extent] = []
        at, size = HEADER, self.row_bytes
        for rows in self.sizes:
            first = (at - HEADER) // size + -(-len(COLUMNS) * rows * _NUMBER // size)
            guard = HEADER + (first + rows) * size
            end = guard + -(-len(_GUARD) // size) * size
            found.append(Extent(at, first, rows, guard, end))
            at = end
        return tuple(found)

    @property
    def nbytes(self) -> int:
        """The length of the file, holes included."""
        return self.extents[-1].end if self.sizes else HEADER

    @property
    def overhead(self) -> int:
        """Bytes on disk without any row: pages of header, columns and guards."""
        columns = sum(-(-extent.columns_bytes // _PAGE) for extent in self.extents)
        return HEADER + (columns + len(self.extents)) * _PAGE

    @property
    def claim(self) -> int:
        """Bytes on disk once all assigned rows are filled."""
        return self.overhead + self.assigned * self.row_bytes

    def grown(self, rows: int) -> Head:
        """The header with one more extent, of at least ``rows`` rows."""
        more = max(rows, sum(self.sizes) // 4, _MIN_ROWS if self.sizes else 1)
        return replace(self, sizes=(*self.sizes, more))

    def row_at(self, row: int) -> int:
        """The offset of a row."""
        return HEADER + row * self.row_bytes


def write_head(fd: int, head: Head) -> None:
    """Writes the header; its extents must exist already."""
    about = json.dumps(head.about, ensure_ascii=False).encode("utf-8", "surrogatepass")
    fields = (MAGIC, VERSION, len(about), head.row_bytes, head.assigned, len(head.sizes))
    sizes = np.array(head.sizes, "<u8").tobytes().ljust(_MAX_EXTENTS * _NUMBER, b"\0")
    os.pwrite(fd, (_HEAD.pack(*fields) + sizes + about).ljust(HEADER, b"\0"), 0)


def read_head(fd: int) -> Head | None:
    """The header; None if this is no cache, damaged, or of another version."""
    data = os.pread(fd, HEADER, 0)
    if len(data) < HEADER:
        return None
    magic, version, length, row_bytes, assigned, extents = _HEAD.unpack_from(data)
    if magic != MAGIC or version != VERSION or not row_bytes or extents > _MAX_EXTENTS:
        return None
    sizes = np.frombuffer(data, "<u8", extents, _HEAD.size).tolist()
    start = _HEAD.size + _MAX_EXTENTS * _NUMBER
    try:
        about = json.loads(data[start : start + length].decode("utf-8", "surrogatepass"))
    except ValueError:
        return None
    head = Head(row_bytes, about, tuple(sizes), assigned)
    return head if is_whole(fd, head) else None


def is_whole(fd: int, head: Head) -> bool:
    """Whether the file was not truncated since its last extent was added."""
    if not head.sizes:
        return True
    try:
        return os.pread(fd, len(_GUARD), head.extents[-1].guard) == _GUARD
    except (OSError, OverflowError):  # the disk is gone; the header is damaged
        return False


def is_full(error: OSError) -> bool:
    """Whether an error means lack of room: then images are decoded each time instead."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM)


def add_extent(fd: int, head: Head, rows: int) -> Head:
    """Adds an extent of at least ``rows`` rows; returns the header, which is not yet written.

    Allocates the pages of the columns, so that a full disk is detected now.

    Raises:
        OSError: there is no room.
    """
    grown = head.grown(rows)
    extent = grown.extents[-1]
    os.ftruncate(fd, head.nbytes)  # removes what a killed opener left behind the end
    os.posix_fallocate(fd, extent.at, extent.columns_bytes)
    os.ftruncate(fd, extent.end)
    os.pwrite(fd, _GUARD, extent.guard)
    return grown


def shorten(fd: int, head: Head, rows: int) -> Head:
    """Truncates to the first ``rows`` rows; returns the header, which is not yet written.

    Needs exclusive access; the rows behind must be free.
    """
    before = accumulate(head.sizes, initial=0)
    sizes = tuple(size for size, first in zip(head.sizes, before, strict=False) if first < rows)
    shorter = replace(head, sizes=sizes)
    if sizes:
        last = shorter.extents[-1]
        kept = rows - sum(sizes[:-1])
        os.ftruncate(fd, head.row_at(last.first + min(kept, last.rows)))
        os.ftruncate(fd, last.end)
        os.pwrite(fd, _GUARD, last.guard)
    else:
        os.ftruncate(fd, HEADER)
    return shorter


def row_numbers(head: Head) -> Numbers:
    """The numbers of all rows, in order."""
    parts = [np.arange(extent.first, extent.first + extent.rows) for extent in head.extents]
    return np.concatenate([np.zeros(0, np.int64), *parts])


def read_column(fd: int, head: Head, column: int) -> Numbers:
    """A copy of a column, by row in order."""
    parts = [_read(fd, extent.column_at(column), extent.rows) for extent in head.extents]
    return np.concatenate([np.zeros(0, np.int64), *parts])


def _read(fd: int, at: int, count: int) -> Numbers:
    data = bytearray(count * _NUMBER)
    os.preadv(fd, [data], at)
    return np.frombuffer(data, np.int64)


def write_column(fd: int, head: Head, column: int, values: Numbers) -> None:
    """Writes the extents of a column that have changed."""
    done = 0
    for extent in head.extents:
        part = values[done : done + extent.rows]
        at = extent.column_at(column)
        if (part != _read(fd, at, extent.rows)).any():
            os.pwrite(fd, part.tobytes(), at)
        done += extent.rows
