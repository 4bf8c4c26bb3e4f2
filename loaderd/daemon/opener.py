"""The process that does the slow half of opening a stream, so that the loop never waits.

It lists the directory into a manifest, or checks what the client has brought along, and,
once the supervisor has decided how large the ring is, reserves the ring's pages. Then it
ends. A listing of a million files or a ring of gigabytes delays no other stream.
"""

from __future__ import annotations

import os
import socket
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loaderd.data.listing import list_samples
from loaderd.errors import LoaderdError, ProtocolError
from loaderd.wire import bundle, manifest, segment, spec
from loaderd.wire.channel import Channel, Closed
from loaderd.wire.manifest import Manifest
from loaderd.wire.messages import Given, Listed, Reserve, Reserved, refusal
from loaderd.wire.spec import Arrays, Dataset, Files, Pipeline


def main(sock: socket.socket, spec_json: bytes) -> None:
    """Lists, then reserves, on the opener's end of the supervisor's socket."""
    line = Channel(sock)
    try:
        _list(line, spec_json)
        _reserve(line)
    except Closed:
        return
    except LoaderdError as error:
        line.send(refusal(error))


def _list(line: Channel, spec_json: bytes) -> None:
    asked = spec.decode(spec_json)
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
    fd = segment.publish(table)
    line.send(Listed(len(found), len(found.class_names), len(table)), [fd])
    os.close(fd)


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


def _reserve(line: Channel) -> None:
    message, fds = line.receive_with_fds()
    if isinstance(message, Reserve):
        segment.reserve(fds[0], message.ring_bytes)
        line.send(Reserved())
