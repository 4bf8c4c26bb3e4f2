"""Reads numbers of few bits as Parquet packs them: runs of one number, and groups of eight."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_MAX_WIDTH = 32
_MAX_BYTES = 5
"""Of a number of 32 bits in groups of seven."""


def numbers(data: bytes, width: int, count: int) -> NDArray[np.int64]:
    """The numbers.

    Args:
        data: what they are packed in.
        width: bits of a number.
        count: how many there are.

    Raises:
        ValueError: the data is damaged.
    """
    if not 0 <= width <= _MAX_WIDTH:
        raise ValueError(f"it is damaged: a page has numbers of {width} bits")
    parts: list[NDArray[np.int64]] = []
    at = found = 0
    while found < count:
        head, at = _head(data, at)
        part, at = (_groups if head & 1 else _run)(data, at, width, head >> 1, count - found)
        found += len(part)
        parts.append(part)
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def _head(data: bytes, at: int) -> tuple[int, int]:
    number = 0
    for place, byte in enumerate(data[at : at + _MAX_BYTES]):
        number |= (byte & 127) << 7 * place
        if byte < 128:
            return number, at + place + 1
    raise ValueError("it is damaged: a page has fewer numbers than it should")


def _run(data: bytes, at: int, width: int, length: int, most: int) -> tuple[NDArray[np.int64], int]:
    """One number, ``length`` times."""
    end = at + -(-width // 8)
    if not length or end > len(data):
        raise ValueError("it is damaged: a page has a run of numbers without any")
    return np.full(min(length, most), int.from_bytes(data[at:end], "little"), np.int64), end


def _groups(
    data: bytes, at: int, width: int, groups: int, most: int
) -> tuple[NDArray[np.int64], int]:
    """Eight numbers in each group; of the last one, fewer may be meant."""
    groups = min(groups, -(-most // 8))
    end = at + groups * width
    if not groups or end > len(data):
        raise ValueError("it is damaged: a page has fewer numbers than it should")
    if not width:
        return np.zeros(most, np.int64), end
    bits = np.unpackbits(np.frombuffer(data, np.uint8, groups * width, at), bitorder="little")
    weights = np.left_shift(1, np.arange(width, dtype=np.int64))
    found: NDArray[np.int64] = bits.reshape(-1, width).astype(np.int64) @ weights
    return found[:most], end
