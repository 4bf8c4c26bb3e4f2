"""Reads which shards a folder of MDS has."""

from __future__ import annotations

import json
import os
from typing import Any

import msgspec

from loaderd.errors import BadArchive
from loaderd.ipc.text import printable, readable
from loaderd.sources.ranged import LocalFile
from loaderd.spec.source import Archives

INDEX = "index.json"
"""The file of a folder that names its shards."""


def with_shards(source: Archives) -> Archives:
    """The source with the shards of a folder in the place of the folder.

    Raises:
        BadArchive: a folder has no index, or its shards cannot be read.
    """
    paths: list[str] = []
    for path in source.paths:
        paths += _shards(path) if os.path.isdir(path) else [path]
    return msgspec.structs.replace(source, paths=tuple(paths))


def _shards(folder: str) -> list[str]:
    path = os.path.join(folder, INDEX)
    if not os.path.exists(path):
        raise BadArchive(
            f"{readable(folder)}: it is a folder without {INDEX}, as MDS has it: name archives"
        )
    file = LocalFile(path)
    try:
        listed = json.loads(file.pread(file.nbytes, 0))["shards"]
        return [_shard(folder, one) for one in listed]
    except (ValueError, KeyError, TypeError, RecursionError, OSError) as error:
        if isinstance(error, BadArchive):
            raise
        raise BadArchive(f"{readable(path)}: it is no index of MDS: {error!r:.200}") from error


def _shard(folder: str, shard: Any) -> str:
    name, size = str(shard["raw_data"]["basename"]), int(shard["raw_data"]["bytes"])
    path = os.path.join(folder, name)
    if shard["format"] != "mds" or os.path.isabs(name) or ".." in name.split("/"):
        raise BadArchive(f"{readable(folder)}: {printable(name)} is no shard of MDS")
    if not os.path.exists(path) and shard.get("zip_data"):
        raise BadArchive(
            f"{readable(folder)}: {printable(name)} is there as compressed by "
            f"{shard['compression']} alone, and no sample can be read by itself: write the shards "
            "again with compression=None, as images gain nothing by it"
        )
    there = LocalFile(path).nbytes
    if there != size:
        raise BadArchive(
            f"{readable(path)}: it is truncated or damaged: it has {there:,} bytes, and {INDEX} "
            f"says {size:,}"
        )
    return path
