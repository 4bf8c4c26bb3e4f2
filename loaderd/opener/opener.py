"""The process that does the slow part of opening a stream, so that the supervisor never blocks.

It lists the directory into a manifest, or checks the client's, and, once the supervisor has
decided on the size of the ring, reserves the ring's pages and opens the cache. Then it waits for
the next stream. A listing of a million files or a ring of gigabytes delays no other stream: other
openers open those that come meanwhile.
"""

from __future__ import annotations

import os
import socket
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loaderd import storage
from loaderd.cache import folder, images, layout, memory
from loaderd.cache.index import Granted
from loaderd.cache.layout import Head
from loaderd.child.storage_watch import StorageWatch
from loaderd.config import Settings
from loaderd.errors import CacheError, LoaderdError, NoRoom, ProtocolError, RequestRefused
from loaderd.ipc import annotation_parts, bundle, descriptors, manifest, segment
from loaderd.ipc.channel import Channel
from loaderd.ipc.manifest import Manifest
from loaderd.ipc.messages import Indexing, List, Listed, Message, Reserve, Reserved, refusal
from loaderd.ipc.text import printable
from loaderd.render.versions import decoders
from loaderd.sampling.epoch_layout import EpochLayout
from loaderd.sampling.order import epoch_length
from loaderd.sampling.weights import sample_weights
from loaderd.sources import downloads, file_identity
from loaderd.sources.archives import FIRST_ANSWER_SECONDS, Indexer, list_members
from loaderd.sources.directory import Listing, list_samples
from loaderd.sources.file_identity import FileStates
from loaderd.sources.groups import Recipe
from loaderd.sources.mds_folder import with_shards
from loaderd.sources.object_folder import list_objects
from loaderd.sources.retries import Retries
from loaderd.sources.rows import list_rows
from loaderd.spec import spec, url
from loaderd.spec.output import Batching, Order
from loaderd.spec.source import Archives, Arrays, Directory, Files, Rows
from loaderd.spec.spec import Spec


class _Cache(NamedTuple):
    """The requested cache of a stream: its possible names, and the files to hold."""

    keys: tuple[str, ...]
    directory: str
    empty: Head
    files: FileStates

    @property
    def nbytes(self) -> int:
        """Bytes of the cache with these files alone."""
        samples = len(self.files.keys)
        return self.empty.grown(samples).overhead + samples * self.empty.row_bytes


def main(sock: socket.socket, settings: Settings) -> None:
    """Runs an opener on its end of the supervisor's socket, until that closes."""
    channel = Channel(sock)
    watch = StorageWatch(channel, settings.silence)
    watch.start()
    watch.serve(_Opener(channel, settings).handle)


class _Opener:
    """One opener, and the stream that it is opening."""

    def __init__(self, channel: Channel, settings: Settings) -> None:
        self._channel = channel
        self._settings = settings
        self._cache: _Cache | None = None

    def handle(self, message: Message, fds: list[int]) -> None:
        """Does what the supervisor asks for."""
        try:
            match message:
                case List():
                    self._list(message, fds)
                case Reserve():
                    self._reserve(message, fds)
        except LoaderdError as error:
            self._channel.send(refusal(error))
        except Exception as error:  # a damaged bundle may raise anything
            self._channel.send(refusal(RequestRefused(f"the dataset cannot be listed: {error!r}")))
        finally:
            descriptors.close_all(fds)

    def _list(self, request: List, fds: list[int]) -> None:
        asked, given = _read_request(request, fds)
        if asked.download is not None:
            downloads.check(asked.download)
        table = self._table(asked, given)
        found = Manifest.view(table)
        if asked.batch.label_mode == "categorical":
            _check_labels(found)
        if asked.batch.label_mode == "given":
            _check_given(given, asked.batch, len(found))
        wanted = asked.annotations
        if (wanted is not None and wanted.masks == "members") != (found.masks is not None):
            raise ProtocolError("the spec and the samples differ on whether archives hold masks")
        if wanted is not None:
            size = asked.load.target_size
            annotation_parts.check(wanted, given, len(found), size)
        length = epoch_length(asked.order, len(found), _order(given, asked.order, len(found)))
        EpochLayout(length, asked.batch.batch_size, asked.order.shard).check_shard()
        weights = _weights(given, asked.order, len(found))
        sample_weights(asked.order, found.labels, found.class_names, weights)  # checks them
        self._cache = _cache(found, asked)
        cache = (self._cache.keys, self._cache.nbytes) if self._cache else ((), 0)
        fd = segment.publish(table)
        try:
            answer = Listed(length, len(found.class_names), len(table), *cache)
            self._channel.send(answer, [fd])
        finally:
            os.close(fd)

    def _table(self, asked: Spec, given: bundle.Parts) -> bytes:
        """The samples, packed as a manifest."""
        source = asked.source
        retries = Retries(min(FIRST_ANSWER_SECONDS, self._settings.io_timeout))
        if isinstance(source, Archives):
            source = with_shards(source, retries)
            recipe = Recipe.of(source)
            indexer = Indexer(source.paths, recipe, self._settings.cache_dir, retries)
            return _packed(list_members(source, indexer.run(self._report)))
        if type(source) is Directory and url.is_url(source.directory):
            return _packed(list_objects(source, retries))
        return _table(asked, given)

    def _report(self, share: float, archives: int, total: int) -> None:
        self._channel.send(Indexing(share, archives, total))

    def _reserve(self, request: Reserve, fds: list[int]) -> None:
        ring, *held = fds
        segment.reserve(ring, request.ring_bytes)
        cache, self._cache = self._cache, None
        if cache is None or not request.own:
            self._channel.send(Reserved())
            return
        try:
            fd, granted = _open_cache(cache, request, held, self._settings)
            rows = segment.publish(granted.rows.tobytes())
        except (OSError, NoRoom) as error:
            self._channel.send(Reserved(trouble=_no_room_warning(cache, error)))
            return
        fit = len(granted.rows) - granted.lacking
        self._channel.send(Reserved(True, fit, _partial_warning(cache, granted)), [fd, rows])
        descriptors.close_all((rows, fd))


def _read_request(request: List, fds: list[int]) -> tuple[Spec, bundle.Parts]:
    """The client's spec and bundles, checked; the supervisor does not read the bundles."""
    asked, *bundles = fds
    for fd, nbytes in zip(bundles, request.bundles, strict=True):
        bundle.check(fd, nbytes)
    given = bundle.attach_all([os.dup(fd) for fd in bundles], request.bundles)
    return spec.decode(os.pread(asked, request.spec_bytes, 0)), given


def _table(asked: Spec, given: bundle.Parts) -> bytes:
    """The samples, packed as a manifest."""
    match asked.source:
        case Rows():
            rows = Manifest.view(_part(given, "listing"))
            return _packed(list_rows(asked.source, rows))
        case Directory():
            return _packed(list_samples(asked.source))
        case Files():
            return _part(given, "manifest").tobytes()
        case Arrays():
            array = _part(given, "images")
            if array.shape[1:] != asked.array_shape:
                raise ProtocolError(f"images of shape {array.shape[1:]}, not {asked.array_shape}")
            if "manifest" in given:  # with labels
                return _part(given, "manifest").tobytes()
            samples = len(array)
            return manifest.pack("", (), [b""] * samples, np.zeros(samples, np.int32))


def _packed(listing: Listing) -> bytes:
    table = manifest.pack(
        listing.root,
        listing.class_names,
        listing.filenames,
        listing.labels,
        listing.members,
        listing.objects,
    )
    if listing.masks is None:
        return table
    return manifest.with_masks(table, _packed(listing.masks))


def _order(given: bundle.Parts, order: Order, samples: int) -> NDArray[Any] | None:
    """The given order, checked."""
    if not order.given:
        return None
    ids = _part(given, "order")
    if ids.ndim != 1 or ids.dtype.kind != "i":
        raise ProtocolError("the order is no row of whole numbers")
    if len(ids) and not 0 <= ids.min() <= ids.max() < samples:
        raise ProtocolError(f"the order has samples beyond the {samples} that there are")
    return ids


def _weights(given: bundle.Parts, order: Order, samples: int) -> NDArray[Any] | None:
    """The given weights of samples; their values are not checked."""
    if not order.weighted:
        return None
    weights = _part(given, "weights")
    if weights.shape != (samples,) or weights.dtype.kind != "f":
        raise ProtocolError(f"the weights are not one number for each of {samples} samples")
    return weights


def _part(given: bundle.Parts, name: str) -> NDArray[Any]:
    if name not in given:
        raise ProtocolError(f"the bundle lacks {name!r}")
    return given[name]


def _check_labels(found: Manifest) -> None:
    labels = found.labels
    if len(labels) and not 0 <= labels.min() <= labels.max() < max(1, len(found.class_names)):
        raise ProtocolError("the manifest has labels without a class")


def _check_given(given: bundle.Parts, batch: Batching, samples: int) -> None:
    labels = _part(given, "labels")
    if labels.shape != (samples, *batch.label_shape) or labels.dtype != np.float32:
        raise ProtocolError(f"'labels' of the bundle is {labels.dtype} of shape {labels.shape}")


def _cache(found: Manifest, asked: Spec) -> _Cache | None:
    """The requested cache, or None; images in memory need none."""
    if asked.cache == "none" or isinstance(asked.source, Arrays) or not len(found):
        return None
    where, versions = images.folder_of(asked.source.directory), decoders()
    return _Cache(
        images.keys(asked.load, where, versions),
        asked.source.directory,
        images.head(asked.load, where, versions),
        file_identity.look(found),
    )


def _partial_warning(cache: _Cache, granted: Granted) -> str:
    """A warning if not all images fit; else empty."""
    if not granted.lacking:
        return ""
    samples = len(granted.rows)
    return (
        f"{samples - granted.lacking:,} of {samples:,} images of {printable(cache.directory)} fit "
        "into the cache, and the others are decoded each time: --cache-size (LOADERD_CACHE_SIZE), "
        "or what is free, allows no more"
    )


def _no_room_warning(cache: _Cache, error: OSError | NoRoom) -> str:
    """A warning that there is no room for a cache; other errors are raised."""
    if isinstance(error, CacheError):
        raise error
    if isinstance(error, OSError) and not layout.is_full(error):
        raise CacheError(f"no cache can be made: {error.strerror}") from error
    directory = printable(cache.directory)
    return f"there is no room for a cache of {directory}, whose images are decoded each time"


def _open_cache(
    cache: _Cache, message: Reserve, held: list[int], settings: Settings
) -> tuple[int, Granted]:
    """The cache's file, locked as in use, and its rows.

    ``held`` are the supervisor's descriptors of a cache in memory; there are none for one on disk.
    """
    if held:
        mine, turn = held
        return memory.open_cache(mine, turn, cache.empty, cache.files, message.cache_room)
    with storage.asking(settings.cache_dir):
        return folder.open_cache(
            settings.cache_dir, cache.keys, cache.empty, cache.files, settings.cache_size
        )
