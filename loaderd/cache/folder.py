"""The folder of the caches on disk, and how the caches share ``--cache-size``.

Every cache is one file, ``<key>.images``; no other file is touched. Each user of a cache holds a
shared ``flock`` on it, and changes to what others rely on need an exclusive one. Openers take
turns by a lock file in the folder. The least recently opened cache is evicted first, and never
one that is in use.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from typing import NamedTuple

from loaderd.cache import layout
from loaderd.cache.index import Granted, Index, lock_alone, taking_turns
from loaderd.cache.layout import Head
from loaderd.errors import CacheError
from loaderd.sources.file_identity import FileStates

EXTENSION = ".images"
_CACHE_NAME = re.compile(f"[0-9a-f]{{32}}{re.escape(EXTENSION)}")
_LOCK = ".lock"


class Found(NamedTuple):
    """One cache of a folder.

    Attributes:
        key: its name.
        path: its file.
        head: its header; None if it is damaged, or of another version.
        nbytes: bytes on disk, holes left out.
        used_at: when it was last opened, in seconds since 1970.
    """

    key: str
    path: str
    head: Head | None
    nbytes: int
    used_at: float


def caches(folder: str) -> list[Found]:
    """The caches of a folder, the least recently opened first.

    Raises:
        CacheError: the folder cannot be read.
    """
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CacheError(f"cannot read the cache folder {folder}: {error.strerror}") from error
    found = [_read_entry(folder, name) for name in names if _CACHE_NAME.fullmatch(name)]
    return sorted((one for one in found if one is not None), key=lambda one: one.used_at)


def _read_entry(folder: str, name: str) -> Found | None:
    path = os.path.join(folder, name)
    with contextlib.suppress(OSError):  # removed meanwhile, or not accessible
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            status = os.fstat(fd)
            nbytes = status.st_blocks * 512
            head = layout.read_head(fd)
            return Found(name.removesuffix(EXTENSION), path, head, nbytes, status.st_mtime)
        finally:
            os.close(fd)
    return None


def open_cache(
    folder: str, keys: Sequence[str], empty: Head, files: FileStates, size: int | None
) -> tuple[int, Granted]:
    """Opens or creates a cache, makes room for the files in it, and marks it as in use.

    Args:
        folder: created if it is missing.
        keys: names that the cache may have; if none exists, the first is created.
        empty: the header of a new one.
        files: those that need a row.
        size: limit of all caches together, in bytes; None for half of the sum of the free bytes
            and those of the caches.

    Returns:
        The file's descriptor, whose lock lasts as long as any copy of it, and the rows.

    Raises:
        CacheError: the folder cannot be used.
        OSError: the disk is full; see ``layout.is_full``.
    """
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
        lock = os.path.join(folder, _LOCK)
        with taking_turns(os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)):
            return _open_or_create(folder, keys, empty, files, size)
    except FileExistsError as error:
        raise CacheError(f"cannot use the cache folder {folder}: it is a file") from error
    except OSError as error:
        if isinstance(error, CacheError) or layout.is_full(error):
            raise
        raise CacheError(_error_text(folder, error)) from error


def _error_text(folder: str, error: OSError) -> str:
    """The error's text: the folder, or a file in it, which may be another user's, is unusable."""
    if error.filename in (None, folder):
        return f"cannot use the cache folder {folder}: {error.strerror}"
    return (
        f"cannot use {error.filename}: {error.strerror}; remove that file, or choose another "
        "--cache-dir (LOADERD_CACHE_DIR)"
    )


def _open_or_create(
    folder: str, keys: Sequence[str], empty: Head, files: FileStates, size: int | None
) -> tuple[int, Granted]:
    there = next(filter(None, (_open_existing(folder, key, empty) for key in keys)), None)
    key, fd, head = there or _create(folder, keys[0], empty)
    try:
        index = Index(fd, head, files)
        granted = index.grant(_make_room(folder, key, index, size))
        os.utime(fd)
    except BaseException:
        os.close(fd)
        if there is None:
            os.unlink(_path(folder, key))
        raise
    return fd, granted


def _open_existing(folder: str, key: str, empty: Head) -> tuple[str, int, Head] | None:
    """An existing cache; one that is damaged, or of another version, is removed."""
    path = _path(folder, key)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    head = layout.read_head(fd)
    if head is not None and head.row_bytes == empty.row_bytes:
        return key, fd, head
    os.close(fd)
    os.unlink(path)
    return None


def _create(folder: str, key: str, empty: Head) -> tuple[str, int, Head]:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return key, os.open(_path(folder, key), flags, 0o600), empty


def _path(folder: str, key: str) -> str:
    return os.path.join(folder, key + EXTENSION)


def remove(found: Found) -> None:
    """Removes a cache. Streams that use it keep it until they are closed.

    Raises:
        CacheError: it cannot be removed.
    """
    try:
        os.unlink(found.path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise CacheError(f"cannot remove {found.path}: {error.strerror}") from error


def _make_room(folder: str, key: str, index: Index, size: int | None) -> int:
    """Bytes that are left for a cache once others have been evicted.

    Its own unused rows are evicted as well, in turn with the other caches: least recently used
    first.
    """
    there = caches(folder)
    if size is None:
        state = os.statvfs(folder)
        size = (state.f_bavail * state.f_frsize + sum(found.nbytes for found in there)) // 2
    others = [found for found in there if found.key != key]
    taken = sum(_claim(other) for other in others)
    for other in others:
        if taken + index.claim(other.used_at) <= size:
            break
        if _is_unused(other):
            remove(other)
            taken -= _claim(other)
    return size - taken


def _claim(found: Found) -> int:
    """Bytes of a cache, or, while it is in use, those that it may grow to."""
    if found.head is None or _is_unused(found):
        return found.nbytes
    return max(found.nbytes, found.head.claim)


def _is_unused(found: Found) -> bool:
    """Whether no process has it open."""
    try:
        fd = os.open(found.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return lock_alone(fd)
    finally:
        os.close(fd)
