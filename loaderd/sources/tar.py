"""Finds the members of a tar archive: ustar, GNU, pax and the format before them.

Only headers are read. ``tarfile`` would do it too, in three times the time, and takes what follows
a damaged header for the end of the archive.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field

from loaderd.sources.member import Member, plain_name
from loaderd.sources.ranged import RangedFile

_BLOCK = tarfile.BLOCKSIZE
_END = bytes(_BLOCK)
_MAX_EXTENSION = 2**20
"""Bytes. A long name, or the records of a pax header, takes no more."""

_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_EXTENSIONS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.XGLTYPE,
)
_LINK = "is a link: pack the archive again with `tar --dereference --hard-dereference`"
_SPARSE = "is a sparse file: pack the archive again without `--sparse`"
_TROUBLES = {
    tarfile.LNKTYPE: _LINK,
    tarfile.SYMTYPE: _LINK,
    tarfile.CHRTYPE: "is a device",
    tarfile.BLKTYPE: "is a device",
    tarfile.FIFOTYPE: "is a pipe",
    tarfile.GNUTYPE_SPARSE: _SPARSE,
}
_WITHOUT_CONTENT = (
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
)


@dataclass
class _Extended:
    """What the headers before a member's own say of it."""

    name: bytes = b""
    records: dict[bytes, bytes] = field(default_factory=dict)


def members(file: RangedFile) -> Iterator[Member]:
    """The members of the archive, in their order.

    Args:
        file: the archive.

    Raises:
        ValueError: it is no tar archive, or is damaged or truncated; says where.
    """
    at, extended, last = 0, _Extended(), ""
    while (block := file.pread(_BLOCK, at)) != _END:
        _check(block, at, last)
        kind, size = block[156:157], _number(block[124:136], at)
        at += _BLOCK
        if kind in _EXTENSIONS:
            _check_end(at + size, file.nbytes, last or "its first header")
            _extend(extended, kind, file.pread(min(size, _MAX_EXTENSION + 1), at))
            at += _padded(size)
            continue
        name = _name(block, extended)
        if kind == tarfile.GNUTYPE_SPARSE:
            at = _after_sparse_headers(file, block, at)
        if b"size" in extended.records:
            size = _decimal(extended.records[b"size"], name)
        stored = 0 if kind in _WITHOUT_CONTENT else size
        _check_end(at + stored, file.nbytes, name)
        is_folder = kind == tarfile.DIRTYPE or name.endswith("/")
        trouble = "" if is_folder else _trouble(kind, extended)
        yield Member(plain_name(name, is_folder), at, stored, stored, trouble=trouble)
        at += _padded(stored)
        extended, last = _Extended(), name


def _check(block: bytes, at: int, last: str) -> None:
    """Raises ValueError for a block that is no header."""
    after = f", after {last}" if last else ""
    if len(block) < _BLOCK:
        raise ValueError(f"it is truncated: it ends at byte {at + len(block)}{after}")
    if not _is_header(block):
        if not at:
            raise ValueError("it is neither a tar nor a zip archive")
        raise ValueError(f"it is damaged: there is no header at byte {at}{after}")


def _is_header(block: bytes) -> bool:
    """Whether the checksum is that of the block, in which it counts as eight spaces."""
    known = _integer(block[148:156])
    summed = block[:148] + b" " * 8 + block[156:]
    # Some programs have summed signed bytes.
    return known == sum(summed) or known == sum(memoryview(summed).cast("b"))


def _check_end(end: int, nbytes: int, name: str) -> None:
    if end > nbytes:
        raise ValueError(
            f"it is truncated: {name} ends at byte {end}, and the archive at byte {nbytes}"
        )


def _number(data: bytes, at: int) -> int:
    number = _integer(data)
    if number < 0:
        raise ValueError(f"it is damaged: the header at byte {at} has no size")
    return number


def _integer(data: bytes) -> int:
    """A number of a header, octal or, where its first bit is set, binary; -1 for none."""
    if data[0] & 0x80:
        return int.from_bytes(data[1:], "big") if data[0] == 0x80 else -1
    digits = data.partition(b"\0")[0].strip()
    try:
        return int(digits or b"0", 8)
    except ValueError:
        return -1


def _decimal(data: bytes, name: str) -> int:
    if not data.isdigit():
        raise ValueError(f"it is damaged: the size of {name} is no number")
    return int(data)


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _extend(extended: _Extended, kind: bytes, data: bytes) -> None:
    if len(data) > _MAX_EXTENSION:
        raise ValueError("it is damaged: a header has more than a million bytes")
    if kind == tarfile.GNUTYPE_LONGNAME:
        extended.name = data.partition(b"\0")[0]
    elif kind in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
        extended.records = _records(data)


def _records(data: bytes) -> dict[bytes, bytes]:
    """The records of a pax header: length, key and value, each with a line's end behind it."""
    found = {}
    while data and data[:1] != b"\0":
        digits = data.partition(b" ")[0]
        length = int(digits) if digits.isdigit() else 0
        key, equals, value = data[len(digits) + 1 : length].partition(b"=")
        if not equals or value[-1:] != b"\n" or length > len(data):
            raise ValueError("it is damaged: a pax header cannot be read")
        found[key] = value[:-1]
        data = data[length:]
    return found


def _name(block: bytes, extended: _Extended) -> str:
    name = extended.records.get(b"path") or extended.name
    if not name:
        name = block[:100].partition(b"\0")[0]
        prefix = block[345:500].partition(b"\0")[0] if block[257:263] == b"ustar\0" else b""
        name = prefix + b"/" + name if prefix else name
    if b"\0" in name:
        raise ValueError("it is damaged: a name holds a null character")
    return os.fsdecode(name)


def _trouble(kind: bytes, extended: _Extended) -> str:
    if any(key.startswith(b"GNU.sparse.") for key in extended.records):
        return _SPARSE
    return "" if kind in _FILES else _TROUBLES.get(kind, "is no file")


def _after_sparse_headers(file: RangedFile, block: bytes, at: int) -> int:
    more = block[482]
    while more:
        more = file.pread(_BLOCK, at)[504:505] == b"\1"
        at += _BLOCK
    return at
