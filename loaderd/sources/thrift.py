"""Reads structures of Thrift's compact protocol, which is what Parquet's headers are written in."""

from __future__ import annotations

from typing import Any

Struct = dict[int, Any]
"""Values by the numbers of their fields."""

_TRUE, _FALSE, _BYTE, _I64, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 6, 7, 8, 9, 10, 12
_MAX_DEPTH = 16
_MAX_BYTES = 10
"""Of a number of 64 bits."""


class Truncated(ValueError):
    """The structure goes on behind the bytes that are there."""


class StructReader:
    """Reads structures from bytes.

    Args:
        data: the bytes.

    Attributes:
        at: where it is in them.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def struct(self, depth: int = 0) -> Struct:
        """The structure that begins here.

        Raises:
            Truncated: there are not enough bytes.
            ValueError: it is none.
        """
        if depth > _MAX_DEPTH:
            raise ValueError("it is damaged: a header has too many levels")
        found: Struct = {}
        number = 0
        while head := self._byte():
            kind = head & 15
            number = number + (head >> 4) if head >> 4 else self._number()
            found[number] = kind == _TRUE if kind <= _FALSE else self._value(kind, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if kind == _BYTE:
            return self._byte()
        if _BYTE < kind <= _I64:
            return self._number()
        if kind == _DOUBLE:
            return self._take(8)
        if kind == _BINARY:
            return self._take(self._varint())
        if kind in (_LIST, _SET):
            return self._list(depth)
        if kind == _STRUCT:
            return self.struct(depth + 1)
        raise ValueError(f"it is damaged: a header has a value of the unknown type {kind}")

    def _list(self, depth: int) -> list[Any]:
        head = self._byte()
        kind, count = head & 15, head >> 4
        count = self._varint() if count == 15 else count
        if count > len(self._data):  # each takes a byte or more
            raise Truncated
        if kind in (_TRUE, _FALSE):
            return [self._byte() == _TRUE for _ in range(count)]
        return [self._value(kind, depth + 1) for _ in range(count)]

    def _byte(self) -> int:
        return self._take(1)[0]

    def _take(self, count: int) -> bytes:
        found = self._data[self.at : self.at + count]
        if len(found) < count:
            raise Truncated
        self.at += count
        return found

    def _varint(self) -> int:
        number = 0
        for place in range(_MAX_BYTES):
            byte = self._byte()
            number |= (byte & 127) << 7 * place
            if byte < 128:
                return number
        raise ValueError("it is damaged: a number of a header has no end")

    def _number(self) -> int:
        """A number with a sign, which is in its lowest bit."""
        number = self._varint()
        return number >> 1 ^ -(number & 1)


def number(of: Struct, field: int, default: int = -1) -> int:
    """A field that is a whole number; the default if it is not there, or is something else."""
    found = of.get(field)
    return found if isinstance(found, int) else default


def inner(of: Struct, field: int) -> Struct:
    """A field that is a structure; an empty one if it is not there, or is something else."""
    found = of.get(field)
    return found if isinstance(found, dict) else {}


def text(of: Struct, field: int) -> bytes:
    """A field that is bytes; none if it is not there, or is something else."""
    found = of.get(field)
    return found if isinstance(found, bytes) else b""
