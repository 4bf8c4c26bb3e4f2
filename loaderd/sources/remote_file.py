"""Objects as files of which any range can be read, for those who make indexes.

Headers of a tar lie before each member. To ask for each would take a round trip a member, so whole
blocks are read, and several ahead of one who reads on: an archive is read once, at the rate of the
network. Who jumps, as to the directory at the end of a zip, gets single blocks.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future
from typing import TYPE_CHECKING

from loaderd.errors import BadArchive
from loaderd.ipc.text import printable
from loaderd.sources import fetch_threads, object_store
from loaderd.sources.object_store import Changed, MissingObject
from loaderd.sources.ranged import LocalFile, RangedFile, Version
from loaderd.sources.retries import Retries
from loaderd.spec import url as urls

if TYPE_CHECKING:
    from typing_extensions import Buffer

_BLOCK = 2**20
_AHEAD = 6
_KEPT = 12
"""Blocks of one file in memory."""


def open_ranged(path: str, retries: Retries) -> RangedFile:
    """A file, or the object of a URL.

    Args:
        path: of it.
        retries: for an object.

    Raises:
        BadArchive: it does not exist, or cannot be opened; names it.
        StorageTimeout: the store cannot be reached.
        StorageRefused: the store refuses.
    """
    return RemoteFile(path, retries) if urls.is_url(path) else LocalFile(path)


class RemoteFile:
    """An object, read in blocks.

    Args:
        url: of it.
        retries: how long the store is asked again.

    Attributes:
        nbytes: its size when it was opened.
        version: that of when it was opened.

    Raises:
        BadArchive: there is none; names it.
        StorageTimeout: the store cannot be reached.
        StorageRefused: the store refuses.
    """

    def __init__(self, url: str, retries: Retries) -> None:
        self._url = url
        self._retries = retries
        self.version = self.present_version()
        self.nbytes = self.version.size
        self._blocks: OrderedDict[int, Future[Buffer]] = OrderedDict()
        self._last = -2
        self._lock = threading.Lock()

    def present_version(self) -> Version:
        """That of now."""
        name = printable(urls.shown(self._url))
        try:
            return self._retries.run(self._url, lambda: object_store.head(self._url))
        except MissingObject as error:
            raise BadArchive(f"{name}: {error}") from error
        except Changed as error:  # on the web: there is no first byte
            raise BadArchive(
                f"{name}: it is empty, or its server gives no ranges: put the archive there again"
            ) from error

    def is_settled(self) -> bool:
        """Whether any change since would have changed its version: an ETag tells."""
        return bool(self.version.tag)

    def pread(self, count: int, offset: int) -> bytes:
        """The bytes from ``offset`` on."""
        end = min(offset + count, self.nbytes)
        parts = []
        while offset < end:
            number = offset // _BLOCK
            start = offset - number * _BLOCK
            block = memoryview(self._block(number))
            parts.append(block[start : start + end - offset])
            offset += len(parts[-1])
        return b"".join(parts)

    def _block(self, number: int) -> Buffer:
        with self._lock:
            reads_on = number == self._last + 1
            self._last = number
            for ahead in range(number, number + (_AHEAD if reads_on else 1)):
                self._begin(ahead)
            self._blocks.move_to_end(number)
            wanted = self._blocks[number]
        return wanted.result()

    def _begin(self, number: int) -> None:
        """Has a block read, unless it is there, or its way."""
        if number in self._blocks or number * _BLOCK >= self.nbytes:
            return
        while len(self._blocks) >= _KEPT:
            self._blocks.popitem(last=False)
        self._blocks[number] = fetch_threads.submit(lambda: self._read(number))

    def _read(self, number: int) -> Buffer:
        start, stop = number * _BLOCK, min((number + 1) * _BLOCK, self.nbytes)
        url, version = self._url, self.version
        try:
            return self._retries.run(
                url, lambda: object_store.read_range(url, start, stop, version)
            )
        except (Changed, MissingObject) as error:
            raise BadArchive(
                f"{printable(urls.shown(url))}: it was changed while it was indexed: try again"
            ) from error
