"""Decoded images of one dataset at one size, in a file that all workers share.

::

    header | marks: int64 (n, 3)            | rows: uint8 (n, height, width, channels) | guard
    4 KiB  | file size, mtime in ns, CRC-32 | one image each, as it was decoded        | 1 byte

Theory of operation. A mark says of which state of the source file its row is. A worker
that has decoded a sample writes the row and then the mark, with ``pwrite``, so that a full
disk is an error and no SIGBUS. Nobody waits for anybody and there is no lock between
workers, so a reader trusts nothing but what it has proved:

- a row counts if its mark is that of the file as it was when the stream was opened;
- the first time that a worker uses a row it holds it against the mark's CRC-32. So a row
  that is half written (two workers at once, memory that comes out of order, a crash, a
  loss of power) is decoded again and never served;
- a row that counts is never written again while anybody has the file open: all who do
  hold a shared ``flock`` on it, and only an opener that gets it alone removes marks of
  files that have changed.

A file on disk has a name, and whoever knows it may truncate the file. To touch a mapping there
would be a SIGBUS, so its rows are read with ``preadv``; those of a file without a name are used
in place. Nobody writes the guard, and only who makes the file gives it its length: whatever
workers write to one that was truncated, it never has that again, and one ``fstat`` after the
reading says whether what was read are rows. (Somebody who copies another file of the very same
length over it, while it is in use, is not found out.)

Holes of the file cost nothing, so it has room for all samples even where only some fit.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import mmap
import os
import struct
import weakref
import zlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loaderd import storage

MAGIC = b"loaderdC"
VERSION = 2
HEADER = 4096

_HEAD = struct.Struct("<8sIIQQQ")
_MARK = struct.Struct("<qqq")
_GUARD = 1

LOST = "its file was truncated, or is damaged"

Bools = NDArray[np.bool_]
Pixels = NDArray[Any]
Row = NDArray[np.uint8]
States = NDArray[np.int64]
"""(n, 3), by sample: size and modification time (ns) of its file, -1 where that cannot be read,
and the row that it has. Rows do not follow the samples, whose numbers may be a matter of a seed."""


class Head(NamedTuple):
    """What stands at the beginning of the file.

    Attributes:
        samples: rows that the file has room for.
        row_bytes: bytes of a row.
        granted: rows that may be filled: the first so many.
        about: what the images are, for people.
    """

    samples: int
    row_bytes: int
    granted: int
    about: dict[str, Any]

    @property
    def nbytes(self) -> int:
        """The length of the file; most of it may be holes."""
        return self.rows_at + self.samples * self.row_bytes + _GUARD

    @property
    def claim(self) -> int:
        """Bytes that the file takes once all rows that are granted are there."""
        return self.rows_at + self.granted * self.row_bytes

    def within(self, nbytes: int) -> Head:
        """As many rows granted as fit in so many bytes."""
        rows = (nbytes - self.rows_at) // self.row_bytes
        return self._replace(granted=max(0, min(self.samples, rows)))

    @property
    def rows_at(self) -> int:
        """Where the rows begin, in whole pages; so much the file takes before any is there."""
        return -(-(HEADER + self.samples * _MARK.size) // HEADER) * HEADER


def write_head(fd: int, head: Head) -> None:
    """Writes the header; the file has its length already."""
    about = json.dumps(head.about).encode("ascii")
    fields = (MAGIC, VERSION, len(about), head.samples, head.row_bytes, head.granted)
    os.pwrite(fd, _HEAD.pack(*fields) + about[: HEADER - _HEAD.size], 0)


def read_head(fd: int) -> Head | None:
    """The header; None if this is no such file, or one of another version, or a damaged one."""
    data = os.pread(fd, HEADER, 0)
    if len(data) < HEADER:
        return None
    magic, version, length, samples, row_bytes, granted = _HEAD.unpack_from(data)
    if magic != MAGIC or version != VERSION:
        return None
    try:
        about = json.loads(data[_HEAD.size : _HEAD.size + length])
    except ValueError:
        return None
    head = Head(samples, row_bytes, granted, about)
    return head if is_whole(fd, head) else None


def is_whole(fd: int, head: Head) -> bool:
    """Whether the file was never truncated since it was made, as far as its length tells."""
    try:
        return os.fstat(fd).st_size == head.nbytes
    except OSError:  # of a disk that is gone
        return False


def adopt(fd: int, head: Head, states: States) -> None:
    """Marks an open file as in use; if nobody else uses it, forgets what may not be there.

    That is rows of files that have changed, and rows that are not granted any more. The marks'
    pages are taken now, so that a disk without room for them is known at once.

    Args:
        fd: its descriptor, of a file of ``head.nbytes``; the shared lock lasts as long as any
            copy of it.
        head: what it shall hold; written, as ``granted`` may be new.
        states: of the source files now.

    Raises:
        OSError: the file cannot be written; see ``is_full``.
    """
    os.posix_fallocate(fd, 0, head.rows_at)
    write_head(fd, head)
    if lock_alone(fd):
        _forget_stale(fd, head, states)
    fcntl.flock(fd, fcntl.LOCK_SH)


def is_full(error: OSError) -> bool:
    """Whether there is no room: no reason to fail, as images can be decoded each time."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM)


def lock_alone(fd: int) -> bool:
    """Takes the lock if nobody else has the file in use."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _forget_stale(fd: int, head: Head, states: States) -> None:
    marks = read_marks(fd, head)
    by_row = np.empty_like(marks[:, :2])
    by_row[states[:, 2]] = states[:, :2]
    there = marks[:, 2] != 0
    beyond = there & (np.arange(head.samples) >= head.granted)
    stale = there & (marks[:, :2] != by_row).any(axis=1) | beyond
    if stale.any():
        marks[stale] = 0
        os.pwrite(fd, marks.tobytes(), HEADER)
    if beyond.any():  # gives the room back: a hole again
        os.ftruncate(fd, head.claim)
        os.ftruncate(fd, head.nbytes)


def read_marks(fd: int, head: Head) -> States:
    """A copy of the marks, (n, 3)."""
    data = bytearray(head.samples * _MARK.size)
    os.preadv(fd, [data], HEADER)
    return np.frombuffer(data, np.int64).reshape(-1, 3)


def read_row(fd: int, head: Head, row: int) -> bytes:
    """A copy of one row."""
    return os.pread(fd, head.row_bytes, head.rows_at + row * head.row_bytes)


def forget(fd: int, row: int) -> None:
    """Removes the mark of a row that is damaged."""
    os.pwrite(fd, bytes(_MARK.size), HEADER + row * _MARK.size)


def checksum(row: Any) -> int:
    """CRC-32 of a row, and never 0, which stands for no row."""
    return zlib.crc32(row) | 1 << 32


def path_of(fd: int) -> str:
    """The path of an open cache, for people; asks no disk."""
    return os.readlink(f"/proc/self/fd/{fd}")


class _InPlace:
    """Rows of a file without a name, which nobody can truncate: mapped."""

    def __init__(self, fd: int, head: Head) -> None:
        memory = mmap.mmap(fd, head.nbytes, mmap.MAP_SHARED, mmap.PROT_READ)
        size = head.samples * head.row_bytes
        self._rows = np.frombuffer(memory, np.uint8, size, head.rows_at).reshape(head.samples, -1)

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
        there = self._fill(self._last, row) and is_whole(self._fd, self._head)
        return self._last if there else None

    def gather(self, rows: NDArray[Any], out: Row) -> bool:
        """Copies rows to those of ``out``; returns whether all were there."""
        filled = all(map(self._fill, out, rows.tolist()))
        return filled and is_whole(self._fd, self._head)

    def _fill(self, out: Row, row: int) -> bool:
        size = self._head.row_bytes
        try:
            return os.preadv(self._fd, [out.data], self._head.rows_at + row * size) == size
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
        states: of the files when the stream was opened, and their rows.

    Attributes:
        path: of the file, for people.
        trouble: why nothing is written any more; empty while all is well.
        lost: whether nothing is read any more either.
    """

    def __init__(self, fd: int, shape: tuple[int, int, int], states: States) -> None:
        weakref.finalize(self, storage.close, [fd])  # with the last copy goes the lock
        self._fd = fd
        self.path = path_of(fd)
        self._shape = shape
        self._states, self._row = states[:, :2], states[:, 2]
        self._proved = np.zeros(len(states), np.bool_)
        self.trouble, self.lost = "", False
        head = read_head(fd)
        if head is None or (head.samples, head.row_bytes) != (len(states), math.prod(shape)):
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

    def keep(self, sample: int, image: Pixels, state: tuple[int, int]) -> None:
        """Writes a decoded sample, if it fits and its file is what it was.

        Args:
            sample: its number.
            image: its pixels; other dtypes than uint8 are not kept.
            state: size and mtime (ns) of the file that was read.
        """
        row = int(self._row[sample])
        if self.trouble or row >= self._head.granted or image.dtype != np.uint8:
            return
        if state != tuple(self._states[sample].tolist()) or not self._vacant(row, state):
            return
        image = np.ascontiguousarray(image)
        try:  # the mark after the row, so that what it stands for is there
            self._write(image, self._head.rows_at + row * self._head.row_bytes)
            self._write(_MARK.pack(*state, checksum(image)), HEADER + row * _MARK.size)
        except OSError as error:
            self.trouble = os.strerror(error.errno or 0)

    def _lose(self) -> None:
        self.trouble, self.lost = LOST, True
        self._proved[:] = False

    def _vacant(self, row: int, state: tuple[int, int]) -> bool:
        """Whether nobody can rely on the row: others may know the file as it was before."""
        if not is_whole(self._fd, self._head):
            self._lose()
            return False
        size, mtime, check = self._mark(row)
        return not check or (size, mtime) == state

    def _mark(self, row: int) -> tuple[int, int, int]:
        """The mark of a row; that of none where it cannot be read."""
        try:
            data = os.pread(self._fd, _MARK.size, HEADER + row * _MARK.size)
        except OSError:
            data = b""
        size, mtime, check = _MARK.unpack(data.ljust(_MARK.size, b"\0"))
        return size, mtime, check

    def _write(self, data: Any, at: int) -> None:
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            done += os.pwrite(self._fd, view[done:], at + done)

    def _prove(self, sample: int) -> bool:
        row = int(self._row[sample])
        *state, check = self._mark(row)
        if not check or state != self._states[sample].tolist():
            return False
        pixels = self._rows.row(row)
        if pixels is None:
            self._lose()
            return False
        self._proved[sample] = checksum(pixels) == check
        return bool(self._proved[sample])
