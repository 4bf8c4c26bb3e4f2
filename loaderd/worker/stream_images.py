"""The images of a stream, from where its spec and its manifest say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loaderd.cache.store import Store
from loaderd.errors import ProtocolError
from loaderd.ipc.bundle import Parts
from loaderd.ipc.manifest import Manifest
from loaderd.render.load.pixel_limits import PixelLimit
from loaderd.render.renderer import Renderer
from loaderd.sources.arrays import ArraySource
from loaderd.sources.downloads import Downloads
from loaderd.sources.fetches import Remote
from loaderd.sources.files import FileLimit, FileSource
from loaderd.sources.members import MemberSource
from loaderd.sources.object_members import ObjectMembers, fetches_of
from loaderd.sources.objects import ObjectSource
from loaderd.sources.retries import Retries
from loaderd.sources.source import Source
from loaderd.spec import url
from loaderd.spec.spec import Spec
from loaderd.worker.images import ArrayImages, CachedImages, DecodedImages

_LAST_TRY = 0.9
"""Of ``--io-timeout``: then a worker says what the store has answered, before it is killed."""


def remote_of(spec: Spec, io_timeout: float, idle: Callable[[bool], None]) -> Remote:
    """How a stream asks an object store, if its samples lie in one."""
    kept = None if spec.download is None else Downloads(spec.download)
    return Remote(Retries(_LAST_TRY * io_timeout), kept, idle)


def source_of(
    spec: Spec, manifest: Manifest, arrays: Parts, limit: PixelLimit, remote: Remote
) -> Source:
    """The source of a stream.

    Args:
        spec: of the stream.
        manifest: its samples.
        arrays: its bundles.
        limit: of a file.
        remote: for one on an object store.

    Raises:
        ProtocolError: manifest or bundle do not match.
    """
    if "images" in arrays:
        return _array_source(spec, manifest, arrays["images"])
    of_each = FileLimit(limit.file_bytes, limit.file_reason)
    if manifest.objects is not None:
        return ObjectSource(manifest, of_each, remote)
    if manifest.members is None:
        return FileSource(manifest, of_each)
    archives, _ = manifest.members
    if archives and url.is_url(archives[0].path):
        return ObjectMembers(manifest, of_each, fetches_of(manifest, remote))
    return MemberSource(manifest, of_each)


def masks_of(source: Source, manifest: Manifest, limit: PixelLimit) -> MemberSource | None:
    """The masks of a stream that lie in archives; None without such.

    Args:
        source: of the images.
        manifest: its samples.
        limit: of a file.
    """
    if manifest.masks is None:
        return None
    of_each = FileLimit(limit.file_bytes, limit.file_reason)
    if source.fetches is not None:
        return ObjectMembers(manifest.masks, of_each, source.fetches, len(manifest))
    return MemberSource(manifest.masks, of_each)


def images_of(
    source: Source, renderer: Renderer, store: Store | None, folder: str
) -> DecodedImages:
    """The images of a source.

    Args:
        source: of the samples.
        renderer: decodes them.
        store: the cache, if there is one.
        folder: of the images, for display.
    """
    if isinstance(source, ArraySource):
        return ArrayImages(source, renderer)
    if store is not None:
        return CachedImages(source, renderer, store, folder)
    return DecodedImages(source, renderer)


def _array_source(spec: Spec, manifest: Manifest, images: NDArray[Any]) -> ArraySource:
    if images.shape != (len(manifest), *spec.array_shape):
        raise ProtocolError(f"images of shape {images.shape}")
    if spec.augments and images.dtype != np.uint8:
        raise ProtocolError(f"augment takes images of bytes, and these are {images.dtype}")
    if spec.output.data_format == "channels_first":
        images = images.transpose(0, 2, 3, 1)
    return ArraySource(images, manifest.labels)
