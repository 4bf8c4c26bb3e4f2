"""The source of images in files, listed by the opener or by the client."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from time import sleep, time_ns
from typing import NamedTuple

from loaderd import memory, storage
from loaderd.errors import BadImage
from loaderd.ipc.manifest import Manifest
from loaderd.ipc.text import printable, readable
from loaderd.scratch import Scratch
from loaderd.sources.fetches import Fetches
from loaderd.sources.file_identity import settled_state

Path = bytes | str

_RETRY_SECONDS = 0.5
"""Interval of retries while storage cannot be reached."""


class FileLimit(NamedTuple):
    """The most bytes that an image file may have.

    Attributes:
        nbytes: the limit; larger files, such as a sparse one of terabytes, are not read.
        reason: why, and what to do: follows "N bytes are more than".
    """

    nbytes: int
    reason: str


NO_LIMIT = FileLimit(2**63, "a file can have")


def while_reachable(path: Path, read: Callable[[], memoryview]) -> memoryview:
    """What ``read`` gives, called again while the storage of ``path`` is gone.

    Raises:
        BadImage: what it raises; storage is gone if the cause says so.
    """
    storage.ask(path)
    try:
        while True:
            try:
                return read()
            except BadImage as error:
                if not storage.is_gone(error.__cause__):
                    raise
            sleep(_RETRY_SECONDS)  # the supervisor ends a worker that waits too long
    finally:
        storage.answered()


class FileReader:
    """Reads files into reused memory."""

    def __init__(self, limit: FileLimit = NO_LIMIT) -> None:
        self._limit = limit
        self._scratch = Scratch()
        self.status: os.stat_result | None = None
        """The status of the last file read; None if it changed meanwhile."""

    def read(self, path: Path) -> memoryview:
        """The bytes of a file, valid until the next ``read``; retries while storage is gone.

        Raises:
            BadImage: the file is missing, unreadable or not a regular file.
            NoRoom: there is no memory for it.
        """
        return while_reachable(path, lambda: self._read(path))

    def _read(self, path: Path) -> memoryview:
        try:
            # Opening a FIFO without O_NONBLOCK would block until it has a writer.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                return self._read_all(descriptor)
            finally:
                os.close(descriptor)
        except MemoryError as error:
            raise memory.no_room(readable(path)) from error
        except (OSError, ValueError) as error:
            raise BadImage(f"{readable(path)}: {printable(_reason(error))}") from error

    def _read_all(self, descriptor: int) -> memoryview:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("not a regular file")
        if status.st_size > self._limit.nbytes:
            raise ValueError(f"{status.st_size} bytes are more than {self._limit.reason}")
        data = self._scratch.take(status.st_size)
        done = 0
        while done < len(data) and (count := os.readv(descriptor, [data[done:]])):
            done += count
        unchanged = os.fstat(descriptor).st_ctime_ns == status.st_ctime_ns
        self.status = status if unchanged else None
        return data[:done]


class FileSource:
    """The files of a manifest; see :class:`~loaderd.sources.source.Source`.

    Args:
        manifest: their paths and labels.
        limit: of each.

    Attributes:
        labels: int32 (n,).
    """

    fetches: Fetches | None = None

    def __init__(self, manifest: Manifest, limit: FileLimit) -> None:
        self._manifest = manifest
        self.labels = manifest.labels
        self._reader = FileReader(limit)
        self._before = 0

    def __len__(self) -> int:
        return len(self._manifest)

    def read(self, sample: int) -> memoryview:
        """The bytes of a sample's file; see :meth:`FileReader.read`."""
        self._before = time_ns()
        return self._reader.read(self._manifest.path(sample))

    def identity(self, sample: int) -> int:
        """The state of the last file read; 0 if it may have changed undetected."""
        return settled_state(self._reader.status, self._before)

    def name(self, sample: int) -> str:
        """The file's path."""
        return os.fsdecode(self._manifest.path(sample))


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, ValueError):
        return str(error)
    if error.errno == errno.ENXIO:
        return "not a regular file"  # a socket, or a device without a driver
    return error.strerror or str(error)
