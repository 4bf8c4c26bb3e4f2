"""Raw bytes that were read from object stores, kept as files in a folder.

A file holds the bytes of one sample, with their checksum behind them. Its name is a digest of URL,
version and range, so that bytes of another version are never taken for these. Files are written
under another name and renamed: whoever is killed leaves no half one that counts. Many processes
read and write at once. Each adds what it has written to the total of the folder, which lies in a
file there, and whoever finds it near the limit removes the oldest files, one process at a time:
only then, and where there is no total yet, the folder is listed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import sys
import tempfile
import threading
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from loaderd.errors import CacheError
from loaderd.spec.source import Download

if TYPE_CHECKING:
    from typing_extensions import Buffer

EXTENSION = ".bytes"
_TEMPORARY = ".part"
_TOTAL = ".total"
"""Holds how many bytes all files have, and is locked by the one that counts."""

_TOTAL_BYTES = 8
_CHECKSUM = 4
_STEP = 256
"""A process counts what it has written when it is a part of the limit, one in so many."""

_SLACK = 32
"""It waits for another one that counts where it has written one part of the limit in so many."""

_FULL = 15 / 16
"""Of the limit, beyond which old files are removed: what is not counted yet has the rest."""

_LEFT = 7 / 8
"""Of the limit, when old files were removed."""


class _Kept(NamedTuple):
    """A file of the folder."""

    written: float
    nbytes: int
    path: str


class Downloads:
    """The files of one folder, which several threads use.

    Args:
        where: the folder, and how many bytes it may hold.
    """

    def __init__(self, where: Download) -> None:
        self._folder = where.folder
        self._limit = where.limit
        self._lock = threading.Lock()
        self._uncounted = 0
        self._most = where.limit or sys.maxsize
        self._step = 0  # the first are counted at once: that tells the limit
        self.trouble = ""
        """Why nothing is written any more; empty while it is."""

    def get(self, name: str, size: int) -> bytes | None:
        """The bytes that were kept under a name; None if there are none, or they are damaged."""
        path = self._path(name)
        try:
            with open(path, "rb") as file:
                data = file.read()
        except OSError:
            return None
        content, checksum = data[:-_CHECKSUM], data[-_CHECKSUM:]
        if len(content) == size and zlib.crc32(content).to_bytes(_CHECKSUM, "big") == checksum:
            return content
        with contextlib.suppress(OSError):
            os.unlink(path)
        return None

    def keep(self, name: str, data: Buffer) -> None:
        """Writes bytes under a name, and removes others where the folder is full."""
        view = memoryview(data)
        nbytes = view.nbytes + _CHECKSUM
        try:
            if not self.trouble and nbytes <= self._most:
                _write(self._path(name), view)
                self._count(nbytes)
        except OSError as error:
            self.trouble = f"{self._folder}: {error.strerror}"

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, name[:2], name + EXTENSION)

    def _count(self, nbytes: int) -> None:
        """Notes what was written, and counts it once it is much."""
        with self._lock:
            self._uncounted += nbytes
            if self._uncounted < self._step:
                return
            much, self._uncounted = self._uncounted, 0
        if not self._add(much):
            with self._lock:
                self._uncounted += much
                is_too_much = self._uncounted > self._most // _SLACK
            if is_too_much:
                self._count(0)  # and waits

    def _add(self, nbytes: int) -> bool:
        """Adds to the total, and makes room; does nothing while another one does: False."""
        may_wait = nbytes > self._most // _SLACK
        file = os.open(os.path.join(self._folder, _TOTAL), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if may_wait else fcntl.LOCK_NB))
            known = os.pread(file, _TOTAL_BYTES, 0)
            if len(known) == _TOTAL_BYTES:
                total = int.from_bytes(known, "big") + nbytes
            else:
                total = sum(one.nbytes for one in _files(self._folder))
            limit = self._limit or _half_of_free(self._folder, total)
            if total > _FULL * limit:
                total = _remove_oldest(self._folder, int(_LEFT * limit))
            os.pwrite(file, total.to_bytes(_TOTAL_BYTES, "big"), 0)
            self._most, self._step = limit, max(1, limit // _STEP)
            return True
        except BlockingIOError:
            return False
        finally:
            os.close(file)


def name_of(url: str, version: str, start: int, stop: int) -> str:
    """The name of some bytes of a version of an object."""
    text = f"{url}\0{version}\0{start}\0{stop}"
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def check(where: Download) -> None:
    """Makes sure that the folder can be written.

    Raises:
        CacheError: it cannot.
    """
    try:
        os.makedirs(where.folder, 0o700, exist_ok=True)
        with tempfile.TemporaryFile(dir=where.folder):
            pass
    except OSError as error:
        raise CacheError(
            f"cannot keep downloads in {where.folder}: {error.strerror}; choose another `download`"
        ) from error


def _half_of_free(folder: str, there: int) -> int:
    state = os.statvfs(folder)
    return (state.f_bavail * state.f_frsize + there) // 2


def _remove_oldest(folder: str, most: int) -> int:
    """Removes the oldest files until no more bytes than ``most`` are left; returns how many are."""
    kept = sorted(_files(folder))
    total = sum(one.nbytes for one in kept)
    for one in kept:
        if total <= most:
            break
        with contextlib.suppress(FileNotFoundError):
            os.unlink(one.path)
        total -= one.nbytes
    return total


def _files(folder: str) -> Iterator[_Kept]:
    for group in os.scandir(folder):
        if group.is_dir(follow_symlinks=False):
            for entry in os.scandir(group.path):
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    yield _Kept(status.st_mtime, status.st_size, entry.path)


def _write(path: str, data: memoryview) -> None:
    folder = os.path.dirname(path)
    os.makedirs(folder, 0o700, exist_ok=True)
    fd, part = tempfile.mkstemp(_TEMPORARY, dir=folder)
    try:
        with open(fd, "wb") as file:
            file.write(data)
            file.write(zlib.crc32(data).to_bytes(_CHECKSUM, "big"))
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise
