"""Finds the members of a zip archive."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator

from loaderd.ipc.manifest import MemberCodec
from loaderd.sources.member import Member, plain_name
from loaderd.sources.ranged import RangedFile, seekable

MAGICS = (b"PK\3\4", b"PK\5\6")
"""The first bytes of an archive with members, and of an empty one."""

_LOCAL = struct.Struct("<4s22xHH")
_ENCRYPTED = 1
_CODECS = {zipfile.ZIP_DEFLATED: MemberCodec.DEFLATE}


def members(file: RangedFile) -> Iterator[Member]:
    """The members of the archive, in the order of its directory.

    Args:
        file: the archive.

    Raises:
        ValueError: it is damaged or truncated; says where.
    """
    try:
        with zipfile.ZipFile(seekable(file)) as archive:
            listed = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
        raise ValueError(f"it is truncated or damaged: {str(error).lower()}") from error
    for info in listed:
        name = plain_name(info.filename, info.is_dir())
        if info.is_dir():
            yield Member(name)
            continue
        yield Member(
            name,
            _content_offset(file, info),
            info.compress_size,
            info.file_size,
            info.CRC,
            MemberCodec.DEFLATE
            if info.compress_type == zipfile.ZIP_DEFLATED
            else MemberCodec.STORED,
            trouble=_trouble(info),
        )


def _content_offset(file: RangedFile, info: zipfile.ZipInfo) -> int:
    """Where the content begins; the directory knows where the header before it does."""
    header = file.pread(_LOCAL.size, info.header_offset)
    if len(header) < _LOCAL.size or not header.startswith(MAGICS[0]):
        raise ValueError(f"it is damaged: {info.filename} is not where the directory says")
    _, name_size, extra_size = _LOCAL.unpack(header)
    return info.header_offset + _LOCAL.size + int(name_size) + int(extra_size)


def _trouble(info: zipfile.ZipInfo) -> str:
    if info.flag_bits & _ENCRYPTED:
        return "is encrypted: pack the archive again without a password"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return (
            "is neither stored nor deflated: pack the archive again with `zip -0`, as images gain "
            "nothing by compression"
        )
    return ""
