"""Where the images of a chunk come from, as they are before they are finished.

A source is told of a chunk by ``begin``; then it either gives the whole chunk at once
(``gather``) or image by image (``load``).
"""

from __future__ import annotations

from time import perf_counter_ns, time_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loaderd import storage
from loaderd.cache.files import settled_state
from loaderd.cache.store import Store, path_of
from loaderd.ipc import segment
from loaderd.ipc.manifest import Manifest
from loaderd.render.renderer import Renderer
from loaderd.sampling.order import Ids
from loaderd.spec.load import Load

Array = NDArray[Any]

_ROW = 3 * np.dtype(np.int64).itemsize


class FileSource:
    """Images from their files."""

    def __init__(self, renderer: Renderer, manifest: Manifest) -> None:
        self._renderer = renderer
        self._manifest = manifest

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
        return self._renderer.load(self._manifest.path(sample))

    def take_trouble(self) -> str:
        """What people should hear of, once; empty if there is nothing."""
        return ""


class ArraySource:
    """Images that came with the stream.

    Args:
        images: (n, height, width, channels).
    """

    def __init__(self, images: Array) -> None:
        self._images = images
        self._whole = images.dtype == np.uint8 and images.flags.c_contiguous

    def begin(self, ids: Ids) -> int:
        """Nothing has to be decoded."""
        return 0

    def gather(self, ids: Ids, out: Array) -> bool:
        """Copies the whole chunk, if these are bytes as they lie in the batch."""
        if self._whole:
            np.take(self._images, ids, axis=0, out=out, mode="clip")
        return self._whole

    def load(self, sample: int) -> Array:
        """One image."""
        image: Array = self._images[sample]
        return image

    def take_trouble(self) -> str:
        """There is none."""
        return ""


class CachedSource(FileSource):
    """Images from the cache, and into it what it lacks."""

    def __init__(self, renderer: Renderer, manifest: Manifest, store: Store) -> None:
        super().__init__(renderer, manifest)
        self._store = store
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
        self._renderer.nanoseconds[0] += perf_counter_ns() - start
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
        before = time_ns()
        image = super().load(sample)
        with storage.asking(self._path):
            self._store.keep(sample, image, settled_state(self._renderer.source, before))
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
        root, why = self._manifest.root, self._store.trouble
        if self._store.lost:
            return (
                f"the cache of {root} is used no more, and its images are decoded each time until "
                f"a stream is opened anew: {why}"
            )
        return (
            f"the cache of {root} is written no more, and what it lacks is decoded each time: {why}"
        )


Source = FileSource | ArraySource


def attach_store(cache: int, rows: int, load: Load, samples: int) -> Store:
    """A cache and the rows of its files; the descriptors are ours."""
    memory = segment.attach(rows, samples * _ROW, writable=False)
    known = np.frombuffer(memory, np.int64).reshape(-1, 3)
    with storage.asking(path_of(cache)):
        return Store(cache, load.array_shape, known)
