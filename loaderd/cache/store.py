"""A worker's access to a cache: reads images and adds those that it decodes.

Theory of operation. A worker that has decoded a sample writes the row and then the row's mark,
with ``pwrite``, so that a full disk is an error and no SIGBUS. The mark is a CRC-32 of the
file's key, its state, and the pixels. There are no locks between workers, so a reader verifies
each row before it uses it:

- a row belongs to one state of one file for as long as any process has the cache open: all hold
  a shared ``flock`` on it, and only an opener with exclusive access frees rows;
- before its first use of a row a worker checks its mark. So a row that is half written (two
  workers at once, memory that comes out of order, a crash, a loss of power), or another file's,
  is decoded again and never served.

A file on disk can be truncated by others. Access to a mapping would then raise SIGBUS, so its rows
are read with ``preadv``, and the guard is checked afterwards; the rows of a file without a name
are used in place.
"""

from __future__ import annotations

import bisect
import contextlib
import math
import mmap
import os
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

_MARK_BYTES = 8

LOST = "its file was truncated, or is damaged"

Bools = NDArray[np.bool_]
Pixels = NDArray[Any]
Row = NDArray[np.uint8]


def mark_of(row: Any, key: int, state: int) -> int:
    """The mark of a row of a file in a state; never 0, which stands for no image."""
    return zlib.crc32(row, (key ^ state) & 0xFFFFFFFF) | 1 << 32


def read_row(fd: int, head: Head, row: int) -> bytes:
    """A copy of one row."""
    return os.pread(fd, head.row_bytes, head.row_at(row))


def forget(fd: int, head: Head, row: int) -> None:
    """Removes the mark of a row that is damaged."""
    os.pwrite(fd, bytes(_MARK_BYTES), _mark_at(head, row))


def _mark_at(head: Head, row: int) -> int:
    extents = head.extents
    last = bisect.bisect(extents, row, key=lambda extent: extent.first)
    return extents[last - 1].number_at(MARKS, row)


def path_of(fd: int) -> str:
    """The path of an open cache, for display; accesses no disk."""
    return os.readlink(f"/proc/self/fd/{fd}")


class _InPlace:
    """Mapped rows of a file without a name, which no other process can truncate."""

    def __init__(self, fd: int, head: Head) -> None:
        memory = mmap.mmap(fd, head.nbytes, mmap.MAP_SHARED, mmap.PROT_READ)
        rows = (head.nbytes - HEADER) // head.row_bytes
        size = rows * head.row_bytes
        self._rows = np.frombuffer(memory, np.uint8, size, HEADER).reshape(rows, -1)

    def row(self, row: int) -> Row | None:
        """One row."""
        found: Row = self._rows[row]
        return found

    def all(self) -> NDArray[np.uint8] | None:
        """All rows."""
        return self._rows

    def gather(self, rows: NDArray[Any], out: Row) -> bool:
        """Copies rows to those of ``out``."""
        # mode="raise" would copy everything once more.
        np.take(self._rows, rows, axis=0, out=out, mode="clip")
        return True


class _Read:
    """Rows of a file that may be truncated at any time, and lie on a disk that may fail."""

    def __init__(self, fd: int, head: Head) -> None:
        self._fd = fd
        self._head = head
        self._last = np.empty(head.row_bytes, np.uint8)

    def row(self, row: int) -> Row | None:
        """One row, valid until the next call; None if it is gone."""
        there = self._fill(self._last, row) and layout.is_whole(self._fd, self._head)
        return self._last if there else None

    def all(self) -> NDArray[np.uint8] | None:
        """None: the rows are read one by one."""
        return None

    def gather(self, rows: NDArray[Any], out: Row) -> bool:
        """Copies rows to those of ``out``; returns whether all could be read."""
        filled = all(map(self._fill, out, rows.tolist()))
        return filled and layout.is_whole(self._fd, self._head)

    def _fill(self, out: Row, row: int) -> bool:
        try:
            return os.preadv(self._fd, [out.data], self._head.row_at(row)) == len(out)
        except OSError:  # the disk has failed
            return False


def _rows(fd: int, head: Head) -> _InPlace | _Read:
    if os.fstat(fd).st_nlink == 0:
        with contextlib.suppress(OSError):  # no address space is left
            return _InPlace(fd, head)
    return _Read(fd, head)


class Store:
    """A stream's cache in a worker. Its faults fail no sample: a missing row is None.

    Args:
        fd: descriptor of the file; the store closes it.
        shape: (height, width, channels) of the image in every row.
        extra: bytes of every row behind its image.
        rows: key, state and row of each sample's file; see ``index.Granted``.

    Attributes:
        path: of the file, for display.
        trouble: why the cache is no longer written; empty while it is.
        lost: whether it is no longer read either.
        has_extra: whether anything lies behind the images.
    """

    def __init__(self, fd: int, shape: tuple[int, int, int], rows: Numbers, extra: int = 0) -> None:
        weakref.finalize(self, storage.close, [fd])  # closing the last copy releases the lock
        self._fd = fd
        self.path = path_of(fd)
        self._shape = shape
        self._pixels = math.prod(shape)
        self.has_extra = extra > 0
        self._files, self._row = rows, rows[:, 2]
        self._verified = np.zeros(len(rows), np.bool_)
        self.trouble, self.lost = "", False
        head = layout.read_head(fd)
        if head is None or head.row_bytes != self._pixels + extra:
            self._set_lost()
            return
        self._head = head
        self._rows = _rows(fd, head)

    def find(self, ids: NDArray[Any]) -> Bools:
        """Which of the samples are cached; a few microseconds once all are verified."""
        found: Bools = self._verified[ids]
        if not self.lost:
            for index in np.flatnonzero(~found).tolist():
                found[index] = self._verify(int(ids[index]))
        return found

    def has(self, sample: int) -> bool:
        """Whether a sample is cached by now; a few microseconds where it is not."""
        return not self.lost and self._verify(sample)

    def row(self, sample: int) -> Pixels | None:
        """A sample that was found, read-only; None if it, or the whole cache, is gone meanwhile.

        Valid until the next call.
        """
        row = self._whole_row(sample)
        return None if row is None else row[: self._pixels].reshape(self._shape)

    def extra(self, sample: int) -> Row | None:
        """What lies behind the image of a sample that was found; see ``row``."""
        row = self._whole_row(sample)
        return None if row is None else row[self._pixels :]

    def _whole_row(self, sample: int) -> Row | None:
        if self.lost:
            return None
        row = self._rows.row(int(self._row[sample]))
        if row is None:
            self._set_lost()
        return row

    def mapped(self, ids: NDArray[Any]) -> tuple[Pixels, NDArray[Any]] | None:
        """Samples that ``find`` has found, where they lie.

        Returns:
            All rows of the cache, as images, and the rows of the samples; None if the rows are not
            mapped, or hold more than images.
        """
        if self.lost or self.has_extra or (rows := self._rows.all()) is None:
            return None
        return rows.reshape(-1, *self._shape), self._row[ids]

    def gather(self, ids: NDArray[Any], out: Pixels) -> bool:
        """Copies samples that ``find`` has found to the rows of ``out``, all uint8.

        Returns:
            Whether all could be read; if not, some rows of ``out`` may be written.
        """
        there = self._rows.gather(self._row[ids], out.reshape(len(ids), -1))
        if not there:
            self._set_lost()
        return there

    def keep(self, sample: int, image: Pixels, state: int, extra: bytes = b"") -> None:
        """Writes a decoded sample, if it has a row and its file has not changed.

        Args:
            sample: its number.
            image: its pixels; dtypes other than uint8 are not kept.
            state: of the file that was read; ``UNREADABLE`` matches none.
            extra: what lies behind the image.
        """
        key, known, row = self._files[sample].tolist()
        if row == NO_ROW or state != known or image.dtype != np.uint8:
            return
        if not self.trouble and not layout.is_whole(self._fd, self._head):
            self._set_lost()
        if self.trouble:
            return
        image = np.ascontiguousarray(image)
        if extra:
            image = np.concatenate([image.reshape(-1), np.frombuffer(extra, np.uint8)])
        try:  # the mark last: it states that the row is complete
            self._write(image, self._head.row_at(row))
            mark = mark_of(image, key, state).to_bytes(_MARK_BYTES, "little")
            self._write(mark, _mark_at(self._head, row))
        except OSError as error:
            self.trouble = os.strerror(error.errno or 0)

    def _set_lost(self) -> None:
        self.trouble, self.lost = LOST, True
        self._verified[:] = False

    def _mark(self, row: int) -> int:
        """The mark of a row; 0 where it cannot be read."""
        try:
            data = os.pread(self._fd, _MARK_BYTES, _mark_at(self._head, row))
        except OSError:
            return 0
        return int.from_bytes(data, "little")

    def _write(self, data: Any, at: int) -> None:
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            done += os.pwrite(self._fd, view[done:], at + done)

    def _verify(self, sample: int) -> bool:
        key, state, row = self._files[sample].tolist()
        mark = self._mark(row) if row != NO_ROW else 0
        if not mark:
            return False
        pixels = self._rows.row(row)
        if pixels is None:
            self._set_lost()
            return False
        self._verified[sample] = mark_of(pixels, key, state) == mark
        return bool(self._verified[sample])
