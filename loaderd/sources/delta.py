"""Reads whole numbers that Parquet has written as differences (``DELTA_BINARY_PACKED``).

Blocks of some miniblocks follow one another. A block has the least of its differences, and for each
miniblock how many bits a difference takes beyond it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from loaderd.sources.protobuf import varint

_HEAD = 40
"""Bytes of four numbers."""

_MAX_BLOCK = 2**16
_DAMAGED = "it is damaged: lengths of a page cannot be read"

Read = Callable[[int, int], bytes]
"""(count, at) → bytes; fewer where the page ends."""


def differences(read: Read, at: int, most: int) -> tuple[NDArray[np.int64], int]:
    """The numbers, and where they end.

    Args:
        read: reads the page.
        at: where they begin in it, in bytes.
        most: numbers that there may be.

    Raises:
        ValueError: they are damaged.
    """
    head = read(_HEAD, at)
    block, used = varint(head, 0)
    minis, used = varint(head, used)
    count, used = varint(head, used)
    first, used = varint(head, used)
    if not (0 < minis <= block <= _MAX_BLOCK and block % (8 * minis) == 0 and count <= most):
        raise ValueError(_DAMAGED)
    at += used
    parts = [np.array([_signed(first)], np.int64)]
    left = count - 1
    while left > 0:
        found, at = _block(read, at, (block // minis, minis), left)
        parts.append(found)
        left -= len(found)
    return np.cumsum(np.concatenate(parts))[:count], at


def _block(read: Read, at: int, shape: tuple[int, int], left: int) -> tuple[NDArray[np.int64], int]:
    """The differences of a block; miniblocks without any are not there."""
    size, minis = shape
    head = read(10 + minis, at)
    number, used = varint(head, 0)
    widths = head[used : used + minis]
    if len(widths) < minis or max(widths) > 64:
        raise ValueError(_DAMAGED)
    at += used + minis
    parts = []
    for width in widths[: -(-left // size)]:
        nbytes = size * width // 8
        data = read(nbytes, at)
        if len(data) < nbytes:
            raise ValueError(_DAMAGED)
        parts.append(_unpacked(data, width, size))
        at += nbytes
    found = np.concatenate(parts)[:left] + np.uint64(_signed(number) & 2**64 - 1)  # wraps, as meant
    return found.view(np.int64), at


def _unpacked(data: bytes, width: int, count: int) -> NDArray[np.uint64]:
    if not width:
        return np.zeros(count, np.uint64)
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little").reshape(count, width)
    found: NDArray[np.uint64] = bits.astype(np.uint64) @ np.left_shift(
        np.uint64(1), np.arange(width, dtype=np.uint64)
    )
    return found


def _signed(number: int) -> int:
    """A number with a sign, which is in its lowest bit."""
    return number >> 1 ^ -(number & 1)
