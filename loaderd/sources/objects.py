"""The source of images that are objects of a store each, listed by the opener."""

from __future__ import annotations

import os

from loaderd import memory
from loaderd.errors import BadImage, ProtocolError
from loaderd.ipc.manifest import Manifest
from loaderd.ipc.text import printable
from loaderd.sources.fetches import Fetches, RangeRequest, Remote
from loaderd.sources.file_identity import UNREADABLE
from loaderd.sources.files import FileLimit
from loaderd.sources.object_store import MissingObject
from loaderd.sources.ranged import Version
from loaderd.spec import url as urls


class ObjectSource:
    """The objects of a manifest; see :class:`~loaderd.sources.source.Source`.

    One that was replaced is read as it is now, as a file would be.

    Args:
        manifest: their URLs and labels.
        limit: of each.
        remote: how their store is asked.

    Attributes:
        labels: int32 (n,).
        fetches: what is on its way.
    """

    def __init__(self, manifest: Manifest, limit: FileLimit, remote: Remote) -> None:
        assert manifest.objects is not None, "it is for objects of a store"
        if not urls.is_url(manifest.root):
            raise ProtocolError("the manifest has objects without a store")
        self._manifest = manifest
        self.labels = manifest.labels
        self._limit = limit
        self._state = UNREADABLE
        self._objects = objects = manifest.objects

        def request_of(sample: int) -> RangeRequest:
            url = os.fsdecode(manifest.path(sample))
            size, state = objects[sample].tolist()
            return RangeRequest(url, 0, size, Version(size, 0, state), is_whole=True)

        self.fetches = Fetches(request_of, remote)

    def __len__(self) -> int:
        return len(self._manifest)

    def read(self, sample: int) -> memoryview:
        """The bytes of an object, valid until the next ``read``.

        Raises:
            BadImage: there is no such object any more, or it is too large.
            NoRoom: there is no memory for it.
            StorageRefused: the store refuses.
            StorageTimeout: the store cannot be reached.
        """
        name, size = printable(self.name(sample)), int(self._objects[sample, 0])
        if size > self._limit.nbytes:
            raise BadImage(f"{name}: {size} bytes are more than {self._limit.reason}")
        try:
            data, self._state = self.fetches.take(sample)
        except MemoryError as error:
            raise memory.no_room(name) from error
        except MissingObject as error:
            raise BadImage(f"{name}: {error}") from error
        return data

    def identity(self, sample: int) -> int:
        """The state of the last object read; 0 if it may change undetected."""
        return self._state

    def name(self, sample: int) -> str:
        """The object's URL."""
        return os.fsdecode(self._manifest.path(sample))
