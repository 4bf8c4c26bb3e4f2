"""The content of a page of a Parquet file: its bytes, and where they lie in the file."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from loaderd.ipc.manifest import Location, MemberCodec
from loaderd.sources import thrift
from loaderd.sources.codecs import unpacked
from loaderd.sources.ranged import RangedFile
from loaderd.sources.snappy import SnappyElements
from loaderd.sources.window import RangedWindow

PREFIX = 4
"""Bytes of the length of a value, or of levels."""

_MAX_PAGE = 2**30
"""Bytes of a page that is compressed."""

Read = Callable[[int, int], bytes]
"""(count, at) → bytes."""


class ColumnPage(NamedTuple):
    """A page.

    Attributes:
        header: its header.
        at: of its content in the file, in bytes.
        stored: bytes there.
        size: the same, decompressed.
    """

    header: thrift.Struct
    at: int
    stored: int
    size: int


class PageContent(NamedTuple):
    """The decompressed content of a page.

    Attributes:
        read: its bytes from a place in it on.
        start: of what is left to be read of it.
        end: behind it.
        locate: (first, last) of some bytes in it → where they lie.
    """

    read: Read
    start: int
    end: int
    locate: Callable[[int, int], Location]


def content_of(
    file: RangedFile, window: RangedWindow, page: ColumnPage, codec: MemberCodec
) -> PageContent:
    """The content of a page, decompressed if it is compressed."""
    if codec == MemberCodec.STORED:
        return PageContent(window.read, page.at, page.at + page.stored, _direct)
    if max(page.stored, page.size) > _MAX_PAGE:
        raise ValueError(f"a page has {page.size:,} bytes: write it again with smaller pages")
    packed = file.pread(page.stored, page.at)
    if len(packed) < page.stored:
        raise ValueError(f"it is truncated: the page at byte {page.at} is not there")
    if codec == MemberCodec.SNAPPY:
        return _of_snappy(packed, page)
    data = bytes(unpacked(codec, packed, page.size))
    return PageContent(
        _reading(data),
        0,
        page.size,
        lambda first, last: Location(
            0, page.at, page.stored, last - first, -1, codec, first, page.size
        ),
    )


def _direct(first: int, last: int) -> Location:
    return Location(0, first, last - first, last - first)


def _of_snappy(packed: bytes, page: ColumnPage) -> PageContent:
    elements = SnappyElements(packed)
    if elements.nbytes != page.size:
        raise ValueError(f"it is damaged: the page at byte {page.at} has another length")

    def locate(first: int, last: int) -> Location:
        size, stored = last - first, elements.stored(first, last)
        if stored is not None:
            return Location(0, page.at + stored, size, size)
        (begin, end), (decoded, behind) = elements.part(first, last)
        return Location(
            0,
            page.at + begin,
            end - begin,
            size,
            -1,
            MemberCodec.SNAPPY,
            first - decoded,
            behind - decoded,
        )

    def read(count: int, at: int) -> bytes:
        if count <= PREFIX:
            return elements.peek(count, at)
        if not whole:
            whole.append(unpacked(MemberCodec.SNAPPY, packed[elements.start :], page.size))
        return bytes(whole[0][at : at + count])

    whole: list[memoryview] = []
    return PageContent(read, 0, page.size, locate)


def _reading(data: bytes) -> Read:
    return lambda count, at: data[at : at + count]
