"""Finds the fields of messages of Protocol Buffers where they lie, without reading their values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

Read = Callable[[int, int], bytes]
"""(count, at) → bytes; fewer where the file ends."""

_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5
_MAX_VARINT = 10


class ProtobufField(NamedTuple):
    """A field of a message.

    Attributes:
        number: its number.
        is_bytes: whether it is a text, bytes or a message; else it is a number.
        first: of its value in the file, in bytes.
        last: behind it.
    """

    number: int
    is_bytes: bool
    first: int
    last: int


def fields(read: Read, first: int, last: int) -> Iterator[ProtobufField]:
    """The fields of a message.

    Args:
        read: reads what the message is in.
        first: where it begins, in bytes.
        last: behind it.

    Raises:
        ValueError: it is damaged.
    """
    at = first
    while at < last:
        head = read(2 * _MAX_VARINT, at)
        tag, start = varint(head, 0)
        size, kind = 0, tag & 7
        if kind == _BYTES:
            size, start = varint(head, start)
        elif kind == _VARINT:
            size = varint(head, start)[1] - start
        elif kind in (_FIXED_64, _FIXED_32):
            size = 8 if kind == _FIXED_64 else 4
        else:
            raise ValueError(f"it is damaged: there is no field at byte {at}")
        field = ProtobufField(tag >> 3, kind == _BYTES, at + start, at + start + size)
        at = field.last
        if at > last:
            raise ValueError(f"it is damaged: a field goes beyond its record, to byte {at}")
        yield field


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A whole number of 64 bits without a sign, and where it ends."""
    number = 0
    for place in range(_MAX_VARINT):
        if at + place >= len(data):
            break
        byte = data[at + place]
        number |= (byte & 127) << 7 * place
        if byte < 128:
            return number & 2**64 - 1, at + place + 1
    raise ValueError("it is damaged: a number of a record has no end")
