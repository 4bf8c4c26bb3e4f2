"""The caches in shared memory: they live as long as the daemon, and give way when they must.

The kernel frees them when the daemon and its workers are gone, as they have no name. Like
those on disk, they are marked as in use by locks that openers take.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from dataclasses import dataclass

from loaderd.cache import layout
from loaderd.cache.index import lock_alone
from loaderd.ipc import segment


@dataclass(slots=True)
class _MemoryCache:
    fd: int
    pending: int = 0
    """Streams that are being opened and will use it."""
    asked: int = 0
    """Bytes that those may come to take."""

    @property
    def nbytes(self) -> int:
        """Bytes that it takes now."""
        return os.fstat(self.fd).st_blocks * 512

    @property
    def claim(self) -> int:
        """Bytes that it may come to take."""
        if self.idle():
            return self.nbytes
        head = layout.read_head(self.fd)
        return self.asked + max(self.nbytes, head.claim if head else 0)

    def idle(self) -> bool:
        """Whether no stream uses it, or is about to."""
        if self.pending:
            return False
        alone = lock_alone(self.fd)
        if alone:
            fcntl.flock(self.fd, fcntl.LOCK_UN)
        return alone


class MemoryCaches:
    """The caches; the least recently opened one gives way first, and none that is in use.

    Args:
        limit: bytes that they may take together.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._caches: dict[str, _MemoryCache] = {}
        self._turn: int | None = None

    @property
    def nbytes(self) -> int:
        """Bytes that they take now."""
        return sum(cache.nbytes for cache in self._caches.values())

    @property
    def turn(self) -> int:
        """A descriptor that openers lock to take turns; it stays ours."""
        if self._turn is None:
            self._turn = segment.create(1)
        return self._turn

    def take(self, keys: Sequence[str], nbytes: int) -> tuple[str, int, int]:
        """Gives out a cache, and makes it if there is none. ``opened`` must follow.

        Args:
            keys: names that it may have; if there is none of them, the first is made.
            nbytes: what the files that shall be in it take.

        Returns:
            Its name, its descriptor, which stays ours, and the bytes that it may take.
        """
        key = next((key for key in keys if key in self._caches), keys[0])
        cache = self._caches.pop(key, None) or _MemoryCache(segment.create(layout.HEADER))
        others = sum(other.claim for other in self._caches.values() if not other.idle())
        room = max(0, self.limit - others - cache.asked)
        cache.pending += 1
        cache.asked += nbytes
        self._caches[key] = cache  # the last, as the most recently opened
        return key, cache.fd, room

    def opened(self, key: str, nbytes: int) -> None:
        """To be called after ``take``, when the stream is open with a lock of its own, or is not.

        Only now is it known what it takes: some of its files may have been there already.
        """
        cache = self._caches[key]
        cache.pending -= 1
        cache.asked -= nbytes
        for other in list(self._caches):
            if sum(one.claim for one in self._caches.values()) <= self.limit:
                break
            if other != key:
                self._drop_idle(other)

    def give_way(self, nbytes: int) -> None:
        """Drops idle caches until so much shared memory is free, or none is left."""
        for key in list(self._caches):
            if segment.free() >= nbytes:
                return
            self._drop_idle(key)

    def _drop_idle(self, key: str) -> None:
        if self._caches[key].idle():
            os.close(self._caches.pop(key).fd)
