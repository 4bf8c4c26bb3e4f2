"""The images of a chunk as they are before they are finished: read and decoded, or kept.

They are told of a chunk by ``begin``; then they either come all at once
(``gather``) or image by image (``load``).
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loaderd import storage
from loaderd.cache.store import Store, path_of
from loaderd.ipc import segment
from loaderd.render.renderer import Renderer
from loaderd.sampling.order import Ids
from loaderd.sources.arrays import ArraySource
from loaderd.sources.source import Source
from loaderd.spec.load import Load

Array = NDArray[Any]

_ROW = 3 * np.dtype(np.int64).itemsize


class DecodedImages:
    """Images that are read and decoded each time.

    Args:
        source: where they are read from.
        renderer: decodes them.
    """

    def __init__(self, source: Source, renderer: Renderer) -> None:
        self._source = source
        self._renderer = renderer

    def begin(self, ids: Ids) -> int:
        """Prepares the samples of a chunk; returns how many need not be decoded."""
        return 0

    def gather(self, ids: Ids, out: Array) -> bool:
        """Copies the whole chunk to ``out``, if that goes; returns whether it went."""
        return False

    def load(self, sample: int) -> Array:
        """One image, valid until the next is asked for.

        Raises:
            BadImage: its file cannot be read or decoded.
        """
        start = perf_counter_ns()
        found = self._source.read(sample)
        self._renderer.times.read += perf_counter_ns() - start
        if isinstance(found, memoryview):
            return self._renderer.load(found, self._source.name(sample))
        return found

    def take_trouble(self) -> str:
        """What people should hear of, once; empty if there is nothing."""
        return ""


class ArrayImages:
    """Images that came with the stream.

    Args:
        source: where they lie.
    """

    def __init__(self, source: ArraySource) -> None:
        self._images = images = source.images
        self._whole = images.dtype == np.uint8 and images.flags.c_contiguous
        self.load = source.read

    def begin(self, ids: Ids) -> int:
        """Nothing has to be decoded."""
        return 0

    def gather(self, ids: Ids, out: Array) -> bool:
        """Copies the whole chunk, if these are bytes as they lie in the batch."""
        if self._whole:
            np.take(self._images, ids, axis=0, out=out, mode="clip")
        return self._whole

    def take_trouble(self) -> str:
        """There is none."""
        return ""


class CachedImages(DecodedImages):
    """Images from the cache, and into it what it lacks.

    Args:
        source: where the others are read from.
        renderer: decodes those.
        store: the cache.
        folder: of the images, for people.
    """

    def __init__(self, source: Source, renderer: Renderer, store: Store, folder: str) -> None:
        super().__init__(source, renderer)
        self._store = store
        self._folder = folder
        self._path = store.path
        self._there: frozenset[int] = frozenset()
        self._told = False

    def begin(self, ids: Ids) -> int:
        """Looks which samples are there."""
        with storage.asking(self._path):
            self._there = frozenset(ids[self._store.find(ids)].tolist())
        return len(self._there)

    def gather(self, ids: Ids, out: Array) -> bool:
        """Copies the whole chunk, if all of it is there."""
        if len(self._there) < len(ids):
            return False
        start = perf_counter_ns()
        with storage.asking(self._path):
            went = self._store.gather(ids, out)
        self._renderer.times.read += perf_counter_ns() - start
        return went

    def load(self, sample: int) -> Array:
        """One image: from the cache, or decoded and kept there.

        Raises:
            BadImage: its file cannot be read or decoded.
        """
        if sample in self._there and not self._store.lost:
            kept = self._row(sample)
            if kept is not None:
                return kept
        image = super().load(sample)
        with storage.asking(self._path):
            self._store.keep(sample, image, self._source.identity(sample))
        return image

    def _row(self, sample: int) -> Array | None:
        storage.ask(self._path)
        try:
            return self._store.row(sample)
        finally:
            storage.answered()

    def take_trouble(self) -> str:
        """Why the cache is written no more, or not used at all."""
        if self._told or not self._store.trouble:
            return ""
        self._told = True
        root, why = self._folder, self._store.trouble
        if self._store.lost:
            return (
                f"the cache of {root} is used no more, and its images are decoded each time until "
                f"a stream is opened anew: {why}"
            )
        return (
            f"the cache of {root} is written no more, and what it lacks is decoded each time: {why}"
        )


Images = DecodedImages | ArrayImages


def attach_store(cache: int, rows: int, load: Load, samples: int) -> Store:
    """A cache and the rows of its files; the descriptors are ours."""
    memory = segment.attach(rows, samples * _ROW, writable=False)
    known = np.frombuffer(memory, np.int64).reshape(-1, 3)
    with storage.asking(path_of(cache)):
        return Store(cache, load.array_shape, known)
