"""Finds the images and labels of MDS, the format of MosaicML's Streaming.

A shard has the number of its samples, their offsets, and its columns as JSON before them. A sample
has the sizes of those of its columns whose size differs from sample to sample, and then the values
of all, one behind the other.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import msgspec
import numpy as np

from loaderd.sources.index_file import ArchiveSamples
from loaderd.sources.labels import checked
from loaderd.sources.member import Member
from loaderd.sources.ranged import RangedFile
from loaderd.sources.window import RangedWindow

_IMAGES, _LABELS = ("image", "jpg", "png"), ("label", "class", "cls")
_ENCODED = ("jpeg", "png", "bytes")
_WHOLE = {"int": "<i8", "bool": "|b1"} | {
    f"{sign}int{bits}": f"<{sign or 'i'}{bits // 8}"
    for sign in ("", "u")
    for bits in (8, 16, 32, 64)
}
"""NumPy's types of whole numbers by their encodings."""

_COUNT = struct.Struct("<I")
_MAX_ABOUT = 2**20
_MAX_LABEL = 2**16


class MdsColumn(NamedTuple):
    """A column of a shard.

    Attributes:
        name: its name.
        encoding: of its values.
        size: of each in bytes; None if it differs.
    """

    name: str
    encoding: str
    size: int | None


class MdsValue(NamedTuple):
    """Where the value of a sample lies in the shard, in bytes."""

    at: int
    size: int


def is_one(file: RangedFile) -> bool:
    """Whether a file is a shard."""
    try:
        _columns(file, *_places(file))
    except ValueError:
        return False
    return True


def samples(
    file: RangedFile, columns: Sequence[str], label: str | None, progress: Callable[[int], None]
) -> ArchiveSamples:
    """The samples of a shard.

    Args:
        file: the shard.
        columns: those that may hold images, of which the first that is there counts; empty for the
            usual names.
        label: the column of the labels; ``auto`` for the usual names, None for none.
        progress: called with how many bytes of the file were looked through.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged, or has no such columns.
    """
    count, first = _places(file)
    found = _columns(file, count, first)
    image = _column(found, columns or _IMAGES, "image")
    if found[image].encoding not in _ENCODED:
        raise ValueError(
            f"its column {found[image].name!r} is encoded as {found[image].encoding}, and images "
            f"are read that are encoded as {', '.join(_ENCODED)}: write it again as one of these"
        )
    named = None
    if label is not None:
        named = _column(found, _LABELS if label == "auto" else (label,), "label")
    images: list[Member] = []
    labels: list[int | str | None] = []
    window = RangedWindow(file)
    for number, values in enumerate(_samples(file, count, found)):
        at, size = values[image]
        images.append(Member(str(number), at, size, size))
        if named is not None:
            labels.append(_label(window, found[named], values[named]))
        progress(values[-1].at)
    progress(file.nbytes)
    asked = None if named is None else found[named].name
    checked_labels = checked(labels, f"its column {asked!r}", "sample") if asked else None
    return ArchiveSamples("mds" if images else None, asked, images, checked_labels)


def _places(file: RangedFile) -> tuple[int, int]:
    """How many samples there are, and where the first one begins."""
    head = file.pread(2 * _COUNT.size, 0)
    if len(head) < 2 * _COUNT.size:
        raise ValueError("it is truncated, or is no shard of MDS")
    count, first = struct.unpack("<2I", head)
    about = _about_at(count)
    if not about < first <= min(file.nbytes, about + _MAX_ABOUT):
        raise ValueError("it is damaged, or is no shard of MDS: its columns are not there")
    return count, first


def _about_at(count: int) -> int:
    """Where the columns are described: behind the number of samples and the offsets."""
    return _COUNT.size * (count + 2)


def _columns(file: RangedFile, count: int, first: int) -> list[MdsColumn]:
    at = _about_at(count)
    try:
        about = json.loads(file.pread(first - at, at))
        parts = (about["column_names"], about["column_encodings"], about["column_sizes"])
        found = msgspec.convert(list(zip(*parts, strict=True)), list[MdsColumn])
        if about["format"] != "mds" or min((one.size or 0 for one in found), default=-1) < 0:
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            "it is damaged, or is no shard of MDS: its columns cannot be read"
        ) from error
    return found


def _column(found: Sequence[MdsColumn], names: Sequence[str], argument: str) -> int:
    there = [one.name for one in found]
    for name in names:
        if name in there:
            return there.index(name)
    asked = " or ".join(map(repr, names))
    more = ", or give label=None" if argument == "label" else ""
    raise ValueError(
        f"it has no column {asked}: it has {', '.join(there)}; name one with `{argument}`{more}"
    )


def _samples(
    file: RangedFile, count: int, columns: Sequence[MdsColumn]
) -> Iterator[list[MdsValue]]:
    """Where the values of each sample lie."""
    window = RangedWindow(file)
    nbytes = _COUNT.size * (count + 1)
    offsets = file.pread(nbytes, _COUNT.size)
    if len(offsets) < nbytes:
        raise ValueError("it is truncated: its offsets are not there")
    ends = np.frombuffer(offsets, "<u4").tolist()
    varying = sum(one.size is None for one in columns)
    for number, (at, end) in enumerate(pairwise(ends)):
        head = window.read(_COUNT.size * varying, at)
        sizes = iter(np.frombuffer(head[: len(head) // 4 * 4], "<u4").tolist())
        place, found = at + len(head), []
        for column in columns:
            size = column.size if column.size is not None else next(sizes, 0)
            found.append(MdsValue(place, size))
            place += size
        if place != end or end > file.nbytes:
            raise ValueError(f"it is truncated or damaged: sample {number} ends at byte {place}")
        yield found


def _label(window: RangedWindow, column: MdsColumn, value: MdsValue) -> int | str | None:
    if value.size > _MAX_LABEL:
        return None
    data = window.read(value.size, value.at)
    kind = _WHOLE.get(column.encoding)
    if kind is not None:
        return int(np.frombuffer(data, kind)[0]) if len(data) == np.dtype(kind).itemsize else None
    text = data.decode(errors="replace")
    if column.encoding == "str_int":
        return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
    return text if column.encoding == "str" else None
