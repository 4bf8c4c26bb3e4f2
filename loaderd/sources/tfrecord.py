"""Finds the images and labels of TFRecord files, whose records are ``tf.train.Example``.

A record has its length and a checksum of it before it, and a checksum of the whole behind it. An
example is a table of features: lists of bytes, of whole numbers or of floats. Only the names of
features and the labels are read; images are passed over.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence

from loaderd.ipc.manifest import MemberCodec
from loaderd.sources.index_file import ArchiveSamples
from loaderd.sources.labels import checked
from loaderd.sources.member import Member
from loaderd.sources.protobuf import ProtobufField, fields, varint
from loaderd.sources.ranged import RangedFile
from loaderd.sources.window import RangedWindow

_IMAGES = ("image/encoded", "image")
_LABELS = ("image/class/label", "label")
_BYTES_LIST, _INT64_LIST = 1, 3
_HEAD = struct.Struct("<QI")
_CHECKSUM = 4
_MAX_LABEL = 2**16
_POLYNOMIAL, _MASK = 0x82F63B78, 0xA282EAD8
_COMPRESSED = {b"\x1f\x8b": "GZIP", b"\x78\x01": "ZLIB", b"\x78\x9c": "ZLIB", b"\x78\xda": "ZLIB"}

Features = dict[str, ProtobufField]
"""The features of an example by their names."""


def is_one(file: RangedFile) -> bool:
    """Whether a file begins as one does."""
    head = file.pread(_HEAD.size, 0)
    return len(head) == _HEAD.size and _is_whole(head)


def samples(
    file: RangedFile, features: Sequence[str], label: str | None, progress: Callable[[int], None]
) -> ArchiveSamples:
    """The records of the file.

    Args:
        file: the file.
        features: those that may hold images, of which the first that is there counts; empty for
            ``image/encoded`` and ``image``.
        label: the feature of the labels; ``auto`` for ``image/class/label`` or ``label``, None for
            none.
        progress: called with how many bytes of the file were looked through.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged or compressed, or has no such features.
    """
    window = RangedWindow(file)
    images: list[Member] = []
    labels: list[int | str | None] = []
    image = named = ""
    for number, (first, last) in enumerate(_records(file, window)):
        found = _features(window, first, last)
        if not number:
            image = _name(found, features or _IMAGES, "image")
            if label is not None:
                named = _name(found, _LABELS if label == "auto" else (label,), "label")
        images.append(_image(window, found.get(image), image, number))
        if named:
            labels.append(_label(window, found.get(named)))
        progress(last)
    progress(file.nbytes)
    return ArchiveSamples(
        "tfrecord" if images else None,
        named or None,
        images,
        checked(labels, f"its feature {named!r}", "record") if named else None,
    )


def _records(file: RangedFile, window: RangedWindow) -> Iterator[tuple[int, int]]:
    """Where the content of each record begins and ends."""
    at = 0
    while at < file.nbytes:
        head = window.read(_HEAD.size, at)
        if len(head) < _HEAD.size:
            raise ValueError(f"it is truncated: the record at byte {at} is not there")
        if not _is_whole(head):
            raise ValueError(_no_record(head, at))
        first = at + _HEAD.size
        last = first + int(_HEAD.unpack(head)[0])
        at = last + _CHECKSUM
        if at > file.nbytes:
            raise ValueError(
                f"it is truncated: a record ends at byte {at}, and the file at byte {file.nbytes}"
            )
        yield first, last


def _no_record(head: bytes, at: int) -> str:
    method = _COMPRESSED.get(head[:2])
    if at or method is None:
        return f"it is damaged, or is no TFRecord file: there is no record at byte {at}"
    return (
        f"it is compressed as a whole (by {method}), and no record can be read by itself: write it "
        "again without compression, as images gain nothing by it"
    )


def _is_whole(head: bytes) -> bool:
    """Whether the checksum of a length is right."""
    crc = _crc32c(head[:8])
    masked = (((crc >> 15) | (crc << 17)) + _MASK) & 2**32 - 1
    return masked == int(_HEAD.unpack(head)[1])


def _table() -> list[int]:
    found = []
    for crc in range(256):
        for _ in range(8):
            crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
        found.append(crc)
    return found


_CRCS = _table()


def _crc32c(data: bytes) -> int:
    crc = 2**32 - 1
    for byte in data:
        crc = crc >> 8 ^ _CRCS[(crc ^ byte) & 255]
    return crc ^ 2**32 - 1


def _features(window: RangedWindow, first: int, last: int) -> Features:
    """The features of the example in a record."""
    found: Features = {}
    for table in fields(window.read, first, last):
        if table.number != 1 or not table.is_bytes:
            continue
        for entry in fields(window.read, table.first, table.last):
            if entry.number == 1 and entry.is_bytes:
                name, value = _entry(window, entry)
                if value is not None:
                    found[name] = value
    return found


def _entry(window: RangedWindow, entry: ProtobufField) -> tuple[str, ProtobufField | None]:
    """The name of a feature, and the feature."""
    name, value = "", None
    for part in fields(window.read, entry.first, entry.last):
        if part.number == 1 and part.is_bytes:
            name = _text(window, part)
        elif part.number == 2 and part.is_bytes:
            value = part
    return name, value


def _text(window: RangedWindow, field: ProtobufField) -> str:
    size = field.last - field.first
    if size > _MAX_LABEL:
        raise ValueError(f"a text of a record has {size:,} bytes: it is no name")
    return window.read(size, field.first).decode(errors="replace")


def _name(found: Features, names: Sequence[str], argument: str) -> str:
    for name in names:
        if name in found:
            return name
    asked, there = " or ".join(map(repr, names)), ", ".join(sorted(found)) or "none"
    more = ", or give label=None" if argument == "label" else ""
    raise ValueError(
        f"its records have no feature {asked}: they have {there}; name one with `{argument}`{more}"
    )


def _values(window: RangedWindow, feature: ProtobufField) -> tuple[int, list[ProtobufField]]:
    """The kind of a feature's list, and what is in it."""
    for one in fields(window.read, feature.first, feature.last):
        if one.is_bytes:
            return one.number, list(fields(window.read, one.first, one.last))
    return 0, []


def _image(window: RangedWindow, feature: ProtobufField | None, name: str, number: int) -> Member:
    kind, values = (_BYTES_LIST, []) if feature is None else _values(window, feature)
    if kind not in (0, _BYTES_LIST) or len(values) > 1:
        held = f"{len(values)} values" if kind == _BYTES_LIST else "numbers"
        raise ValueError(
            f"the feature {name!r} of record {number} holds {held}, and should hold the bytes of "
            "one encoded image"
        )
    if not values:
        return Member(str(number), codec=MemberCodec.ABSENT)
    size = values[0].last - values[0].first
    return Member(str(number), values[0].first, size, size)


def _label(window: RangedWindow, feature: ProtobufField | None) -> int | str | None:
    """The only value of a feature, if it has one."""
    kind, values = (0, []) if feature is None else _values(window, feature)
    if len(values) != 1:
        return None
    if kind == _BYTES_LIST:
        return _text(window, values[0])
    if kind != _INT64_LIST:
        return None
    data = window.read(values[0].last - values[0].first, values[0].first)
    if not data:
        return None
    label, end = varint(data, 0)
    return (label if label < 2**63 else label - 2**64) if end == len(data) else None
