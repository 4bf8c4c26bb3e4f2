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
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from loaderd.ipc.manifest import Location, MemberCodec
from loaderd.sources import delta, hybrid, thrift
from loaderd.sources.page_content import PREFIX, ColumnPage, PageContent, content_of
from loaderd.sources.ranged import RangedFile
from loaderd.sources.window import RangedWindow

NULL = Location(0, 0, 0, 0, codec=MemberCodec.ABSENT)
"""That of a value which is not there."""

_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3
_PLAIN, _PLAIN_DICTIONARY, _RLE, _DELTA_LENGTHS, _RLE_DICTIONARY = 0, 2, 3, 6, 8
_MAX_HEADER = 2**24
_LARGE = 2**26
_large_pages = threading.Lock()
"""Only one page beyond so many bytes is in memory, whatever number of files is indexed at once."""


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
                content_of(file, window, page, chunk.codec),
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


def _pages(window: RangedWindow, chunk: ColumnChunk) -> Iterator[ColumnPage]:
    at, end = chunk.start, chunk.start + chunk.nbytes
    while at < end:
        header, at = _header(window, at)
        size, stored = thrift.number(header, 2), thrift.number(header, 3)
        if not (0 <= size < 2**31 and 0 <= stored <= end - at):
            raise ValueError(f"it is damaged: the page at byte {at} goes beyond its column")
        yield ColumnPage(header, at, stored, size)
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

    content: PageContent
    present: NDArray[np.bool_]
    encoding: int


def _opened(
    file: RangedFile, window: RangedWindow, page: ColumnPage, chunk: ColumnChunk
) -> _Values:
    """The values of a page, without the levels before them."""
    if thrift.number(page.header, 1) == _DATA_V2:
        return _opened_v2(file, window, page, chunk)
    about = thrift.inner(page.header, 5)
    count, encoding = _count(about, chunk.values), thrift.number(about, 2)
    content = content_of(file, window, page, chunk.codec)
    if not chunk.max_level:
        return _Values(content, np.ones(count, np.bool_), encoding)
    if thrift.number(about, 3) != _RLE:
        raise ValueError("it has levels that are not run-length encoded: write it again")
    size = int.from_bytes(content.read(PREFIX, content.start), "little")
    start = content.start + PREFIX + size
    if start > content.end:
        raise ValueError("it is damaged: a page has no room for its levels")
    present = _present(content.read(size, content.start + PREFIX), chunk.max_level, count)
    return _Values(content._replace(start=start), present, encoding)


def _opened_v2(
    file: RangedFile, window: RangedWindow, page: ColumnPage, chunk: ColumnChunk
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
    return _Values(content_of(file, window, rest, codec), present, thrift.number(about, 4))


def _present(levels: bytes, max_level: int, count: int) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = hybrid.numbers(levels, max_level.bit_length(), count) == max_level
    return found


def _count(about: thrift.Struct, most: int) -> int:
    count = thrift.number(about, 1)
    if not 0 <= count <= most:
        raise ValueError("it is damaged: a page has more values than its column")
    return count


def _values(values: _Values, dictionary: list[Location]) -> Iterator[Location]:
    """Where the values of a page lie, nulls included."""
    content, count = values.content, int(values.present.sum())
    if values.encoding == _PLAIN:
        found = _plain(content, count)
    elif values.encoding in (_PLAIN_DICTIONARY, _RLE_DICTIONARY):
        found = _of_dictionary(content, count, dictionary)
    elif values.encoding == _DELTA_LENGTHS:
        found = _behind_lengths(content, count)
    else:
        raise ValueError(
            f"its images are encoded by method {values.encoding}, which scatters their bytes: "
            "write it again, with the encoding PLAIN"
        )
    if count == len(values.present):
        yield from found
    else:
        yield from (next(found) if there else NULL for there in values.present.tolist())


def _plain(content: PageContent, count: int) -> Iterator[Location]:
    at = content.start
    for _ in range(count):
        first = at + PREFIX
        at = first + int.from_bytes(content.read(PREFIX, at), "little")
        if at > content.end:
            raise ValueError("it is damaged: a value of a page goes beyond it")
        yield content.locate(first, at) if at > first else Location(0, 0, 0, 0)


def _behind_lengths(content: PageContent, count: int) -> Iterator[Location]:
    """Values that follow the lengths of all of them."""
    lengths: list[int] = []
    at = content.start
    if count:
        found, at = delta.differences(content.read, at, count)
        lengths = found.tolist()
    if len(lengths) != count or min(lengths, default=0) < 0:
        raise ValueError("it is damaged: a page has other lengths than values")
    for size in lengths:
        first, at = at, at + size
        if at > content.end:
            raise ValueError("it is damaged: a value of a page goes beyond it")
        yield content.locate(first, at) if size else Location(0, 0, 0, 0)


def _of_dictionary(
    content: PageContent, count: int, dictionary: list[Location]
) -> Iterator[Location]:
    data = content.read(content.end - content.start, content.start)
    if count and not data:
        raise ValueError("it is damaged: a page is empty")
    numbers = hybrid.numbers(data[1:], data[0], count) if count else np.empty(0, np.int64)
    if count and numbers.max() >= len(dictionary):
        raise ValueError("it is damaged: a page has values that its dictionary has not")
    return (dictionary[number] for number in numbers.tolist())
