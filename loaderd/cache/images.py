"""Which images a cache holds: what decides their bytes, and nothing that comes later.

Streams that agree on this share one cache, whatever they do with the images afterwards.
"""

from __future__ import annotations

import hashlib
import json
import math
import os

import msgspec
import numpy as np
from numpy.typing import NDArray

from loaderd import storage
from loaderd.cache.store import Head, States
from loaderd.wire.manifest import Manifest
from loaderd.wire.spec import Pil, Pipeline

_LONGEST = 300
"""Characters of a path of which people see the end: the header has one page."""

_DECIDING = ("target_size", "color_mode", "interpolation", "aspect", "truncated", "compat",
             "decode", "exif", "reading")  # fmt: skip


def head(samples: Manifest, pipeline: Pipeline, directory: str, decoders: str) -> Head:
    """The header of the images' cache, with no row granted yet.

    Args:
        samples: the files.
        pipeline: how they are decoded and resized.
        directory: where they lie, for people.
        decoders: versions of the libraries that decode.
    """
    choices = {name: getattr(pipeline, name) for name in _DECIDING}
    about = {"directory": directory[-_LONGEST:], **choices, "decoders": decoders}
    if pipeline.pil != Pil():  # by these an image is read that otherwise is not
        about["pil"] = hashlib.blake2b(msgspec.json.encode(pipeline.pil), digest_size=8).hexdigest()
    return Head(len(samples), math.prod(pipeline.array_shape), 0, about)


def order(samples: Manifest) -> NDArray[np.int64]:
    """The samples by their paths: row i of the cache is the i-th of them.

    However a seed has shuffled the list, the same files have the same rows.
    """
    names = bytes(samples.names).split(b"\0")[:-1]
    return np.array(sorted(range(len(names)), key=names.__getitem__), np.int64)


def key(samples: Manifest, by_path: NDArray[np.int64], images: Head) -> str:
    """The name of the cache: a digest of the files' paths and of what is done to them."""
    digest = hashlib.blake2b(digest_size=16)
    for sample in by_path.tolist():
        digest.update(samples.filename(sample) + b"\0")
    with storage.asking(samples.root):
        root = os.path.realpath(samples.root) if samples.root else ""
    digest.update(json.dumps({**images.about, "directory": root}).encode())
    return digest.hexdigest()


def states(samples: Manifest, by_path: NDArray[np.int64]) -> States:
    """Size, modification time and row of all samples; about 3 µs each."""
    found = np.full((len(samples), 3), -1, np.int64)
    found[by_path, 2] = np.arange(len(samples))
    with storage.asking(samples.root):
        for sample in range(len(samples)):
            path = samples.path(sample)
            storage.ask(path)
            try:
                status = os.stat(path)
            except OSError:
                continue  # whoever reads it gets the error
            found[sample, :2] = status.st_size, status.st_mtime_ns
    return found
