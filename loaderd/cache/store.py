"""Decoded images of one dataset at one size, in a file that all workers read in place.

::

    header | marks: int64 (n, 3)            | rows: uint8 (n, height, width, channels)
    4 KiB  | file size, mtime in ns, CRC-32 | one image each, as it was decoded

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

Holes of the file cost nothing, so it has room for all samples even where only some fit.
"""

from __future__ import annotations

import errno
import fcntl
import json
import mmap
import os
import struct
import weakref
import zlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loaderd.errors import CacheError

MAGIC = b"loaderdC"
VERSION = 1
HEADER = 4096

_HEAD = struct.Struct("<8sIIQQQ")
_MARK = struct.Struct("<qqq")

Bools = NDArray[np.bool_]
Pixels = NDArray[Any]
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
        return self.rows_at + self.samples * self.row_bytes

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
    """Writes the header, and gives the file its length."""
    about = json.dumps(head.about).encode("ascii")
    fields = (MAGIC, VERSION, len(about), head.samples, head.row_bytes, head.granted)
    os.ftruncate(fd, head.nbytes)
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
    return head if os.fstat(fd).st_size == head.nbytes else None


def adopt(fd: int, head: Head, states: States) -> None:
    """Marks an open file as in use; if nobody else uses it, forgets files that have changed.

    The marks' pages are taken now: in memory, even to read a hole takes a page, and where
    there is none left that is a SIGBUS.

    Args:
        fd: its descriptor; the shared lock lasts as long as any copy of it.
        head: what it shall hold; written, as ``granted`` may be new.
        states: of the source files now.

    Raises:
        OSError: the file cannot be written; see ``is_full``.
    """
    write_head(fd, head)
    os.posix_fallocate(fd, 0, head.rows_at)
    if lock_alone(fd):
        _forget_changed(fd, head, states)
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


def _forget_changed(fd: int, head: Head, states: States) -> None:
    marks = read_marks(fd, head)
    by_row = np.empty_like(marks[:, :2])
    by_row[states[:, 2]] = states[:, :2]
    stale = (marks[:, 2] != 0) & (marks[:, :2] != by_row).any(axis=1)
    if stale.any():
        marks[stale] = 0
        os.pwrite(fd, marks.tobytes(), HEADER)


def read_marks(fd: int, head: Head) -> States:
    """A copy of the marks, (n, 3)."""
    data = bytearray(head.samples * _MARK.size)
    os.preadv(fd, [data], HEADER)
    return np.frombuffer(data, np.int64).reshape(-1, 3)


def rows_of(memory: mmap.mmap, head: Head) -> NDArray[np.uint8]:
    """The rows of a mapped file, (n, bytes)."""
    size = head.samples * head.row_bytes
    return np.frombuffer(memory, np.uint8, size, head.rows_at).reshape(head.samples, -1)


def read_row(fd: int, head: Head, row: int) -> bytes:
    """A copy of one row."""
    return os.pread(fd, head.row_bytes, head.rows_at + row * head.row_bytes)


def forget(fd: int, row: int) -> None:
    """Removes the mark of a row that is damaged."""
    os.pwrite(fd, bytes(_MARK.size), HEADER + row * _MARK.size)


def checksum(row: Any) -> int:
    """CRC-32 of a row, and never 0, which stands for no row."""
    return zlib.crc32(row) | 1 << 32


class Store:
    """A stream's cache as a worker has it. Never fails a sample: what is not there is None.

    Args:
        fd: descriptor of the file, which is now ours.
        shape: (height, width, channels) of every row.
        states: of the files when the stream was opened, and their rows.

    Attributes:
        trouble: why nothing is written any more; empty while all is well.

    Raises:
        CacheError: the file does not fit.
    """

    def __init__(self, fd: int, shape: tuple[int, int, int], states: States) -> None:
        weakref.finalize(self, os.close, fd)  # with the last copy goes the lock
        self._fd = fd
        head = read_head(fd)
        if head is None or (head.samples, head.row_bytes) != (len(states), int(np.prod(shape))):
            raise CacheError("the cache's file does not fit the stream: it is damaged")
        memory = mmap.mmap(fd, head.nbytes, mmap.MAP_SHARED, mmap.PROT_READ)
        self._head = head
        self._shape = shape
        self._marks = np.frombuffer(memory, np.int64, 3 * head.samples, HEADER).reshape(-1, 3)
        self._bytes = rows_of(memory, head)
        self._rows = self._bytes.reshape(-1, *shape)
        self._states, self._row = states[:, :2], states[:, 2]
        self._proved = np.zeros(head.samples, np.bool_)
        self.trouble = ""

    def find(self, ids: NDArray[Any]) -> Bools:
        """Which of the samples are there; costs a few microseconds once all are proved."""
        found: Bools = self._proved[ids]
        if not found.all():
            for index in np.flatnonzero(~found & self._marked(ids)).tolist():
                found[index] = self._prove(int(ids[index]))
        return found

    def row(self, sample: int) -> Pixels:
        """A sample that ``find`` has found; read-only, in place."""
        pixels: Pixels = self._rows[self._row[sample]]
        return pixels

    def gather(self, ids: NDArray[Any], out: Pixels) -> None:
        """Copies samples that ``find`` has found to the rows of ``out``, all uint8."""
        # mode="raise" would go through a copy of the whole.
        rows = self._row[ids]
        np.take(self._bytes, rows, axis=0, out=out.reshape(len(ids), -1), mode="clip")

    def keep(self, sample: int, image: Pixels, state: tuple[int, int]) -> None:
        """Writes a decoded sample, if it fits and its file is what it was.

        Args:
            sample: its number.
            image: its pixels; other dtypes than uint8 are not kept.
            state: size and mtime (ns) of the file that was read.
        """
        row = int(self._row[sample])
        if row >= self._head.granted or self.trouble or image.dtype != np.uint8:
            return
        if state != tuple(self._states[sample].tolist()) or not self._vacant(row, state):
            return
        image = np.ascontiguousarray(image)
        try:  # the mark after the row, so that what it stands for is there
            self._write(image, self._head.rows_at + row * self._head.row_bytes)
            self._write(_MARK.pack(*state, checksum(image)), HEADER + row * _MARK.size)
        except OSError as error:
            self.trouble = os.strerror(error.errno or 0)

    def _vacant(self, row: int, state: tuple[int, int]) -> bool:
        """Whether nobody can rely on the row: others may know the file as it was before."""
        size, mtime, check = self._marks[row].tolist()
        return not check or (size, mtime) == state

    def _write(self, data: Any, at: int) -> None:
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            done += os.pwrite(self._fd, view[done:], at + done)

    def _marked(self, ids: NDArray[Any]) -> Bools:
        marks = self._marks[self._row[ids]]
        same: Bools = (marks[:, :2] == self._states[ids]).all(axis=1) & (marks[:, 2] != 0)
        return same

    def _prove(self, sample: int) -> bool:
        row = self._row[sample]
        proof = checksum(self._bytes[row]) == self._marks[row, 2]
        self._proved[sample] = proof
        return bool(proof)
