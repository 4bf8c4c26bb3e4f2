"""Which cache holds a stream's images: what decides their bytes, and where their files lie.

Streams that decode alike share one cache for all files below a folder, whichever of them they
choose and whatever they do with the images afterwards.
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
from loaderd.spec.load import Load, Pil

_LONGEST = 300
"""Characters of a path of which people see the end: the header has one page."""

_MAX_KEYS = 64
"""Folders that are tried: the stream's own, and those above it."""


def head(load: Load, folder: str, decoders: str) -> Head:
    """The header of a cache in which nothing is yet.

    Args:
        load: how its images are decoded and resized.
        folder: where their files lie, for people.
        decoders: versions of the libraries that decode.
    """
    about = {"directory": folder[-_LONGEST:], **_recipe(load, decoders)}
    return Head(math.prod(load.array_shape), about)


def _recipe(load: Load, decoders: str) -> dict[str, Any]:
    """All that decides an image's bytes; ``channels`` are those of arrays, which are not kept."""
    recipe = {**msgspec.structs.asdict(load), "decoders": decoders}
    del recipe["pil"], recipe["channels"]
    if load.pil != Pil():  # by these an image is read that otherwise is not
        pil = hashlib.blake2b(msgspec.json.encode(load.pil), digest_size=8)
        recipe["pil"] = pil.hexdigest()
    return recipe


def folder_of(directory: str) -> str:
    """The real path of the folder in which a dataset's files lie.

    Args:
        directory: the dataset's; a file where it has but one, and empty where nobody says.
    """
    with storage.asking(directory):
        real = os.path.realpath(directory or os.sep)
        return real if os.path.isdir(real) else os.path.dirname(real)


def keys(load: Load, folder: str, decoders: str) -> tuple[str, ...]:
    """The names of the caches that may hold the images: the folder's own comes first.

    The part of a table that is read in one fold may lie in one of the folders of the whole; so
    a cache of a folder above will do, the nearest first.
    """
    recipe = json.dumps(_recipe(load, decoders)).encode("ascii")
    return tuple(_key(recipe, above) for above in _above(folder)[:_MAX_KEYS])


def _above(folder: str) -> list[str]:
    """A folder, and all those in which it lies."""
    found = [folder]
    while (upper := os.path.dirname(found[-1])) != found[-1]:
        found.append(upper)
    return found


def _key(recipe: bytes, folder: str) -> str:
    return hashlib.blake2b(recipe + os.fsencode(folder), digest_size=16).hexdigest()
