"""Reads which shards a folder of MDS has, on a disk or in an object store."""

from __future__ import annotations

import json
import os
from typing import Any

import msgspec

from loaderd import storage
from loaderd.errors import BadArchive, LoaderdError
from loaderd.ipc.text import printable, readable
from loaderd.sources.ranged import LocalFile
from loaderd.sources.remote_file import open_ranged
from loaderd.sources.retries import Retries
from loaderd.spec import url as urls
from loaderd.spec.source import Archives

INDEX = "index.json"
"""The file of a folder that names its shards."""

_EXTENSION = ".mds"


def with_shards(source: Archives, retries: Retries) -> Archives:
    """The source with the shards of a folder in the place of the folder.

    A URL is that of a folder if it ends with a slash, or if shards are asked for and it is none.

    Args:
        source: which may name folders.
        retries: for an object store.

    Raises:
        BadArchive: a folder has no index, or its shards cannot be read.
        StorageRefused: an object store refuses.
        StorageTimeout: an object store cannot be reached.
    """
    paths: list[str] = []
    for path in source.paths:
        with storage.asking(path):
            is_folder = os.path.isdir(path)
        if urls.is_url(path):
            is_asked = source.layout == "mds" and not urls.shown(path).endswith(_EXTENSION)
            is_folder = path.endswith("/") or is_asked
        paths += _shards(path, retries) if is_folder else [path]
    return msgspec.structs.replace(source, paths=tuple(paths))


def _shards(folder: str, retries: Retries) -> list[str]:
    path = os.path.join(folder, INDEX)
    shown = readable(urls.shown(folder))
    if not (urls.is_url(folder) or os.path.exists(path)):
        raise BadArchive(f"{shown}: it is a folder without {INDEX}, as MDS has it: name archives")
    file = open_ranged(path, retries)
    try:
        listed = json.loads(file.pread(file.nbytes, 0))["shards"]
        return [_shard(folder, one) for one in listed]
    except (ValueError, KeyError, TypeError, RecursionError, OSError) as error:
        if isinstance(error, LoaderdError):
            raise
        raise BadArchive(f"{shown}: its {INDEX} is none of MDS: {error!r:.200}") from error


def _shard(folder: str, shard: Any) -> str:
    name, size = str(shard["raw_data"]["basename"]), int(shard["raw_data"]["bytes"])
    path, shown = os.path.join(folder, name), readable(urls.shown(folder))
    if shard["format"] != "mds" or os.path.isabs(name) or ".." in name.split("/"):
        raise BadArchive(f"{shown}: {printable(name)} is no shard of MDS")
    if urls.is_url(folder):
        return path  # whoever opens it sees what is there
    if not os.path.exists(path) and shard.get("zip_data"):
        raise BadArchive(
            f"{shown}: {printable(name)} is there as compressed by {shard['compression']} alone, "
            "and no sample can be read by itself: write the shards again with compression=None, as "
            "images gain nothing by it"
        )
    there = LocalFile(path).nbytes
    if there != size:
        raise BadArchive(
            f"{readable(path)}: it is truncated or damaged: it has {there:,} bytes, and {INDEX} "
            f"says {size:,}"
        )
    return path
