"""Memory that is used again for each sample."""

from __future__ import annotations

import numpy as np

_LARGEST = 1 << 26  # bytes; a larger file or picture has memory of its own


class Scratch:
    """Memory that grows to the largest sample."""

    def __init__(self) -> None:
        self._memory = _memory(1 << 16)

    def take(self, size: int) -> memoryview:
        """The first ``size`` bytes; the next call gives the same ones away again."""
        if size > len(self._memory):
            if size > _LARGEST:
                return _memory(size)
            self._memory = _memory(min(size + size // 2, _LARGEST))
        return self._memory[:size]


def _memory(size: int) -> memoryview:
    """Bytes that take no room before they are written."""
    return np.empty(size, np.uint8).data
