"""Reads a file from the front to the back in few bytes here and there."""

from __future__ import annotations

from loaderd.sources.ranged import RangedFile

_BYTES = 2**14
"""Read at once: small images are found many at a time, and large ones are passed over."""


class RangedWindow:
    """The bytes of a file around those that were read last.

    Args:
        file: the file.
    """

    def __init__(self, file: RangedFile) -> None:
        self._file = file
        self._data = b""
        self._at = 0

    def read(self, count: int, at: int) -> bytes:
        """The bytes from ``at`` on: ``count``, or fewer where the file ends.

        Raises:
            OSError: they cannot be read.
        """
        first = at - self._at
        if first < 0 or first + count > len(self._data):
            self._data, self._at, first = self._file.pread(max(count, _BYTES), at), at, 0
        return self._data[first : first + count]
