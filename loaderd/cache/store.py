"""A cache as a worker has it: which images are there, and what it adds.

Theory of operation. A worker that has decoded a sample writes the row and then the row's mark,
with ``pwrite``, so that a full disk is an error and no SIGBUS. The mark is a CRC-32 of the
file's key, its state, and the pixels. Nobody waits for anybody and there is no lock between
workers, so a reader trusts nothing but what it has proved:

- a row belongs to one state of one file for as long as anybody has the cache open: all who do
  hold a shared ``flock`` on it, and only an opener that gets it alone takes rows back;
- the first time that a worker uses a row it holds it against its mark. So a row that is half
  written (two workers at once, memory that comes out of order, a crash, a loss of power), or
  another file's, is decoded again and never served.

A file on disk has a name, and whoever knows it may truncate the file. To touch a mapping there
would be a SIGBUS, so its rows are read with ``preadv``, and a look at the guard afterwards says
whether what was read are rows; those of a file without a name are used in place.
"""

from __future__ import annotations

import bisect
import contextlib
import math
import mmap
import os
import struct
import weakref
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loaderd import storage
from loaderd.cache import layout
from loaderd.cache.index import NO_ROW
from loaderd.cache.layout import HEADER, MARKS, Head
from loaderd.sources.file_identity import Numbers

_MARK = struct.Struct("<q")

LOST = "its file was truncated, or is damaged"

Bools = NDArray[np.bool_]
Pixels = NDArray[Any]
Row = NDArray[np.uint8]


def mark_of(row: Any, key: int, state: int) -> int:
    """The mark of a row of a file in a state, and never 0, which stands for no image."""
    return zlib.crc32(row, (key ^ state) & 0xFFFFFFFF) | 1 << 32


def read_row(fd: int, head: Head, row: int) -> bytes:
    """A copy of one row."""
    return os.pread(fd, head.row_bytes, head.row_at(row))


def forget(fd: int, head: Head, row: int) -> None:
    """Removes the mark of a row that is damaged."""
    os.pwrite(fd, _MARK.pack(0), _mark_at(head, row))


def _mark_at(head: Head, row: int) -> int:
    extents = head.extents
    last = bisect.bisect(extents, row, key=lambda extent: extent.first)
    return extents[last - 1].number_at(MARKS, row)


def path_of(fd: int) -> str:
    """The path of an open cache, for people; asks no disk."""
    return os.readlink(f"/proc/self/fd/{fd}")


class _InPlace:
    """Rows of a file without a name, which nobody can truncate: mapped."""

    def __init__(self, fd: int, head: Head) -> None:
        memory = mmap.mmap(fd, head.nbytes, mmap.MAP_SHARED, mmap.PROT_READ)
        rows = (head.nbytes - HEADER) // head.row_bytes
        size = rows * head.row_bytes
        self._rows = np.frombuffer(memory, np.uint8, size, HEADER).reshape(rows, -1)

    def row(self, row: int) -> Row | None:
        """One row."""
        found: Row = self._rows[row]
        return found

    def gather(self, rows: NDArray[Any], out: Row) -> bool:
        """Copies rows to those of ``out``."""
        # mode="raise" would go through a copy of the whole.
        np.take(self._rows, rows, axis=0, out=out, mode="clip")
        return True


class _Read:
    """Rows of a file that may be truncated at any time, and lie on a disk that may fail."""

    def __init__(self, fd: int, head: Head) -> None:
        self._fd = fd
        self._head = head
        self._last = np.empty(head.row_bytes, np.uint8)

    def row(self, row: int) -> Row | None:
        """One row, valid until the next is asked for; None if it is gone."""
        there = self._fill(self._last, row) and layout.is_whole(self._fd, self._head)
        return self._last if there else None

    def gather(self, rows: NDArray[Any], out: Row) -> bool:
        """Copies rows to those of ``out``; returns whether all were there."""
        filled = all(map(self._fill, out, rows.tolist()))
        return filled and layout.is_whole(self._fd, self._head)

    def _fill(self, out: Row, row: int) -> bool:
        try:
            return os.preadv(self._fd, [out.data], self._head.row_at(row)) == len(out)
        except OSError:  # of the disk
            return False


def _rows(fd: int, head: Head) -> _InPlace | _Read:
    if os.fstat(fd).st_nlink == 0:
        with contextlib.suppress(OSError):  # no room in our address space
            return _InPlace(fd, head)
    return _Read(fd, head)


class Store:
    """A stream's cache as a worker has it. Never fails a sample: what is not there is None.

    Args:
        fd: descriptor of the file, which is now ours.
        shape: (height, width, channels) of every row.
        rows: key, state and row of each sample's file; see ``index.Granted``.

    Attributes:
        path: of the file, for people.
        trouble: why nothing is written any more; empty while all is well.
        lost: whether nothing is read any more either.
    """

    def __init__(self, fd: int, shape: tuple[int, int, int], rows: Numbers) -> None:
        weakref.finalize(self, storage.close, [fd])  # with the last copy goes the lock
        self._fd = fd
        self.path = path_of(fd)
        self._shape = shape
        self._files, self._row = rows, rows[:, 2]
        self._proved = np.zeros(len(rows), np.bool_)
        self.trouble, self.lost = "", False
        head = layout.read_head(fd)
        if head is None or head.row_bytes != math.prod(shape):
            self._lose()
            return
        self._head = head
        self._rows = _rows(fd, head)

    def find(self, ids: NDArray[Any]) -> Bools:
        """Which of the samples are there; costs a few microseconds once all are proved."""
        found: Bools = self._proved[ids]
        if not self.lost:
            for index in np.flatnonzero(~found).tolist():
                found[index] = self._prove(int(ids[index]))
        return found

    def row(self, sample: int) -> Pixels | None:
        """A sample that ``find`` has found, read-only; None if it is gone meanwhile.

        It is valid until the next is asked for.
        """
        pixels = self._rows.row(int(self._row[sample]))
        if pixels is None:
            self._lose()
            return None
        return pixels.reshape(self._shape)

    def gather(self, ids: NDArray[Any], out: Pixels) -> bool:
        """Copies samples that ``find`` has found to the rows of ``out``, all uint8.

        Returns:
            Whether they were there; if not, some rows of ``out`` may be written.
        """
        there = self._rows.gather(self._row[ids], out.reshape(len(ids), -1))
        if not there:
            self._lose()
        return there

    def keep(self, sample: int, image: Pixels, state: int) -> None:
        """Writes a decoded sample, if it has a row and its file is what it was.

        Args:
            sample: its number.
            image: its pixels; other dtypes than uint8 are not kept.
            state: of the file that was read; ``UNREADABLE`` is nobody's.
        """
        key, known, row = self._files[sample].tolist()
        if row == NO_ROW or state != known or image.dtype != np.uint8:
            return
        if self.trouble or not self._is_whole():
            return
        image = np.ascontiguousarray(image)
        try:  # the mark after the row, so that what it stands for is there
            self._write(image, self._head.row_at(row))
            self._write(_MARK.pack(mark_of(image, key, state)), _mark_at(self._head, row))
        except OSError as error:
            self.trouble = os.strerror(error.errno or 0)

    def _lose(self) -> None:
        self.trouble, self.lost = LOST, True
        self._proved[:] = False

    def _is_whole(self) -> bool:
        if not layout.is_whole(self._fd, self._head):
            self._lose()
        return not self.lost

    def _mark(self, row: int) -> int:
        """The mark of a row; that of none where it cannot be read."""
        try:
            data = os.pread(self._fd, _MARK.size, _mark_at(self._head, row))
        except OSError:
            data = b""
        mark: int = _MARK.unpack(data.ljust(_MARK.size, b"\0"))[0]
        return mark

    def _write(self, data: Any, at: int) -> None:
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            done += os.pwrite(self._fd, view[done:], at + done)

    def _prove(self, sample: int) -> bool:
        key, state, row = self._files[sample].tolist()
        mark = self._mark(row) if row != NO_ROW else 0
        if not mark:
            return False
        pixels = self._rows.row(row)
        if pixels is None:
            self._lose()
            return False
        self._proved[sample] = mark_of(pixels, key, state) == mark
        return bool(self._proved[sample])
