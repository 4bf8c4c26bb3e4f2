"""Files of which any range can be read."""

from __future__ import annotations

import errno
import io
import os
import stat
from time import time_ns
from typing import TYPE_CHECKING, NamedTuple, Protocol

from loaderd.errors import BadArchive
from loaderd.ipc.owned import Owned
from loaderd.ipc.text import readable
from loaderd.sources import file_identity

if TYPE_CHECKING:
    from typing_extensions import Buffer

_descriptors = Owned(os.close)


class Version(NamedTuple):
    """What differs between two versions of a file.

    Attributes:
        size: in bytes.
        mtime: when it was modified, in ns since 1970.
        state: see :mod:`loaderd.sources.file_identity`.
        tag: the ETag of an object; empty for a local file, and for an object without one.
    """

    size: int
    mtime: int
    state: int
    tag: str = ""


class RangedFile(Protocol):
    """A file of which any range can be read, by several threads at once."""

    @property
    def nbytes(self) -> int:
        """Its size."""

    @property
    def version(self) -> Version:
        """That of when it was opened."""

    def is_settled(self) -> bool:
        """Whether any change since would have changed its version."""

    def present_version(self) -> Version:
        """That of now."""

    def pread(self, count: int, offset: int) -> bytes:
        """The bytes from ``offset`` on: ``count``, or fewer where the file ends.

        Raises:
            OSError: they cannot be read.
        """


class LocalFile:
    """A regular file, which is closed when this dies.

    Args:
        path: of the file.

    Attributes:
        nbytes: its size when it was opened.
        version: that of when it was opened.

    Raises:
        BadArchive: it cannot be opened, or is not a regular file; names it.
    """

    def __init__(self, path: str) -> None:
        self._before = time_ns()
        try:
            # Opening a FIFO without O_NONBLOCK would block until it has a writer.
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise BadArchive(f"{readable(path)}: {reason}") from error
        _descriptors.watch(self, self._fd)
        self._status = os.fstat(self._fd)
        self.version = _version_of(self._status)
        self.nbytes = self.version.size
        if not stat.S_ISREG(self._status.st_mode):
            raise BadArchive(f"{readable(path)}: not a regular file")

    def pread(self, count: int, offset: int) -> bytes:
        """The bytes from ``offset`` on."""
        return os.pread(self._fd, count, offset)

    def present_version(self) -> Version:
        """That of now."""
        return _version_of(os.fstat(self._fd))

    def is_settled(self) -> bool:
        """Whether any change since would have changed its version."""
        settled = file_identity.settled_state(self._status, self._before)
        return settled != file_identity.UNREADABLE


def _version_of(status: os.stat_result) -> Version:
    return Version(status.st_size, status.st_mtime_ns, file_identity.state_of(status))


def seekable(file: RangedFile) -> io.BufferedReader:
    """A file object that reads a ranged file from its beginning."""
    return io.BufferedReader(_Raw(file))


class _Raw(io.RawIOBase):
    def __init__(self, file: RangedFile) -> None:
        self._file = file
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.nbytes}[whence]
        if start + offset < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._at = start + offset
        return self._at

    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer).cast("B")
        found = self._file.pread(len(view), self._at)
        view[: len(found)] = found
        self._at += len(found)
        return len(found)
