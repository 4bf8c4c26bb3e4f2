"""The process that does the slow half of opening a stream, so that the loop never waits.

It lists the directory into a manifest, or checks what the client has brought along, and,
once the supervisor has decided how large the ring is, reserves the ring's pages and opens
the cache. Then it ends. A listing of a million files or a ring of gigabytes delays no
other stream.
"""

from __future__ import annotations

import os
import socket
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loaderd.cache import folder, images, store
from loaderd.cache.store import Head, States
from loaderd.config import Settings
from loaderd.data.listing import list_samples
from loaderd.errors import CacheError, LoaderdError, NoRoom, ProtocolError, RequestRefused
from loaderd.render.versions import decoders
from loaderd.wire import bundle, manifest, segment, spec
from loaderd.wire.channel import Channel, Closed
from loaderd.wire.manifest import Manifest
from loaderd.wire.messages import Given, Listed, Reserve, Reserved, refusal
from loaderd.wire.spec import Arrays, Dataset, Files, Pipeline, Spec


class _Cache(NamedTuple):
    """What the cache of the stream's images holds when it is full."""

    key: str
    head: Head
    states: States


def main(sock: socket.socket, spec_json: bytes, settings: Settings) -> None:
    """Lists, then reserves, on the opener's end of the supervisor's socket."""
    line = Channel(sock)
    try:
        cache = _list(line, spec.decode(spec_json))
        _reserve(line, cache, settings)
    except Closed:
        return
    except LoaderdError as error:
        line.send(refusal(error))
    except Exception as error:  # what is odd in a bundle must be told, whatever it leads to
        line.send(refusal(RequestRefused(f"the dataset cannot be listed: {error!r}")))


def _list(line: Channel, asked: Spec) -> _Cache | None:
    given = _given(line)
    match asked.dataset:
        case Dataset():
            listing = list_samples(asked.dataset)
            table = manifest.pack(
                listing.root, listing.class_names, listing.filenames, listing.labels
            )
        case Files():
            table = _part(given, "manifest").tobytes()
        case Arrays():
            samples = _count_images(_part(given, "images"), asked.pipeline)
            table = manifest.pack("", (), [b""] * samples, np.zeros(samples, np.int32))
    found = Manifest.view(table)
    if asked.batch.label_mode == "categorical":
        _check_labels(found)
    cache = _cache(found, asked)
    wanted = (cache.key, cache.head.nbytes) if cache else ("", 0)
    fd = segment.publish(table)
    line.send(Listed(len(found), len(found.class_names), len(table), *wanted), [fd])
    os.close(fd)
    return cache


def _given(line: Channel) -> dict[str, NDArray[Any]]:
    """The client's bundle, checked; the supervisor never looks into it."""
    message, fds = line.receive_with_fds()
    if not isinstance(message, Given) or not fds:
        return {}
    bundle.check(fds[0], message.bundle_bytes)
    return bundle.attach(fds[0], message.bundle_bytes)


def _part(given: dict[str, NDArray[Any]], name: str) -> NDArray[Any]:
    if name not in given:
        raise ProtocolError(f"the bundle lacks {name!r}")
    return given[name]


def _check_labels(found: Manifest) -> None:
    labels = found.labels
    if len(labels) and not 0 <= labels.min() <= labels.max() < max(1, len(found.class_names)):
        raise ProtocolError("the manifest has labels without a class")


def _count_images(images: NDArray[Any], pipeline: Pipeline) -> int:
    if images.shape[1:] != pipeline.image_shape:
        raise ProtocolError(f"images of shape {images.shape[1:]}, not {pipeline.image_shape}")
    return len(images)


def _cache(found: Manifest, asked: Spec) -> _Cache | None:
    """Images that are in memory already need none."""
    if asked.cache == "none" or isinstance(asked.dataset, Arrays) or not len(found):
        return None
    head = images.head(found, asked.pipeline, asked.dataset.directory, decoders())
    by_path = images.order(found)
    return _Cache(images.key(found, by_path, head), head, images.states(found, by_path))


def _reserve(line: Channel, cache: _Cache | None, settings: Settings) -> None:
    message, fds = line.receive_with_fds()
    if not isinstance(message, Reserve):
        return
    segment.reserve(fds[0], message.ring_bytes)
    if cache is None:
        line.send(Reserved())
        return
    try:
        fd, rows = _open_cache(cache, message, fds[1:], settings)
        states = segment.publish(cache.states.tobytes())
    except (OSError, NoRoom) as error:
        line.send(Reserved(trouble=_no_room(cache, error)))
    else:
        line.send(Reserved(True, rows, _partly(cache, rows)), [fd, states])


def _partly(cache: _Cache, rows: int) -> str:
    """What people are told where not all images fit."""
    samples, directory = cache.head.samples, cache.head.about["directory"]
    if rows == samples:
        return ""
    return (
        f"{rows:,} of {samples:,} images of {directory} fit into the cache, and the others are "
        "decoded each time: --cache-size (LOADERD_CACHE_SIZE), or what is free, allows no more"
    )


def _no_room(cache: _Cache, error: OSError | NoRoom) -> str:
    """What people are told of a cache for which there is no room; other errors are raised."""
    if isinstance(error, CacheError):
        raise error
    if isinstance(error, OSError) and not store.is_full(error):
        raise CacheError(f"no cache can be made: {error.strerror}") from error
    directory = cache.head.about["directory"]
    return f"there is no room for a cache of {directory}, whose images are decoded each time"


def _open_cache(
    cache: _Cache, message: Reserve, memory: list[int], settings: Settings
) -> tuple[int, int]:
    """The cache's file, locked as in use, and how many rows it may hold."""
    if not memory:
        fd, head = folder.open_cache(
            settings.cache_dir, cache.key, cache.head, cache.states, settings.cache_size
        )
        return fd, head.granted
    head = cache.head.within(message.cache_room)
    # A descriptor of its own: the lock on the supervisor's would be the supervisor's.
    fd = os.open(f"/proc/self/fd/{memory[0]}", os.O_RDWR | os.O_CLOEXEC)
    store.adopt(fd, head, cache.states)
    return fd, head.granted
