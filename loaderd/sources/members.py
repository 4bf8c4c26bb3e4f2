"""The source of images in archives, listed by the opener."""

from __future__ import annotations

import os
import stat
from collections import OrderedDict
from time import time_ns

from loaderd import memory, storage
from loaderd.errors import BadArchive, BadImage, ProtocolError
from loaderd.ipc.manifest import Archive, Location, Manifest
from loaderd.ipc.owned import Owned
from loaderd.ipc.text import printable
from loaderd.scratch import Scratch
from loaderd.sources.content import content
from loaderd.sources.fetches import Fetches
from loaderd.sources.file_identity import member_state, settled_state
from loaderd.sources.files import FileLimit, while_reachable

MAX_OPEN = 8
"""Archives that a source holds open."""

_descriptors = Owned(os.close)


class _OpenArchive:
    """An archive whose descriptor is closed when this dies.

    Raises:
        BadArchive: it is not the archive that was indexed.
        OSError: it cannot be opened.
    """

    def __init__(self, known: Archive) -> None:
        self._known = known
        # Opening a FIFO without O_NONBLOCK would block until it has a writer.
        self.fd = os.open(known.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        _descriptors.watch(self, self.fd)
        self.checked_status()

    def checked_status(self) -> os.stat_result:
        """Its present status, of the archive that was indexed."""
        status = os.fstat(self.fd)
        is_same = (status.st_size, status.st_mtime_ns) == (self._known.size, self._known.mtime)
        if not (is_same and stat.S_ISREG(status.st_mode)):
            raise BadArchive("it was changed after it was indexed: make the dataset again")
        return status


class MemberSource:
    """The members of a manifest; see :class:`~loaderd.sources.source.Source`.

    Archives are opened when they are first read, and few of them are held open.

    Args:
        manifest: where they lie, and their labels.
        limit: of each.

    Attributes:
        labels: int32 (n,).
    """

    fetches: Fetches | None = None

    def __init__(self, manifest: Manifest, limit: FileLimit) -> None:
        assert manifest.members is not None, "it is for members of archives"
        self._manifest = manifest
        self._archives, self._locations = manifest.members
        self.labels = manifest.labels
        self._limit = limit
        self._scratch = Scratch()
        self._open: OrderedDict[int, _OpenArchive] = OrderedDict()
        self._last: tuple[os.stat_result | None, int, Location] = (None, 0, Location(0, 0, 0, 0))
        numbers = self._locations[:, 0]
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < len(self._archives):
            raise ProtocolError("the manifest has members of archives that it does not name")
        least = Location(*self._locations.min(axis=0, initial=0).tolist())
        if min(least._replace(crc=0)) < 0:
            raise ProtocolError("the manifest has members without a location")

    def __len__(self) -> int:
        return len(self._manifest)

    def read(self, sample: int) -> memoryview:
        """The content of a member, valid until the next ``read``; retries while storage is gone.

        Raises:
            BadArchive: its archive is missing, or was changed after it was indexed.
            BadImage: the member is damaged, or too large.
            NoRoom: there is no memory for it.
        """
        location = Location(*self._locations[sample].tolist())
        path = self._archives[location.archive].path
        return while_reachable(path, lambda: self._read(sample, location))

    def identity(self, sample: int) -> int:
        """The state of the last member read; 0 if it may have changed undetected."""
        status, before, location = self._last
        state = settled_state(status, before)
        return member_state(state, location) if state else 0

    def name(self, sample: int) -> str:
        """The archive's path, and the member's in it."""
        return os.fsdecode(self._manifest.path(sample))

    def _read(self, sample: int, location: Location) -> memoryview:
        try:
            return self._checked(sample, location)
        except MemoryError as error:
            raise memory.no_room(printable(self.name(sample))) from error
        except BadArchive as error:
            self._open.pop(location.archive, None)
            raise BadArchive(f"{printable(self.name(sample))}: {error}") from error
        except ValueError as error:
            raise BadImage(f"{printable(self.name(sample))}: {error}") from error
        except OSError as error:
            self._open.pop(location.archive, None)
            raise BadImage(f"{printable(self.name(sample))}: {error.strerror}") from error

    def _checked(self, sample: int, location: Location) -> memoryview:
        """The content; raises ValueError if it is damaged or too large."""
        nbytes = max(location.size, location.stored, location.unpacked)
        if nbytes > self._limit.nbytes:
            raise ValueError(f"{nbytes} bytes are more than {self._limit.reason}")
        return memoryview(content(self._stored(sample, location), location))

    def _stored(self, sample: int, location: Location) -> memoryview:
        """The bytes in the archive."""
        before = time_ns()
        archive = self._opened(location.archive)
        stored = self._read_all(archive.fd, location)
        self._last = archive.checked_status(), before, location
        return stored

    def _opened(self, number: int) -> _OpenArchive:
        found = self._open.get(number)
        if found is None:
            if len(self._open) >= MAX_OPEN:
                self._open.popitem(last=False)
            try:
                found = self._open[number] = _OpenArchive(self._archives[number])
            except FileNotFoundError as error:
                raise BadArchive("the archive is gone: make the dataset again") from error
            except OSError as error:
                if storage.is_gone(error):
                    raise
                raise BadArchive(f"the archive cannot be opened: {error.strerror}") from error
        self._open.move_to_end(number)
        return found

    def _read_all(self, fd: int, location: Location) -> memoryview:
        data = self._scratch.take(location.stored)
        done = 0
        while done < len(data) and (count := os.preadv(fd, [data[done:]], location.offset + done)):
            done += count
        return data[:done]
