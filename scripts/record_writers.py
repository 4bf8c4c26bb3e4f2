"""Writes records of TFRecord and shards of MDS, after the descriptions of these formats."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

Value = bytes | str | int | Sequence[int]


def crc32c(data: bytes) -> int:
    """The checksum of Castagnoli, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    """The checksum as TFRecord has it."""
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def varint(number: int) -> bytes:
    """A number of Protocol Buffers."""
    number &= 2**64 - 1
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def message(number: int, data: bytes) -> bytes:
    """A field of bytes."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def feature(value: Value, is_packed: bool = True) -> bytes:
    """A feature of ``tf.train.Example``."""
    if isinstance(value, bytes | str):
        data = value.encode() if isinstance(value, str) else value
        return message(1, message(1, data))
    numbers = [value] if isinstance(value, int) else value
    if is_packed:
        return message(3, message(1, b"".join(map(varint, numbers))))
    return message(3, b"".join(b"\x08" + varint(one) for one in numbers))


def example(features: Mapping[str, Value], is_packed: bool = True) -> bytes:
    """A ``tf.train.Example``."""
    entries = (
        message(1, message(1, name.encode()) + message(2, feature(value, is_packed)))
        for name, value in features.items()
    )
    return message(1, b"".join(entries))


def record(data: bytes, checksum: bytes | None = None) -> bytes:
    """A record; that of the data is not looked at, and slow here."""
    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + (checksum or bytes(4))


Columns = Mapping[str, tuple[str, int | None]]
"""Encodings and sizes by the names of columns."""


def mds_index(shards: Mapping[str, bytes], counts: Sequence[int]) -> str:
    """The index of a folder of shards, by their names."""
    listed = [
        {
            "format": "mds",
            "raw_data": {"basename": name, "bytes": len(data), "hashes": {}},
            "samples": count,
            "zip_data": None,
        }
        for (name, data), count in zip(shards.items(), counts, strict=True)
    ]
    return json.dumps({"version": 2, "shards": listed})


def mds_shard(columns: Columns, samples: Sequence[Mapping[str, bytes]]) -> bytes:
    """A shard of MDS."""
    names = sorted(columns)
    about: dict[str, Any] = {
        "column_encodings": [columns[name][0] for name in names],
        "column_names": names,
        "column_sizes": [columns[name][1] for name in names],
        "compression": None,
        "format": "mds",
        "hashes": [],
        "size_limit": 2**26,
        "version": 2,
    }
    text = json.dumps(about, sort_keys=True).encode()
    bodies = []
    for sample in samples:
        sizes = [len(sample[name]) for name in names if columns[name][1] is None]
        head = struct.pack(f"<{len(sizes)}I", *sizes)
        bodies.append(head + b"".join(sample[name] for name in names))
    at = 4 + 4 * (len(samples) + 1) + len(text)
    offsets = [at]
    for body in bodies:
        at += len(body)
        offsets.append(at)
    counts = struct.pack(f"<{len(samples) + 2}I", len(samples), *offsets)
    return counts + text + b"".join(bodies)
