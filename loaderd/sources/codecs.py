"""Decompresses the pages of Parquet files, whole or in part."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

from loaderd.errors import MissingDependency
from loaderd.ipc.manifest import MemberCodec

OWN = (MemberCodec.STORED, MemberCodec.DEFLATE, MemberCodec.ABSENT)
"""Those that need no package."""


def check(used: Iterable[int]) -> None:
    """Raises MissingDependency if a package is not installed that one of the codecs needs."""
    if set(used) - {*OWN}:
        _library()


def unpacked(codec: MemberCodec, packed: bytes | memoryview, nbytes: int) -> memoryview:
    """What was compressed.

    Args:
        codec: one of those that compress.
        packed: the compressed bytes; of Snappy, those behind the length at their beginning.
        nbytes: of the result.

    Raises:
        MissingDependency: cramjam is not installed.
        ValueError: the bytes are damaged.
    """
    library = _library()
    if codec == MemberCodec.SNAPPY:
        packed = varint(nbytes) + packed
    decompress = {
        MemberCodec.SNAPPY: library.snappy.decompress_raw_into,
        MemberCodec.GZIP: library.gzip.decompress_into,
        MemberCodec.ZSTD: library.zstd.decompress_into,
        MemberCodec.LZ4: library.lz4.decompress_block_into,
        MemberCodec.BROTLI: library.brotli.decompress_into,
    }[codec]
    found = memoryview(bytearray(nbytes))
    try:
        count = decompress(packed, found)
    except (library.DecompressionError, ValueError, OSError, OverflowError) as error:
        raise ValueError(f"it is damaged: {error}") from error
    if count != nbytes:
        raise ValueError(f"it is damaged: {count} bytes were compressed in the place of {nbytes}")
    return found


def varint(number: int) -> bytes:
    """A whole number in groups of seven bits, the lowest first."""
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def _library() -> Any:
    try:
        return importlib.import_module("cramjam")
    except ImportError as error:
        raise MissingDependency(
            "cramjam, which decompresses Parquet files, is not installed where the daemon runs: "
            'pip install "loaderd[parquet]"'
        ) from error
