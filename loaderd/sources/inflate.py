"""The content of a member from the bytes that are stored of it."""

from __future__ import annotations

import zlib


def content(stored: bytes | memoryview, size: int, crc: int, deflated: int) -> bytes | memoryview:
    """The content, of which size and checksum are compared.

    Args:
        stored: the bytes in the archive.
        size: bytes of the content.
        crc: its checksum; -1 if none is known.
        deflated: whether it is compressed so.

    Raises:
        ValueError: it is damaged.
    """
    found = stored
    if deflated:
        try:
            found = zlib.decompressobj(-zlib.MAX_WBITS).decompress(stored, size + 1)
        except zlib.error as error:
            raise ValueError(f"it is damaged: {error}") from error
    if len(found) != size:
        raise ValueError(f"it is damaged: it has {len(found)} bytes in the place of {size}")
    if crc >= 0 and zlib.crc32(found) != crc:
        raise ValueError("it is damaged: its checksum differs")
    return found
