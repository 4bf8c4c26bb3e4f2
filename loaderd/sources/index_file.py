"""An index as it is kept in the cache folder."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from loaderd.errors import CacheError
from loaderd.sources.member import Member

VERSION = 2
FOLDER = "archives"
"""Of the indexes, in the cache folder."""

_CHECKSUM = 16
_DAY = 86400
_UNUSED_DAYS = 90
"""An index that no dataset was made of for so long is removed; its archive may be gone."""


FoundLayout = Literal["webdataset", "folders", "parquet", "tfrecord", "mds"]
"""How an archive holds samples; see :data:`loaderd.spec.source.Layout`."""


class ArchiveIndex(msgspec.Struct, frozen=True):
    """The samples of an archive, in their order in it.

    Attributes:
        version: of this form.
        size: of the archive, in bytes.
        mtime: of the archive, in ns.
        state: see :mod:`loaderd.sources.file_identity`.
        layout: what was found; None without samples.
        label: the extension of the members with the labels, or their column; None if they were not
            read.
        joined_names: see ``names``.
        packed_locations: see ``locations``.
        labels: whole numbers, or names of classes; None if they were not read.
        joined_folders: see ``folders``.
        class_names: of labels 0, 1 and so on, where the archive has them.
        tag: the ETag of an object; empty for a file.
        joined_masks: see ``mask_names``.
        packed_masks: see ``mask_locations``.
    """

    version: int
    size: int
    mtime: int
    state: int
    layout: FoundLayout | None
    label: str | None
    joined_names: bytes
    packed_locations: bytes
    labels: list[int | str] | None
    joined_folders: bytes
    class_names: list[str] | None = None
    tag: str = ""
    joined_masks: bytes = b""
    packed_masks: bytes = b""

    @property
    def names(self) -> list[str]:
        """The members that are images."""
        return _split(self.joined_names)

    @property
    def folders(self) -> list[str]:
        """All folders, each with a slash behind it."""
        return _split(self.joined_folders)

    @property
    def locations(self) -> NDArray[np.int64]:
        """Where they lie: offset, stored, size, crc, codec, skip, unpacked; (n, 7)."""
        return _unpacked(self.packed_locations)

    @property
    def mask_names(self) -> list[str]:
        """The members that are masks, one for each image; none if they were not asked for."""
        return _split(self.joined_masks)

    @property
    def mask_locations(self) -> NDArray[np.int64]:
        """Where the masks lie, as ``locations``."""
        return _unpacked(self.packed_masks)


class ArchiveSamples(NamedTuple):
    """The samples that were found in an archive; fields as those of :class:`ArchiveIndex`."""

    layout: FoundLayout | None
    label: str | None
    images: list[Member]
    labels: list[int | str] | None
    folders: Sequence[str] = ()
    class_names: list[str] | None = None
    masks: Sequence[Member] = ()

    def indexed(self, size: int, mtime: int, state: int, tag: str) -> ArchiveIndex:
        """The index of the archive, whose version is given as in :class:`ArchiveIndex`."""
        return ArchiveIndex(
            version=VERSION,
            size=size,
            mtime=mtime,
            state=state,
            layout=self.layout,
            label=self.label,
            joined_names=_joined(one.name for one in self.images),
            packed_locations=_packed(self.images),
            labels=self.labels,
            joined_folders=_joined(self.folders),
            class_names=self.class_names,
            tag=tag,
            joined_masks=_joined(one.name for one in self.masks),
            packed_masks=_packed(self.masks),
        )


def load(path: str) -> ArchiveIndex | None:
    """The index in a file; None if there is none, or it is damaged or of another version.

    Raises:
        CacheError: the folder cannot be used.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
            if time.time() - os.fstat(file.fileno()).st_mtime > _DAY:
                os.utime(path)  # it is in use: see ``remove_unused``
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        if hashlib.blake2b(data[_CHECKSUM:], digest_size=_CHECKSUM).digest() != data[:_CHECKSUM]:
            return None
        found = msgspec.msgpack.decode(data[_CHECKSUM:], type=ArchiveIndex)
    except msgspec.MsgspecError:
        return None
    return found if found.version == VERSION else None


def save(path: str, index: ArchiveIndex) -> None:
    """Writes an index, so that others see the former one or the whole of this one.

    Raises:
        CacheError: it cannot be kept there.
    """
    data = msgspec.msgpack.encode(index)
    folder = os.path.dirname(path)
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
            try:
                file.write(hashlib.blake2b(data, digest_size=_CHECKSUM).digest() + data)
                file.flush()
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as error:
        raise _unusable(path, error) from error


def remove_unused(folder: str) -> None:
    """Removes indexes that were not used for months, and what killed processes have left."""
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # another process removes it
                if time.time() - entry.stat().st_mtime > _UNUSED_DAYS * _DAY:
                    os.unlink(entry.path)


def _unusable(path: str, error: OSError) -> CacheError:
    return CacheError(
        f"cannot keep the index of an archive in {os.path.dirname(path)}: {error.strerror}; free "
        "some room there, or choose another --cache-dir (LOADERD_CACHE_DIR)"
    )


def _packed(members: Iterable[Member]) -> bytes:
    return np.array([one[1:8] for one in members], np.int64).tobytes()


def _unpacked(locations: bytes) -> NDArray[np.int64]:
    return np.frombuffer(locations, np.int64).reshape(-1, 7)


def _joined(names: Iterable[str]) -> bytes:
    return os.fsencode("".join(name + "\0" for name in names))


def _split(names: bytes) -> list[str]:
    return os.fsdecode(names).split("\0")[:-1]
