"""What is found in an archive, whatever its format."""

from __future__ import annotations

from typing import NamedTuple

from loaderd.ipc.manifest import MemberCodec


class Member(NamedTuple):
    """A file or folder in an archive.

    Attributes:
        name: its path, as :func:`plain_name` makes it; of a folder with a slash behind it.
        offset, stored, size, crc, codec, skip, unpacked: as in
            :class:`~loaderd.ipc.manifest.Location`.
        trouble: why it cannot be read; empty if it can.
    """

    name: str
    offset: int = 0
    stored: int = 0
    size: int = 0
    crc: int = -1
    codec: int = MemberCodec.STORED
    skip: int = 0
    unpacked: int = 0
    trouble: str = ""

    @property
    def is_folder(self) -> bool:
        """Whether it has no content."""
        return self.name.endswith("/")


def plain_name(name: str, is_folder: bool = False) -> str:
    """A path in an archive without empty parts and dots; of a folder with a slash behind it."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return "/".join([*parts, ""] if is_folder else parts)
