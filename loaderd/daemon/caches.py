"""The caches in shared memory: they live as long as the daemon, and give way when they must.

The kernel frees them when the daemon and its workers are gone, as they have no name. Like
those on disk, they are marked as in use by locks that openers take.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass

from loaderd.cache import store
from loaderd.wire import segment


@dataclass(slots=True)
class _Cache:
    fd: int
    claim: int = 0
    """Bytes that it may come to take."""
    openings: int = 0
    """Streams that are about to use it."""

    @property
    def nbytes(self) -> int:
        """Bytes that it takes now."""
        return os.fstat(self.fd).st_blocks * 512

    def idle(self) -> bool:
        """Whether no stream uses it, or is about to."""
        if self.openings:
            return False
        alone = store.lock_alone(self.fd)
        if alone:
            fcntl.flock(self.fd, fcntl.LOCK_UN)
        return alone


class MemoryCaches:
    """All of them; the least recently opened gives way first, and none that is in use.

    Args:
        limit: bytes that they may take together.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._caches: dict[str, _Cache] = {}

    @property
    def nbytes(self) -> int:
        """Bytes that they take now."""
        return sum(cache.nbytes for cache in self._caches.values())

    def take(self, key: str, nbytes: int) -> tuple[int, int]:
        """A cache, made if need be; its descriptor stays ours. ``opened`` must follow.

        Args:
            key: its name.
            nbytes: what it takes when it is full.

        Returns:
            The descriptor, and the bytes that it may take.
        """
        cache = self._caches.pop(key, None) or _Cache(segment.create(nbytes))
        cache.openings += 1
        self._make_room(nbytes)
        cache.claim = min(nbytes, max(0, self.limit - self._claimed()))
        self._caches[key] = cache  # the last, as the most recently opened
        return cache.fd, cache.claim

    def opened(self, key: str) -> None:
        """The stream that ``take`` was called for is open, with a lock of its own, or is not."""
        self._caches[key].openings -= 1

    def give_way(self, nbytes: int) -> None:
        """Drops idle caches until so much shared memory is free, or none is left."""
        for key in list(self._caches):
            if segment.free() >= nbytes:
                return
            self._drop_idle(key)

    def _claimed(self) -> int:
        return sum(cache.nbytes if cache.idle() else cache.claim for cache in self._caches.values())

    def _make_room(self, nbytes: int) -> None:
        for key in list(self._caches):
            if self._claimed() + nbytes <= self.limit:
                return
            self._drop_idle(key)

    def _drop_idle(self, key: str) -> None:
        if self._caches[key].idle():
            os.close(self._caches.pop(key).fd)
