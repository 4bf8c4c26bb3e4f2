r"""The samples of a dataset as one table of bytes, which all processes read in place.

The daemon packs it once into shared memory; workers look up paths in it, the client
reads class names, labels and file names. Nothing is copied or parsed per process::

    header | labels   | ends          | locations   | names                    | about | masks
    64 B   | int32(n) | int64(n + 1)  | int64(n, 8) | b"a/1.jpg\0a/2.jpg\0..." | JSON  | a table

Objects of a store have two numbers each in the place of a location. Masks are there only if each
sample has one in an archive; they are a table like this one.

Labels, ends, locations, names and masks begin at multiples of 64 bytes. Name i is the bytes from
``ends[i]`` up to the null before ``ends[i + 1]``. Names are the file system's bytes, which
need not be UTF-8; JSON holds them as escaped surrogates. Locations are there only if the samples
are members of archives. About are the root, the class names and the archives.
"""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from loaderd.errors import ProtocolError

MAGIC = b"loaderdM"
VERSION = 1

_HEADER = struct.Struct("<8sHHIQQQQQQ")
_ALIGN = 64


class MemberCodec(IntEnum):
    """How the bytes of a location are made into those that hold its content."""

    STORED = 0
    DEFLATE = 1
    SNAPPY = 2
    """Whole fragments of a stream of Snappy, without the length at its beginning."""
    GZIP = 3
    ZSTD = 4
    LZ4 = 5
    """A block without a frame."""
    BROTLI = 6
    ABSENT = 7
    """There is no content: a null in the place of an image."""


class Location(NamedTuple):
    """Where a member of an archive lies.

    Attributes:
        archive: its number.
        offset: of the first byte to be read in the archive.
        stored: bytes to be read.
        size: bytes of its content.
        crc: of its content; -1 if none is known.
        codec: see :class:`MemberCodec`.
        skip: decoded bytes before its content, where several members are compressed together.
        unpacked: decoded bytes in all; of a stored or deflated member, 0.
    """

    archive: int
    offset: int
    stored: int
    size: int
    crc: int = -1
    codec: int = 0
    skip: int = 0
    unpacked: int = 0


class Archive(NamedTuple):
    """An archive as it was indexed.

    Attributes:
        path: absolute; or a URL, with the query that it needs.
        size: in bytes.
        mtime: in ns.
        tag: the ETag of an object; empty for a file.
    """

    path: str
    size: int
    mtime: int
    tag: str = ""


class Members(NamedTuple):
    """The samples of a listing as members of archives.

    Attributes:
        archives: those that they lie in.
        locations: int64 (n, 8), the fields of :class:`Location`.
    """

    archives: tuple[Archive, ...]
    locations: npt.NDArray[np.int64]


OBJECT_NUMBERS = 2
"""Of an object: its size, and its state when it was listed; see ``file_identity``."""


class _Header(NamedTuple):
    """The header; byte offsets are from the start of the table."""

    magic: bytes
    version: int
    numbers: int  # of a location, or of an object
    about_size: int
    samples: int
    labels_at: int
    ends_at: int
    names_at: int
    about_at: int
    total: int


def pack(
    root: str,
    class_names: Sequence[str],
    filenames: Sequence[bytes],
    labels: npt.NDArray[np.int32],
    members: Members | None = None,
    objects: npt.NDArray[np.int64] | None = None,
) -> bytes:
    """Packs a listing into one table.

    Args:
        root: the dataset's directory.
        class_names: names of the classes in label order.
        filenames: n paths relative to ``root``, encoded for the file system.
        labels: int32 of shape (n,).
        members: where the samples lie, if that is in archives.
        objects: int64 (n, 2): size and state of each, if they are objects of a store.

    Returns:
        The table, to be read with :meth:`Manifest.view`.

    Raises:
        ValueError: the numbers of labels, locations, objects and file names differ.
    """
    if labels.shape != (len(filenames),):
        raise ValueError(f"{len(filenames)} file names, but labels of shape {labels.shape}")
    known: dict[str, Any] = {"root": root, "class_names": list(class_names)}
    numbers, table = 0, objects
    if members is not None:
        known["archives"] = members.archives
        numbers, table = len(Location._fields), members.locations
    elif objects is not None:
        numbers = OBJECT_NUMBERS
    if table is not None and table.shape != (len(filenames), numbers):
        raise ValueError(f"locations of shape {table.shape}")
    locations = b"" if table is None else table.astype("<i8").tobytes()
    about = json.dumps(known).encode("ascii")
    ends = np.zeros(len(filenames) + 1, "<i8")
    np.cumsum([len(name) + 1 for name in filenames], out=ends[1:])
    header = _HEADER.pack(*_plan(len(filenames), numbers, int(ends[-1]), len(about)))
    aligned = map(_padded, (header, labels.astype("<i4").tobytes(), ends.tobytes(), locations))
    return b"".join([*aligned, b"\0".join([*filenames, b""]), about])


def with_masks(table: bytes, masks: bytes) -> bytes:
    """A packed listing of members of archives, with the packed masks of its samples behind it."""
    header = _read_header(memoryview(table))
    at = _aligned(len(table))
    start = _HEADER.pack(*header._replace(total=at + len(masks)))
    return b"".join([start, memoryview(table)[len(start) :], bytes(at - len(table)), masks])


def _plan(samples: int, numbers: int, names_size: int, about_size: int) -> _Header:
    labels_at = _aligned(_HEADER.size)
    ends_at = _aligned(labels_at + 4 * samples)
    names_at = _aligned(_locations_at(ends_at, samples) + 8 * numbers * samples)
    about_at = names_at + names_size
    total = about_at + about_size
    return _Header(
        MAGIC, VERSION, numbers, about_size, samples, labels_at, ends_at, names_at, about_at, total
    )


def _locations_at(ends_at: int, samples: int) -> int:
    return _aligned(ends_at + 8 * (samples + 1))


def _aligned(at: int) -> int:
    return -(-at // _ALIGN) * _ALIGN


def _padded(data: bytes) -> bytes:
    return data.ljust(_aligned(len(data)), b"\0")


class Manifest:
    """A packed listing, read in place.

    The views keep the buffer: a mapping can be closed once the manifest and all of its
    arrays are gone.

    Attributes:
        root: the dataset's directory.
        class_names: names of the classes in label order.
        labels: int32 of shape (n,), read-only.
        names: all names, each with a null behind it, read-only.
        table: the bytes that were packed, read-only.
        members: where the samples lie in archives; None if they do not.
        objects: int64 (n, 2), size and state of each; None if they are no objects of a store.
        masks: those of the samples, in their order; None if they are no members of archives.
    """

    __slots__ = (
        "_ends",
        "_prefix",
        "_samples",
        "class_names",
        "labels",
        "masks",
        "members",
        "names",
        "objects",
        "root",
        "table",
    )

    def __init__(self, table: memoryview) -> None:
        header = _read_header(table)
        about = _read_about(table[header.about_at :][: header.about_size])
        self.root, self.class_names, archives = about
        self.table = table[: header.total]
        self.labels: npt.NDArray[np.int32] = np.frombuffer(
            table, np.int32, header.samples, header.labels_at
        )
        # Indexing a memoryview gives an int in half the time of a NumPy array.
        self._ends = table[header.ends_at : header.ends_at + 8 * (header.samples + 1)].cast("q")
        self.names = table[header.names_at : header.about_at]
        self._samples = header.samples
        numbers = _read_numbers(table, header)
        self.objects = numbers if header.numbers == OBJECT_NUMBERS else None
        is_packed = header.numbers == len(Location._fields)
        self.members = Members(archives, numbers) if is_packed else None
        masks = table[_aligned(header.about_at + header.about_size) : header.total]
        self.masks = Manifest(masks) if masks else None
        if self.masks is not None and (self.masks.members is None or len(self.masks) != len(self)):
            raise ProtocolError("the manifest's masks are no members of archives, one for each")
        self._prefix = os.fsencode(os.path.join(self.root, ""))
        if self._ends[0] != 0 or self._ends[-1] != len(self.names):
            raise ProtocolError("the manifest's names do not fill their place: it is damaged")

    @classmethod
    def view(cls, buffer: Any) -> Manifest:
        """Reads a table without copying it.

        Args:
            buffer: the result of :func:`pack` as bytes, a memoryview or an mmap; it may be
                longer, as shared memory comes in whole pages.

        Raises:
            ProtocolError: the buffer holds no table, another version's, or part of one.
        """
        return cls(memoryview(buffer).toreadonly().cast("B"))

    def __len__(self) -> int:
        return self._samples

    def path(self, sample: int) -> bytes:
        """The path of a sample, beginning with the root; about a microsecond.

        Raises:
            IndexError: there is no such sample.
        """
        if not 0 <= sample < self._samples:
            raise IndexError(f"sample {sample} of {self._samples}")
        ends = self._ends
        return self._prefix + self.names[ends[sample] : ends[sample + 1] - 1]

    def has_extension(self, extension: bytes) -> bool:
        """Whether any name ends so, case-insensitively; copies nothing."""
        return re.search(re.escape(extension) + rb"\0", self.names, re.IGNORECASE) is not None

    def filenames(self) -> list[str]:
        """All paths relative to the root, as Keras has them in ``filenames``."""
        return os.fsdecode(bytes(self.names)).split("\0")[:-1]


def sample_key(samples: Manifest, stream: int, sample: int) -> bytes:
    """The identity of a sample over all streams: its path, or stream and number without one."""
    return samples.path(sample) or b"stream %d, image %d" % (stream, sample)


def _read_header(table: memoryview) -> _Header:
    if len(table) < _HEADER.size:
        raise ProtocolError(f"a manifest of {len(table)} bytes has no room for its header")
    header = _Header._make(_HEADER.unpack_from(table))
    if header.magic != MAGIC:
        raise ProtocolError("the segment holds no manifest")
    if header.version != VERSION:
        raise ProtocolError(f"the manifest has version {header.version}, not {VERSION}")
    names_size = header.about_at - header.names_at
    plan = _plan(header.samples, header.numbers, names_size, header.about_size)
    if header.total > _aligned(plan.total):  # there are masks
        plan = plan._replace(total=header.total)
    if header.numbers not in (0, OBJECT_NUMBERS, len(Location._fields)) or header != plan:
        raise ProtocolError("the manifest's header contradicts itself: it is damaged")
    if header.total > len(table):
        raise ProtocolError(f"the manifest ends after {len(table)} of {header.total} bytes")
    return header


def _read_numbers(table: memoryview, header: _Header) -> npt.NDArray[np.int64]:
    count = header.samples * header.numbers
    locations = np.frombuffer(table, np.int64, count, _locations_at(header.ends_at, header.samples))
    return locations.reshape(header.samples, header.numbers)


def _read_about(data: memoryview) -> tuple[str, tuple[str, ...], tuple[Archive, ...]]:
    try:
        about = json.loads(bytes(data))
        listed = about.get("archives", ())
        archives = tuple(
            Archive(str(path), int(size), int(time), str(tag)) for path, size, time, tag in listed
        )
        return str(about["root"]), tuple(map(str, about["class_names"])), archives
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProtocolError(f"the manifest's class names cannot be read: {error}") from error
