"""Finds where the values of a column of bytes lie in a Parquet file.

A column chunk is a row of pages: at most one with a dictionary, then those with values, or with
numbers of values in the dictionary. Values are bytes with their length before them, one behind the
other, compressed page by page. A value is found once, when the file is indexed::

    page is            value is
    uncompressed       a range of the file
    by Snappy          a range of the file, or a few elements of the stream around it
    by another codec   a part of the page, which is decompressed as a whole
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from loaderd.ipc.manifest import Location, MemberCodec
from loaderd.sources import hybrid, thrift
from loaderd.sources.codecs import unpacked
from loaderd.sources.ranged import RangedFile
from loaderd.sources.snappy import SnappyElements
from loaderd.sources.window import RangedWindow

NULL = Location(0, 0, 0, 0, codec=MemberCodec.ABSENT)
"""That of a value which is not there."""

_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3
_PLAIN, _PLAIN_DICTIONARY, _RLE, _RLE_DICTIONARY = 0, 2, 3, 8
_MAX_HEADER = 2**24
_MAX_PAGE = 2**30
"""Bytes of a page that is compressed."""

_PREFIX = 4
"""Bytes of the length of a value."""

_LARGE = 2**26
_large_pages = threading.Lock()
"""Only one page beyond so many bytes is in memory, whatever number of files is indexed at once."""

Read = Callable[[int, int], bytes]
"""(count, at) → bytes."""


class ColumnChunk(NamedTuple):
    """A column chunk: the values of a column in some of a file's rows.

    Attributes:
        start: of its first page in the file, in bytes.
        nbytes: of all its pages.
        values: how many it has, with nulls.
        codec: of its pages.
        max_level: the definition level of values that are there; 0 if none may be null.
    """

    start: int
    nbytes: int
    values: int
    codec: MemberCodec
    max_level: int


class _ColumnPage(NamedTuple):
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


class _Content(NamedTuple):
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


def locations(file: RangedFile, chunk: ColumnChunk) -> Iterator[Location]:
    """Where the values of a column chunk lie, nulls included, in their order.

    Args:
        file: the file.
        chunk: one of a column of bytes that is no list.

    Raises:
        MissingDependency: a package that decompresses it is not installed.
        OSError: it cannot be read.
        ValueError: it is damaged, or of a form that is not read.
    """
    window = RangedWindow(file)
    dictionary: list[Location] = []
    left = chunk.values
    for page in _pages(window, chunk) if left else ():
        kind = thrift.number(page.header, 1)
        if kind == _DICTIONARY:
            content, count = (
                _content(file, window, page, chunk.codec),
                _count(thrift.inner(page.header, 7), page.size),
            )
            dictionary = list(_plain(content, count))
        elif kind in (_DATA, _DATA_V2):
            with _large_pages if page.size > _LARGE else contextlib.nullcontext():
                found = list(_values(_opened(file, window, page, chunk), dictionary))
            left -= len(found)
            yield from found
        if left <= 0:
            break
    if left:
        raise ValueError(f"it is damaged: {left:,} values of a column are missing, or too many")


def _pages(window: RangedWindow, chunk: ColumnChunk) -> Iterator[_ColumnPage]:
    at, end = chunk.start, chunk.start + chunk.nbytes
    while at < end:
        header, at = _header(window, at)
        size, stored = thrift.number(header, 2), thrift.number(header, 3)
        if not (0 <= size < 2**31 and 0 <= stored <= end - at):
            raise ValueError(f"it is damaged: the page at byte {at} goes beyond its column")
        yield _ColumnPage(header, at, stored, size)
        at += stored


def _header(window: RangedWindow, at: int) -> tuple[thrift.Struct, int]:
    """A page's header, and where its content begins."""
    count = 2**8
    while True:
        data = window.read(count, at)
        reader = thrift.StructReader(data)
        try:
            return reader.struct(), at + reader.at
        except thrift.Truncated:
            if len(data) < count or count > _MAX_HEADER:
                raise ValueError(f"it is damaged: there is no page at byte {at}") from None
        count *= 8


class _Values(NamedTuple):
    """What a page says of its values.

    Attributes:
        content: where they are.
        present: whether each is there, bool (n,).
        encoding: how they are written.
    """

    content: _Content
    present: NDArray[np.bool_]
    encoding: int


def _opened(
    file: RangedFile, window: RangedWindow, page: _ColumnPage, chunk: ColumnChunk
) -> _Values:
    """The values of a page, without the levels before them."""
    if thrift.number(page.header, 1) == _DATA_V2:
        return _opened_v2(file, window, page, chunk)
    about = thrift.inner(page.header, 5)
    count, encoding = _count(about, chunk.values), thrift.number(about, 2)
    content = _content(file, window, page, chunk.codec)
    if not chunk.max_level:
        return _Values(content, np.ones(count, np.bool_), encoding)
    if thrift.number(about, 3) != _RLE:
        raise ValueError("it has levels that are not run-length encoded: write it again")
    size = int.from_bytes(content.read(_PREFIX, content.start), "little")
    start = content.start + _PREFIX + size
    if start > content.end:
        raise ValueError("it is damaged: a page has no room for its levels")
    present = _present(content.read(size, content.start + _PREFIX), chunk.max_level, count)
    return _Values(content._replace(start=start), present, encoding)


def _opened_v2(
    file: RangedFile, window: RangedWindow, page: _ColumnPage, chunk: ColumnChunk
) -> _Values:
    """The same of a page of the second kind, whose levels are not compressed."""
    about = thrift.inner(page.header, 8)
    count = _count(about, chunk.values)
    before, size = thrift.number(about, 6, 0), thrift.number(about, 5, 0)
    if min(before, size) < 0 or before + size > min(page.stored, page.size):
        raise ValueError("it is damaged: a page has no room for its levels")
    present = np.ones(count, np.bool_)
    if chunk.max_level:
        present = _present(window.read(size, page.at + before), chunk.max_level, count)
    levels = before + size
    rest = page._replace(at=page.at + levels, stored=page.stored - levels, size=page.size - levels)
    codec = chunk.codec if about.get(7, True) else MemberCodec.STORED
    return _Values(_content(file, window, rest, codec), present, thrift.number(about, 4))


def _present(levels: bytes, max_level: int, count: int) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = hybrid.numbers(levels, max_level.bit_length(), count) == max_level
    return found


def _count(about: thrift.Struct, most: int) -> int:
    count = thrift.number(about, 1)
    if not 0 <= count <= most:
        raise ValueError("it is damaged: a page has more values than its column")
    return count


def _content(
    file: RangedFile, window: RangedWindow, page: _ColumnPage, codec: MemberCodec
) -> _Content:
    """The content of a page, decompressed if it is compressed."""
    if codec == MemberCodec.STORED:
        return _Content(window.read, page.at, page.at + page.stored, _direct)
    if max(page.stored, page.size) > _MAX_PAGE:
        raise ValueError(f"a page has {page.size:,} bytes: write it again with smaller pages")
    packed = file.pread(page.stored, page.at)
    if len(packed) < page.stored:
        raise ValueError(f"it is truncated: the page at byte {page.at} is not there")
    if codec == MemberCodec.SNAPPY:
        return _of_snappy(packed, page)
    data = bytes(unpacked(codec, packed, page.size))
    return _Content(
        _reading(data),
        0,
        page.size,
        lambda first, last: Location(
            0, page.at, page.stored, last - first, -1, codec, first, page.size
        ),
    )


def _direct(first: int, last: int) -> Location:
    return Location(0, first, last - first, last - first)


def _of_snappy(packed: bytes, page: _ColumnPage) -> _Content:
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
        if count <= _PREFIX:
            return elements.peek(count, at)
        if not whole:
            whole.append(unpacked(MemberCodec.SNAPPY, packed[elements.start :], page.size))
        return bytes(whole[0][at : at + count])

    whole: list[memoryview] = []
    return _Content(read, 0, page.size, locate)


def _reading(data: bytes) -> Read:
    return lambda count, at: data[at : at + count]


def _values(values: _Values, dictionary: list[Location]) -> Iterator[Location]:
    """Where the values of a page lie, nulls included."""
    content, count = values.content, int(values.present.sum())
    if values.encoding == _PLAIN:
        found = _plain(content, count)
    elif values.encoding in (_PLAIN_DICTIONARY, _RLE_DICTIONARY):
        found = _of_dictionary(content, count, dictionary)
    else:
        raise ValueError(
            f"its images are encoded by method {values.encoding}, which scatters their bytes: "
            "write it again, with the encoding PLAIN"
        )
    if count == len(values.present):
        yield from found
    else:
        yield from (next(found) if there else NULL for there in values.present.tolist())


def _plain(content: _Content, count: int) -> Iterator[Location]:
    at = content.start
    for _ in range(count):
        first = at + _PREFIX
        at = first + int.from_bytes(content.read(_PREFIX, at), "little")
        if at > content.end:
            raise ValueError("it is damaged: a value of a page goes beyond it")
        yield content.locate(first, at) if at > first else Location(0, 0, 0, 0)


def _of_dictionary(content: _Content, count: int, dictionary: list[Location]) -> Iterator[Location]:
    data = content.read(content.end - content.start, content.start)
    if count and not data:
        raise ValueError("it is damaged: a page is empty")
    numbers = hybrid.numbers(data[1:], data[0], count) if count else np.empty(0, np.int64)
    if count and numbers.max() >= len(dictionary):
        raise ValueError("it is damaged: a page has values that its dictionary has not")
    return (dictionary[number] for number in numbers.tolist())
