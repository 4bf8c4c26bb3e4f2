"""Makes the index of an archive: its samples, where each lies, and what it is labelled.

An index depends on the archive and on a :class:`Recipe`. It is kept as a file in the cache folder,
with the state of the archive: of a file its size, modification time, change time and inode number,
of an object its ETag. So an archive is read once, until it changes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable

from loaderd.errors import BadArchive, LoaderdError, NoRoom
from loaderd.ipc.text import printable
from loaderd.sources import (
    file_identity,
    index_file,
    mds,
    parquet,
    parquet_footer,
    tar,
    tfrecord,
    zip,
)
from loaderd.sources.groups import Recipe, SampleGroups
from loaderd.sources.index_file import ArchiveIndex, ArchiveSamples, FoundLayout
from loaderd.sources.member import Member
from loaderd.sources.ranged import LocalFile, RangedFile, Version
from loaderd.spec import url as urls

_COMPRESSED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ\0": ("xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
}
"""What compressed files begin with, and their programs."""

Progress = Callable[[int], None]
"""Called with how many bytes of an archive were looked through."""

_ROWS = {"parquet": parquet.samples, "tfrecord": tfrecord.samples, "mds": mds.samples}
"""What finds the rows of files that are no archives of members."""


def index_of(
    path: str, recipe: Recipe, folder: str, progress: Progress, file: RangedFile | None = None
) -> ArchiveIndex:
    """The index of an archive: from the folder, or made and kept there.

    Args:
        path: of the archive, or its URL.
        recipe: what to look for.
        folder: of the indexes.
        progress: told how far it is.
        file: the archive, where it is open.

    Raises:
        BadArchive: the archive cannot be read, or its members make no samples.
        CacheError: the index cannot be kept in the folder.
        StorageTimeout: its store cannot be reached.
        StorageRefused: its store refuses.
    """
    file = file or LocalFile(path)
    version, name = file.version, printable(urls.shown(path))
    kept = os.path.join(folder, _key(path, version, recipe))
    found = index_file.load(kept)
    if found is not None and found.state == version.state != file_identity.UNREADABLE:
        progress(file.nbytes)
        return found
    try:
        samples = _samples(file, recipe, progress)
    except (OSError, ValueError) as error:
        if isinstance(error, LoaderdError):
            raise
        reason = error.strerror if isinstance(error, OSError) else error
        raise BadArchive(f"{name}: {printable(str(reason))}") from error
    except MemoryError as error:
        raise NoRoom(
            f"{name}: there is too little memory to look through it; if it is a Parquet "
            "file, write it again with smaller pages, or raise the daemon's --worker-memory"
        ) from error
    if file.present_version() != version:
        raise BadArchive(f"{name}: it was changed while it was indexed: try again")
    made = samples.indexed(*version)
    if file.is_settled():
        index_file.save(kept, made)
    return made


def _key(path: str, version: Version, recipe: Recipe) -> str:
    place = urls.shown(path) if urls.is_url(path) else os.path.realpath(path)
    if place != path and urls.is_url(path):  # what is not shown may name the archive, too
        place += f"?{version.state}"
    text = place + "\0" + repr(tuple(recipe))
    digest = hashlib.blake2b(os.fsencode(text), digest_size=16)
    return digest.hexdigest() + ".index"


def _samples(file: RangedFile, recipe: Recipe, progress: Progress) -> ArchiveSamples:
    """The samples of an archive; raises ValueError where it holds none of that form."""
    layout = _found_layout(file) if recipe.layout == "auto" else recipe.layout
    if layout in _ROWS:
        return _ROWS[layout](file, recipe.columns, recipe.label, progress)
    return _packed(file, recipe, progress)


def _found_layout(file: RangedFile) -> str:
    """The format of rows that a file has; ``auto`` for an archive of members."""
    if file.pread(len(parquet_footer.MAGIC), 0) == parquet_footer.MAGIC:
        return "parquet"
    if tfrecord.is_one(file):
        return "tfrecord"
    return "mds" if mds.is_one(file) else "auto"


def _packed(file: RangedFile, recipe: Recipe, progress: Progress) -> ArchiveSamples:
    """The samples of a tar or zip archive."""
    found = _members(file, progress)
    files = [member for member in found if not member.is_folder]
    groups = SampleGroups(files, recipe)
    is_found = recipe.layout == "auto" and groups.label_is_there
    is_grouped = is_found or recipe.layout == "webdataset"
    if is_grouped:
        images, labels = groups.samples(file)
    else:
        images = [one for one in files if one.name.lower().endswith(recipe.extensions)]
        labels = None
    masks = groups.masks(images)
    for one in [*images, *masks]:
        if one.trouble:
            raise ValueError(f"{one.name} {one.trouble}")
    layout: FoundLayout = "webdataset" if is_grouped else "folders"
    return ArchiveSamples(
        layout=layout if images else None,
        label=groups.label if labels is not None else None,
        images=images,
        labels=labels,
        folders=sorted(_folders(found)),
        masks=masks,
    )


def _members(file: RangedFile, progress: Progress) -> list[Member]:
    """All members; of those with one name the last, as by unpacking."""
    start = file.pread(8, 0)
    for magic, (name, program) in _COMPRESSED.items():
        if start.startswith(magic):
            raise ValueError(
                f"it is compressed as a whole (by {name}), and no member can be read by itself: "
                f"unpack it with `{program}` or pack it again, as images gain nothing by it"
            )
    if not start:
        raise ValueError("it is empty")
    found: dict[str, Member] = {}
    for member in zip.members(file) if start.startswith(zip.MAGICS) else tar.members(file):
        if member.name:  # but the folder at the top
            found.pop(member.name, None)
            found[member.name] = member
        progress(member.offset)
    progress(file.nbytes)
    return list(found.values())


def _folders(members: Iterable[Member]) -> set[str]:
    found: set[str] = set()
    for member in members:
        folder = member.name.rstrip("/") if member.is_folder else os.path.dirname(member.name)
        while folder and folder + "/" not in found:
            found.add(folder + "/")
            folder = os.path.dirname(folder)
    return found
