"""The loaded images of a chunk: read and decoded, or from a cache.

Call ``begin`` for each chunk, then ``gather`` for all images at once, or ``load`` for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loaderd import storage
from loaderd.augment.warps import Size
from loaderd.cache.store import Bools, Store, path_of
from loaderd.ipc import segment
from loaderd.render.load.decode import file_error
from loaderd.render.renderer import Loaded, LoadedImages, Renderer
from loaderd.sampling.order import Ids
from loaderd.sources.arrays import ArraySource
from loaderd.sources.fetches import Fetches
from loaderd.sources.source import Source
from loaderd.spec.load import Load

Array = NDArray[Any]

_ROW = 3 * np.dtype(np.int64).itemsize


class DecodedImages:
    """Images that are read and decoded each time.

    Args:
        source: of the samples.
        renderer: decodes them.

    Attributes:
        source: the same.
        cached: images of the chunk that came from a cache.
        size: (height, width) of the picture that was loaded last, before any resize.
    """

    def __init__(self, source: Source, renderer: Renderer) -> None:
        self.source = source
        self.cached = 0
        self.size: Size = (0, 0)
        self._renderer = renderer
        self._fetches = source.fetches

    def begin(self, ids: Ids, ticket: int) -> None:
        """Prepares samples of a chunk, which is in hand."""
        if self._fetches is not None:
            self._fetches.begin(ticket)
            self._fetch(self._fetches, ids, ids, ticket)

    def expect(self, ids: Ids, ticket: int) -> None:
        """Begins to fetch the samples of a chunk that may be about to come."""
        if self._fetches is not None:
            self._fetch(self._fetches, ids, ids, ticket)

    def _fetch(self, fetches: Fetches, images: Ids, ids: Ids, ticket: int) -> None:
        """Begins to fetch images, and the masks of all samples of the chunk."""
        numbers: list[int] = images.tolist()
        if fetches.masks:
            numbers += (ids + fetches.masks).tolist()
        fetches.expect(ticket, numbers)

    def take_waited(self) -> int:
        """Nanoseconds that were spent in waiting for an object store since the last call."""
        return self._fetches.take_waited() if self._fetches is not None else 0

    def gather(self, ids: Ids, out: Array) -> bool:
        """Copies the whole chunk to ``out``, if possible; returns whether it did."""
        return False

    def loaded(self, ids: Ids) -> LoadedImages | None:
        """The images of the whole chunk where they lie; None if they do not lie in one array."""
        return None

    def order(self, count: int, ticket: int) -> Sequence[int]:
        """The order in which to load the ``count`` samples of a chunk."""
        return range(count)

    def load(self, sample: int) -> Loaded:
        """One image, valid until the next call: an array, or, where it keeps its size, a picture.

        Raises:
            BadImage: its file cannot be read or decoded.
        """
        start = perf_counter_ns()
        found = self.source.read(sample)
        self._renderer.times.read += perf_counter_ns() - start
        if not isinstance(found, memoryview):
            return found
        try:
            image = self._renderer.load(found)
        except Exception as error:  # PIL's decoders raise nearly everything on bad files
            raise file_error(self.source.name(sample), error) from error
        self.size = self._renderer.loaded_size
        return image

    def take_trouble(self) -> str:
        """A warning for the user, returned once; empty if there is none."""
        return self._fetches.take_trouble() if self._fetches is not None else ""


class ArrayImages(DecodedImages):
    """Images from the stream's bundle."""

    def __init__(self, source: ArraySource, renderer: Renderer) -> None:
        super().__init__(source, renderer)
        self._images = images = source.images
        self.size = images.shape[1:3]
        plain = images.flags.c_contiguous and images.flags.aligned
        self._is_readable = plain and images.dtype in (np.uint8, np.float32)

    def loaded(self, ids: Ids) -> LoadedImages | None:
        """The images of the whole chunk where they lie; None if the kernels cannot read them."""
        return LoadedImages(self._images, ids.astype(np.int64)) if self._is_readable else None

    def load(self, sample: int) -> Array:
        """One image: a view, or, of arrays with channels first, a copy in rows of pixels."""
        return np.ascontiguousarray(self._images[sample])


class CachedImages(DecodedImages):
    """Images from the cache; adds those that it lacks.

    Args:
        source: of the samples.
        renderer: decodes them.
        store: the cache.
        folder: of the images, for display.
    """

    def __init__(self, source: Source, renderer: Renderer, store: Store, folder: str) -> None:
        super().__init__(source, renderer)
        self._store = store
        self._is_sized = store.has_extra
        self._folder = folder
        self._path = store.path
        self._found: frozenset[int] = frozenset()
        self._warned = False

    def begin(self, ids: Ids, ticket: int) -> None:
        """Looks up the samples in the cache."""
        is_found = self._find(ids)
        if self._fetches is not None:
            self._fetches.begin(ticket)
            self._fetch(self._fetches, ids[~is_found], ids, ticket)
        found = ids[is_found]
        self._found, self.cached = frozenset(found.tolist()), len(found)

    def expect(self, ids: Ids, ticket: int) -> None:
        """Begins to fetch those of the samples that the cache lacks."""
        if self._fetches is not None:
            self._fetch(self._fetches, ids[~self._find(ids)], ids, ticket)

    def _find(self, ids: Ids) -> Bools:
        with storage.asking(self._path):
            return self._store.find(ids)

    def gather(self, ids: Ids, out: Array) -> bool:
        """Copies the whole chunk, if all of it is cached."""
        if self.cached < len(ids):
            return False
        start = perf_counter_ns()
        with storage.asking(self._path):
            went = self._store.gather(ids, out)
        self._renderer.times.read += perf_counter_ns() - start
        return went

    def loaded(self, ids: Ids) -> LoadedImages | None:
        """The images of the whole chunk in the cache; None if some are not, or it is a disk's."""
        if self.cached < len(ids):
            return None
        mapped = self._store.mapped(ids)
        return None if mapped is None else LoadedImages(*mapped)

    def order(self, count: int, ticket: int) -> Sequence[int]:
        """Backwards for every other ticket.

        Streams that read the same images in the same order take turns, so their chunks of one
        place have tickets in a row. Two workers that have these at hand load them in opposite
        orders: each decodes about half of the images, and finds the others in the cache.
        """
        samples = range(count)
        return samples[::-1] if ticket % 2 else samples

    def load(self, sample: int) -> Loaded:
        """One image: from the cache, or decoded and added to it.

        Raises:
            BadImage: its file cannot be read or decoded.
        """
        kept = self._row(sample)
        if kept is not None:
            return kept
        image = super().load(sample)
        with storage.asking(self._path):
            extra = _pack_size(self.size) if self._is_sized else b""
            self._store.keep(sample, image, self.source.identity(sample), extra)
        return image

    def _row(self, sample: int) -> Array | None:
        """One image from the cache; it may have come there since ``begin``."""
        storage.ask(self._path)
        try:
            is_found = sample in self._found
            if not (is_found or self._store.has(sample)):
                return None
            if self._is_sized:
                kept_size = self._store.extra(sample)
                self.size = (0, 0) if kept_size is None else _unpack_size(kept_size)
            kept = self._store.row(sample)
            if not is_found:
                self.cached += kept is not None
            return kept
        finally:
            storage.answered()

    def take_trouble(self) -> str:
        """Why the cache is no longer written, or no longer used; returned once."""
        if self._warned or not self._store.trouble:
            return super().take_trouble()
        self._warned = True
        root, why = self._folder, self._store.trouble
        if self._store.lost:
            return (
                f"the cache of {root} is used no more, and its images are decoded each time until "
                f"a stream is opened anew: {why}"
            )
        return (
            f"the cache of {root} is written no more, and what it lacks is decoded each time: {why}"
        )


def attach_store(load: Load, samples: int, cache: int, rows: int) -> Store:
    """Opens a cache and the rows of its files; closes both descriptors."""
    memory = segment.attach(rows, samples * _ROW, writable=False)
    known = np.frombuffer(memory, np.int64).reshape(-1, 3)
    with storage.asking(path_of(cache)):
        return Store(cache, load.array_shape, known, load.extra_bytes)


def _pack_size(size: Size) -> bytes:
    return np.array(size, "<i4").tobytes()


def _unpack_size(data: Array) -> Size:
    height, width = np.frombuffer(data.tobytes(), "<i4").tolist()
    return height, width
