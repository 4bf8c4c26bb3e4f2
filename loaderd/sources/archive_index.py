"""The index of an archive: its samples, where each lies, and what it is labelled.

An index depends on the archive and on a :class:`Recipe`. It is kept as a file in the cache folder,
with the state of the archive: size, modification time, change time and inode number. So an archive
is read once, until it changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from loaderd.errors import BadArchive, CacheError
from loaderd.ipc.text import printable, readable
from loaderd.sources import file_identity, tar, zip
from loaderd.sources.inflate import content
from loaderd.sources.member import Member
from loaderd.spec.source import Archives, Layout

VERSION = 1
FOLDER = "archives"
"""Of the indexes, in the cache folder."""

LABELS = ("cls", "json", "txt")
"""Extensions of members with labels, in the order in which ``auto`` looks for them."""

_FIELD = "label"
"""Of JSON, unless another is asked for."""

_MAX_LABEL = 2**20
"""Bytes of a member with a label."""

_MAX_DIGITS = 9
_CHECKSUM = 16
_COMPRESSED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ\0": ("xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
}
"""What compressed files begin with, and their programs."""


class Recipe(NamedTuple):
    """What decides an index, besides the archive; fields of :class:`loaderd.spec.Archives`."""

    layout: Layout
    label: str | None
    extensions: tuple[str, ...]

    @classmethod
    def of(cls, source: Archives) -> Recipe:
        """That of a source."""
        return cls(source.layout, source.label, source.extensions)


class ArchiveIndex(msgspec.Struct, frozen=True):
    """The samples of an archive, in their order in it.

    Attributes:
        version: of this form.
        size: of the archive, in bytes.
        mtime: of the archive, in ns.
        state: see :mod:`loaderd.sources.file_identity`.
        layout: what was found; None without samples.
        label: the extension of the members with the labels; None if they were not read.
        joined_names: see ``names``.
        packed_locations: see ``locations``.
        labels: whole numbers, or names of classes; None if they were not read.
        folders: paths of all folders, each with a slash behind it.
    """

    version: int
    size: int
    mtime: int
    state: int
    layout: Literal["webdataset", "folders"] | None
    label: str | None
    joined_names: bytes
    packed_locations: bytes
    labels: list[int | str] | None
    joined_folders: bytes

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
        """Where they lie: offset, stored, size, crc, deflated; (n, 5)."""
        return np.frombuffer(self.packed_locations, np.int64).reshape(-1, 5)


Progress = Callable[[int], None]
"""Called with how many bytes of an archive were looked through."""


def index_of(path: str, recipe: Recipe, folder: str, progress: Progress) -> ArchiveIndex:
    """The index of an archive: from the folder, or made and kept there.

    Args:
        path: of the archive.
        recipe: what to look for.
        folder: of the indexes.
        progress: told how far it is.

    Raises:
        BadArchive: the archive cannot be read, or its members make no samples.
        CacheError: the index cannot be kept in the folder.
    """
    kept = os.path.join(folder, _key(path, recipe))
    before = time.time_ns()
    fd = _opened(path)
    try:
        status = os.fstat(fd)
        found = _kept(kept)
        if found is not None and found.state == file_identity.state_of(status):
            progress(status.st_size)
            return found
        try:
            made = _made(fd, status, recipe, progress)
        except (OSError, ValueError) as error:
            if isinstance(error, BadArchive):
                raise
            reason = error.strerror if isinstance(error, OSError) else error
            raise BadArchive(f"{readable(path)}: {printable(str(reason))}") from error
        is_same = file_identity.state_of(os.fstat(fd)) == made.state
    finally:
        os.close(fd)
    if not is_same:
        raise BadArchive(f"{readable(path)}: it was changed while it was indexed: try again")
    if file_identity.settled_state(status, before) != file_identity.UNREADABLE:
        _keep(kept, made)
    return made


def _key(path: str, recipe: Recipe) -> str:
    text = os.path.realpath(path) + "\0" + repr(tuple(recipe))
    digest = hashlib.blake2b(os.fsencode(text), digest_size=16)
    return digest.hexdigest() + ".index"


def _opened(path: str) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise BadArchive(f"{readable(path)}: {reason}") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise BadArchive(f"{readable(path)}: not a regular file")
    return fd


def _kept(path: str) -> ArchiveIndex | None:
    """The index in a file; None if there is none, or it is damaged or of another version."""
    try:
        with open(path, "rb") as file:
            data = file.read()
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


def _keep(path: str, index: ArchiveIndex) -> None:
    """Writes an index, so that others see the former one or the whole of this one."""
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


def _unusable(path: str, error: OSError) -> CacheError:
    return CacheError(
        f"cannot keep the index of an archive in {os.path.dirname(path)}: {error.strerror}; free "
        "some room there, or choose another --cache-dir (LOADERD_CACHE_DIR)"
    )


def _made(fd: int, status: os.stat_result, recipe: Recipe, progress: Progress) -> ArchiveIndex:
    """The index of an open archive; raises ValueError where it has no samples."""
    found = _members(fd, status.st_size, progress)
    files = [member for member in found if not member.is_folder]
    groups = _Groups(files, recipe)
    is_found = recipe.layout == "auto" and groups.label_is_there
    is_grouped = is_found or recipe.layout == "webdataset"
    if is_grouped:
        images, labels = groups.samples(fd)
    else:
        images = [one for one in files if one.name.lower().endswith(recipe.extensions)]
        labels = None
    for one in images:
        if one.trouble:
            raise ValueError(f"{one.name} {one.trouble}")
    layout: Literal["webdataset", "folders"] = "webdataset" if is_grouped else "folders"
    return ArchiveIndex(
        version=VERSION,
        size=status.st_size,
        mtime=status.st_mtime_ns,
        state=file_identity.state_of(status),
        layout=layout if images else None,
        label=groups.label if labels is not None else None,
        joined_names=_joined(one.name for one in images),
        packed_locations=np.array([one[1:6] for one in images], np.int64).tobytes(),
        labels=labels,
        joined_folders=_joined(sorted(_folders(found))),
    )


def _members(fd: int, nbytes: int, progress: Progress) -> list[Member]:
    """All members; of those with one name the last, as by unpacking."""
    start = os.pread(fd, 8, 0)
    for magic, (name, program) in _COMPRESSED.items():
        if start.startswith(magic):
            raise ValueError(
                f"it is compressed as a whole (by {name}), and no member can be read by itself: "
                f"unpack it with `{program}` or pack it again, as images gain nothing by it"
            )
    if not start:
        raise ValueError("it is empty")
    found: dict[str, Member] = {}
    members = zip.members(fd) if start.startswith(zip.MAGICS) else tar.members(fd, nbytes)
    for member in members:
        if member.name:  # but the folder at the top
            found.pop(member.name, None)
            found[member.name] = member
        progress(member.offset)
    progress(nbytes)
    return list(found.values())


class _Groups:
    """Members grouped by key, as WebDataset does: a key is the name up to its first dot.

    Args:
        files: all that have content.
        recipe: what to look for.

    Attributes:
        label: the extension of those with the labels; None if they are not asked for or not there.
        label_is_there: whether there are members with labels, be they asked for or not.
    """

    def __init__(self, files: list[Member], recipe: Recipe) -> None:
        self._extensions = frozenset(one.removeprefix(".") for one in recipe.extensions)
        self._groups: dict[str, dict[str, Member]] = defaultdict(dict)
        for member in files:
            key, extension = _key_and_extension(member.name)
            self._groups[key][extension] = member
        there = {
            one
            for group in self._groups.values()
            if self._extensions & group.keys()
            for one in group
        }
        found = next((one for one in LABELS if one in there), None)
        label, _, field = (recipe.label or "").partition(":")
        self.label = found if label == "auto" else label or None
        self.label_is_there = bool(there & {*LABELS, self.label})
        self._field = field or _FIELD
        self._is_asked = recipe.label is not None

    def samples(self, fd: int) -> tuple[list[Member], list[int | str] | None]:
        """The images, and their labels if these were asked for.

        Raises:
            ValueError: the members of a key make no sample; says which key.
        """
        images: list[Member] = []
        labels: list[int | str] = []
        for key, group in self._groups.items():
            found = [one for extension, one in group.items() if extension in self._extensions]
            if len(found) > 1:
                names = " and ".join(one.name for one in found[:2])
                raise ValueError(f"key {key} has two images, {names}: name one with `image`")
            if not found:
                self._check_unused(key, group)
                continue
            images.append(found[0])
            if self._is_asked:
                labels.append(self._label(fd, found[0], group))
        if len({type(one) for one in labels}) > 1:
            raise ValueError("some labels are whole numbers and some are names")
        return images, labels if self._is_asked else None

    def _check_unused(self, key: str, group: dict[str, Member]) -> None:
        if self.label is not None and self.label in group:
            raise ValueError(
                f"{group[self.label].name} is the label of no image: key {key} has none of "
                f"{', '.join(sorted(self._extensions))}; name its extension with `image`"
            )

    def _label(self, fd: int, image: Member, group: dict[str, Member]) -> int | str:
        found = group.get(self.label) if self.label is not None else None
        if found is None:
            wanted = " or ".join(LABELS) if self.label is None else self.label
            raise ValueError(f"{image.name} has no label: its key has no member {wanted}")
        if found.trouble:
            raise ValueError(f"{found.name} {found.trouble}")
        if found.size > _MAX_LABEL:
            raise ValueError(f"{found.name} is no label: it has {found.size:,} bytes")
        text = _text(fd, found)
        if self.label == "json":
            return _json_label(found.name, text, self._field)
        return _number(found.name, text) if self.label == "cls" else _class_name(found.name, text)


def _key_and_extension(name: str) -> tuple[str, str]:
    folder, slash, last = name.rpartition("/")
    key, _, extension = last.partition(".")
    return folder + slash + key, extension.lower()


def _text(fd: int, member: Member) -> str:
    try:
        stored = os.pread(fd, member.stored, member.offset)
        return str(content(stored, member.size, member.crc, member.deflated), "utf-8")
    except ValueError as error:
        raise ValueError(f"{member.name} is no label: {error}") from error


def _number(name: str, text: str) -> int:
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) <= _MAX_DIGITS):
        raise ValueError(f"{name} is no label: it should hold a whole number from 0 on")
    return int(digits)


def _class_name(name: str, text: str) -> str:
    if not text.strip():
        raise ValueError(f"{name} is no label: it is empty")
    return text.strip()


def _json_label(name: str, text: str, field: str) -> int | str:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is no JSON: {error}") from error
    value = value.get(field) if isinstance(value, dict) else None
    if isinstance(value, str):
        return _class_name(name, value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**_MAX_DIGITS:
        return value
    raise ValueError(
        f"{name} has no label: its field {field!r} should be a whole number from 0 on, or the name "
        'of a class; another field is chosen by label="json:FIELD"'
    )


def _folders(members: Iterable[Member]) -> set[str]:
    found: set[str] = set()
    for member in members:
        folder = member.name.rstrip("/") if member.is_folder else os.path.dirname(member.name)
        while folder and folder + "/" not in found:
            found.add(folder + "/")
            folder = os.path.dirname(folder)
    return found


def _joined(names: Iterable[str]) -> bytes:
    return os.fsencode("".join(name + "\0" for name in names))


def _split(names: bytes) -> list[str]:
    return os.fsdecode(names).split("\0")[:-1]
