"""Where the bytes of an Arrow column lie in the files that this process has mapped.

pyarrow is not imported here: a program that has such a column has imported it.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loaderd.errors import InvalidArgument
from loaderd.ipc.manifest import Archive, Location, MemberCodec

_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) r\S+ ([0-9a-f]+) \S+ [0-9]+ +(/.*)")
_ESCAPED = re.compile(r"\\([0-7]{3})")
_WIDTHS: dict[str, type[np.signedinteger[Any]]] = {
    "binary": np.int32,
    "large_binary": np.int64,
}
"""Of the offsets of values, by the types of their columns."""

_COMPARED = 64

BINARY = tuple(_WIDTHS)
"""The types of columns of bytes."""


class _Mapping(NamedTuple):
    """A range of addresses that shows a file."""

    start: int
    end: int
    offset: int
    path: str


class MappedFiles:
    """The files that this process has mapped, as :file:`/proc/self/maps` tells.

    Attributes:
        archives: those that were asked for.
    """

    def __init__(self) -> None:
        with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as lines:
            matches = [_MAPPING.fullmatch(line.rstrip("\n")) for line in lines]
        self._mappings = [_mapping(one) for one in matches if one is not None]
        self._starts = [one.start for one in self._mappings]
        self.archives: list[Archive] = []
        self._numbers: dict[str, int] = {}

    def place(self, buffer: Any, first: int, last: int) -> tuple[int, int] | None:
        """The number of the archive that a part of a buffer shows, and the part's offset in it.

        None if no file has it, or one that is deleted or replaced.

        Args:
            buffer: pyarrow's.
            first: of the part, in bytes.
            last: behind it.
        """
        address = buffer.address + first
        number = bisect_right(self._starts, address) - 1
        if number < 0 or buffer.address + last > self._mappings[number].end:
            return None
        mapping = self._mappings[number]
        offset = address - mapping.start + mapping.offset
        try:
            if not _holds(mapping.path, offset, memoryview(buffer)[first:last]):
                return None
            return self._archive(mapping.path), offset
        except OSError:
            return None

    def _archive(self, path: str) -> int:
        if path not in self._numbers:
            status = os.stat(path)
            self._numbers[path] = len(self.archives)
            self.archives.append(Archive(path, status.st_size, status.st_mtime_ns))
        return self._numbers[path]


def _holds(path: str, offset: int, part: memoryview) -> bool:
    """Whether a file has these bytes, by the first and the last of them.

    Inode numbers would not do: some file systems show others in the mapping than in the status.
    """
    ends = {at: bytes(part[at : at + _COMPARED]) for at in (0, max(0, len(part) - _COMPARED))}
    with open(path, "rb", buffering=0) as file:
        return all(
            os.pread(file.fileno(), len(some), offset + at) == some for at, some in ends.items()
        )


def _mapping(found: re.Match[str]) -> _Mapping:
    start, end, offset, path = found.groups()
    plain = _ESCAPED.sub(lambda code: chr(int(code[1], 8)), path)
    return _Mapping(int(start, 16), int(end, 16), int(offset, 16), plain)


def locations(chunks: Sequence[Any], files: MappedFiles) -> NDArray[np.int64]:
    """Where the values of a column of bytes lie: (n, 8), fields as in ``Location``.

    Args:
        chunks: pyarrow's arrays of binary or large binary.
        files: those that are mapped.

    Raises:
        InvalidArgument: some lie in no file.
    """
    none = np.empty((0, len(Location._fields)), np.int64)
    return np.concatenate([none, *(_of_chunk(chunk, files) for chunk in chunks)])


def _of_chunk(chunk: Any, files: MappedFiles) -> NDArray[np.int64]:
    found = np.zeros((len(chunk), len(Location._fields)), np.int64)
    found[:, Location._fields.index("crc")] = -1
    codecs = found[:, Location._fields.index("codec")]
    codecs[:] = np.where(chunk.is_valid().to_numpy(zero_copy_only=False), 0, MemberCodec.ABSENT)
    _, offsets, data = chunk.buffers()
    if data is None or not len(chunk):
        return found
    width = _WIDTHS[str(chunk.type)]
    ends = np.frombuffer(offsets, width, len(chunk) + 1, chunk.offset * np.dtype(width).itemsize)
    first, last = int(ends[0]), int(ends[-1])
    if first == last:
        return found
    place = files.place(data, first, last)
    if place is None:
        raise InvalidArgument(
            "`dataset` has images that lie in the memory of this program, not in a file: save it "
            "with `dataset.save_to_disk(folder)`, and give what `datasets.load_from_disk(folder)` "
            "returns"
        )
    sizes = np.diff(ends)
    found[:, 0], found[:, 1] = place[0], ends[:-1].astype(np.int64) - first + place[1]
    found[:, 2] = found[:, 3] = sizes
    return found
