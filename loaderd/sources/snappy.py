"""Which bytes of a stream of Snappy are needed to decompress a part of it.

A stream is a row of elements: literals, which hold bytes as they are, and copies of bytes before
them. Compressors divide data into fragments of 64 KiB, beyond which no copy reaches, and encoded
images are literals for the most part. So an image of a page needs little more than its own bytes.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

_LONG = 60
"""Literals from this length on have it in the bytes behind their tag."""

_COPY_BYTES = (0, 2, 3, 5)
"""Of an element that is a copy, by the kind of its tag."""


class SnappyPart(NamedTuple):
    """A part of a stream that can be decompressed by itself.

    Attributes:
        packed: (first, last) of its compressed bytes, the last exclusive.
        decoded: the same of the bytes that they give.
    """

    packed: tuple[int, int]
    decoded: tuple[int, int]


class SnappyElements:
    """The elements of a stream.

    Args:
        packed: the stream.

    Attributes:
        nbytes: of the decompressed stream.
        start: where they begin, behind the length of the stream.

    Raises:
        ValueError: it is damaged.
    """

    def __init__(self, packed: bytes) -> None:
        self._packed = packed
        self.nbytes, self.start = _length(packed)
        self._packed_at = [self.start]
        self._decoded_at = [0]
        self._sources: list[int] = []
        """Where the bytes of each element come from; its own place for literals."""
        self._walk()

    def _walk(self) -> None:
        packed, at = self._packed, self.start
        done, total = 0, len(packed)
        while at < total:
            kind = packed[at] & 3
            if kind:
                size, source = _copy(packed, at, done)
                at += _COPY_BYTES[kind]
            else:
                size, at = _literal(packed, at)
                source = done
            done += size
            self._sources.append(source)
            self._packed_at.append(at)
            self._decoded_at.append(done)
        if at != total or done != self.nbytes:
            raise ValueError("it is damaged: a page compressed by Snappy has another length")

    def part(self, first: int, last: int) -> SnappyPart:
        """The least part that has the decompressed bytes from ``first`` to ``last``, exclusive."""
        begin = bisect_right(self._decoded_at, first) - 1
        end = max(begin, bisect_right(self._decoded_at, last - 1) - 1) + 1
        begin = self._begin(begin, end)
        return SnappyPart(
            (self._packed_at[begin], self._packed_at[end]),
            (self._decoded_at[begin], self._decoded_at[end]),
        )

    def _begin(self, begin: int, end: int) -> int:
        """The first of the elements that those up to ``end`` need."""
        least = min(self._sources[begin:end])
        while least < self._decoded_at[begin]:
            before = begin
            begin = bisect_right(self._decoded_at, least) - 1
            least = min(self._sources[begin:before])
        return begin

    def peek(self, count: int, at: int) -> bytes:
        """A few decompressed bytes, found one by one."""
        return bytes(self._byte(place) for place in range(at, min(at + count, self.nbytes)))

    def _byte(self, at: int) -> int:
        while True:
            number = bisect_right(self._decoded_at, at) - 1
            start, source = self._decoded_at[number], self._sources[number]
            if source == start:
                return self._packed[self._packed_at[number + 1] - self._decoded_at[number + 1] + at]
            at = source + (at - start) % (start - source)  # a copy may go on into itself

    def stored(self, first: int, last: int) -> int | None:
        """Where these decompressed bytes stand in the stream, if they are within one literal."""
        number = bisect_right(self._decoded_at, first) - 1
        start, end = self._decoded_at[number : number + 2]
        if last > end or self._sources[number] != start:
            return None
        return self._packed_at[number + 1] - (end - first)


def _length(packed: bytes) -> tuple[int, int]:
    """The length at the beginning of a stream, and where its elements begin."""
    number = 0
    for at, byte in enumerate(packed[:5]):
        number |= (byte & 127) << 7 * at
        if byte < 128:
            return number, at + 1
    raise ValueError("it is damaged: a page compressed by Snappy has no length")


def _literal(packed: bytes, at: int) -> tuple[int, int]:
    """The bytes of a literal, and where it ends."""
    size = packed[at] >> 2
    more = max(0, size - _LONG + 1)
    if more:
        size = int.from_bytes(packed[at + 1 : at + 1 + more], "little")
    return size + 1, at + 1 + more + size + 1


def _copy(packed: bytes, at: int, done: int) -> tuple[int, int]:
    """The bytes of a copy, and where they come from."""
    tag = packed[at]
    kind = tag & 3
    offset = int.from_bytes(packed[at + 1 : at + _COPY_BYTES[kind]], "little")
    size = (tag >> 2) + 1
    if kind == 1:
        size, offset = (tag >> 2 & 7) + 4, (tag >> 5 << 8) + offset
    if not 0 < offset <= done:
        raise ValueError("it is damaged: a page compressed by Snappy copies what is not there")
    return size, done - offset
