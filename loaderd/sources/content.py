"""The content of a member from the bytes that are stored of it."""

from __future__ import annotations

import zlib

from loaderd.ipc.manifest import Location, MemberCodec
from loaderd.sources.codecs import unpacked
from loaderd.sources.member import Member


def content(stored: bytes | memoryview, wanted: Location | Member) -> bytes | memoryview:
    """The content, of which size and checksum are compared.

    Args:
        stored: the bytes in the archive.
        wanted: how they are packed.

    Raises:
        MissingDependency: a package that decompresses them is not installed.
        ValueError: it is damaged, or absent.
    """
    found = stored if wanted.codec == MemberCodec.STORED else _decoded(stored, wanted)
    if len(found) != wanted.size:
        raise ValueError(f"it is damaged: it has {len(found)} bytes in the place of {wanted.size}")
    if wanted.crc >= 0 and zlib.crc32(found) != wanted.crc:
        raise ValueError("it is damaged: its checksum differs")
    return found


def _decoded(stored: bytes | memoryview, wanted: Location | Member) -> bytes | memoryview:
    if wanted.codec == MemberCodec.ABSENT:
        raise ValueError("there is no image: the value is null")
    if len(stored) != wanted.stored:
        raise ValueError(f"it is damaged: {len(stored)} bytes of {wanted.stored} are there")
    if wanted.codec == MemberCodec.DEFLATE:
        return _inflated(stored, wanted.size)
    decoded = unpacked(MemberCodec(wanted.codec), stored, wanted.unpacked)
    return decoded[wanted.skip : wanted.skip + wanted.size]


def _inflated(stored: bytes | memoryview, size: int) -> bytes:
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(stored, size + 1)
    except zlib.error as error:
        raise ValueError(f"it is damaged: {error}") from error
