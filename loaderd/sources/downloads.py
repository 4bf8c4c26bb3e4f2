"""Raw bytes that were read from object stores, kept as files in a folder.

A file holds the bytes of one sample, with their checksum behind them. Its name is a digest of URL,
version and range, so that bytes of another version are never taken for these. Files are written
under another name and renamed: whoever is killed leaves no half one that counts. Many processes
read and write at once; the one that has written much removes the oldest files, one process at a
time.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
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
_LOCK = ".lock"
_CHECKSUM = 4
_STEP = 128
"""A process removes old files when it has written a part of the limit, one in so many."""

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
        self._unseen = 0
        self._step = 0
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
        """Writes bytes under a name, and makes room for them."""
        view = memoryview(data)
        try:
            if not self.trouble and self._has_room(view.nbytes + _CHECKSUM):
                _write(self._path(name), view)
        except OSError as error:
            self.trouble = f"{self._folder}: {error.strerror}"

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, name[:2], name + EXTENSION)

    def _has_room(self, nbytes: int) -> bool:
        """Whether bytes may be written, once old files are removed where it is time."""
        with self._lock:
            self._unseen += nbytes
            if self._unseen >= self._step:
                limit = self._sweep()
                self._step, self._unseen = max(1, limit // _STEP), nbytes
        return nbytes <= self._step * _STEP

    def _sweep(self) -> int:
        """Removes the oldest files beyond the limit; returns it."""
        os.makedirs(self._folder, 0o700, exist_ok=True)
        lock = os.open(os.path.join(self._folder, _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            kept = sorted(_files(self._folder))
            total = sum(one.nbytes for one in kept)
            limit = self._limit or _half_of_free(self._folder, total)
            for one in kept if total > _LEFT * limit else ():
                if total <= _LEFT * limit:
                    break
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(one.path)
                total -= one.nbytes
            return limit
        finally:
            os.close(lock)


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
