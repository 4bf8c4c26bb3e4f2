"""The key of a stream's cache: what decides the images' bytes, and the folder of the files.

Streams that decode alike share one cache for all files below a folder, whatever selection they
use and however they process the images afterwards.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from typing import Any

import msgspec

from loaderd import storage
from loaderd.cache.layout import Head
from loaderd.spec import url as urls
from loaderd.spec.load import Load, Pil

_MAX_FOLDER = 300
"""Characters that are kept of a path's end, as the header has one page."""

_MAX_KEYS = 64
"""Folders that are tried: the stream's own and its ancestors."""


def head(load: Load, folder: str, decoders: str) -> Head:
    """The header of an empty cache.

    Args:
        load: how its images are decoded and resized.
        folder: of their files, for display.
        decoders: versions of the decoding libraries.
    """
    about = {"directory": folder[-_MAX_FOLDER:], **_recipe(load, decoders)}
    return Head(math.prod(load.array_shape) + load.extra_bytes, about)


def _recipe(load: Load, decoders: str) -> dict[str, Any]:
    """All that decides an image's bytes; ``channels`` is for arrays, which are not cached."""
    recipe = {**msgspec.structs.asdict(load), "decoders": decoders}
    del recipe["pil"], recipe["channels"]
    if not load.sized:
        del recipe["sized"]
    if load.pil != Pil():  # they decide which images can be read
        pil = hashlib.blake2b(msgspec.json.encode(load.pil), digest_size=8)
        recipe["pil"] = pil.hexdigest()
    return recipe


def folder_of(directory: str) -> str:
    """The real path of the folder of a dataset's files.

    Args:
        directory: the dataset's, or its URL; a file if it has only one, empty if unknown.
    """
    if urls.is_url(directory):
        return directory
    with storage.asking(directory):
        real = os.path.realpath(directory or os.sep)
        return real if os.path.isdir(real) else os.path.dirname(real)


def keys(load: Load, folder: str, decoders: str) -> tuple[str, ...]:
    """The names of the caches that may hold the images: of the folder, then of its ancestors.

    The rows of a table that one fold reads may all lie in one subfolder of the whole.
    """
    recipe = json.dumps(_recipe(load, decoders)).encode("ascii")
    names = (recipe + os.fsencode(above) for above in _above(folder)[:_MAX_KEYS])
    return tuple(hashlib.blake2b(name, digest_size=16).hexdigest() for name in names)


def _above(folder: str) -> list[str]:
    """A folder and its ancestors, nearest first."""
    found = [folder]
    while (upper := os.path.dirname(found[-1])) != found[-1]:
        found.append(upper)
    return found
