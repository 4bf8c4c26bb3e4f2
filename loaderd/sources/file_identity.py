"""Keys and states of files: which file an image was decoded from, and in which state.

A file's key is a digest of its real path, so it does not depend on the dataset's folder or on
links. Its state is a digest of its size, modification time, inode number, and change time, which
the kernel sets and users cannot choose. Any change or replacement of a file changes its state.

The exception is one tick of the file system's clock: a file that has just changed may change
again with the same time. So an image of a file that fresh is not cached yet.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loaderd import storage
from loaderd.ipc.manifest import Location, Manifest, Members
from loaderd.spec import url as urls

Numbers = NDArray[np.int64]

UNREADABLE = 0
"""The state of a file that cannot be read, or must not be cached."""

_BITS, _ALL = 2**63 - 1, 2**64 - 1
_TYPE, _LINK = 0o170000, stat.S_IFLNK
_MAX_LINKS = 40
_FIELDS = attrgetter("st_size", "st_mtime_ns", "st_ctime_ns", "st_ino", "st_dev")
_NOTHING = (0, 0, 0, 0, -1)
_BLOCK = 2**16
_SECOND = 10**9
_TICK = _SECOND // 10
"""ns. Longer than any tick of a clock with a resolution below one second."""

_COARSE_TICK = 3 * _SECOND
"""ns. For file systems with a resolution of one or two seconds."""

_RENUMBERING = ("exfat", "fuse", "msdos", "vfat")
"""Prefixes of the names of file systems whose inode numbers are not stable."""

_MOUNTED_SECONDS = 10
"""How long the mount table is cached: a new disk may reuse a device number."""

_KEY_BYTES = 8


class FileStates(NamedTuple):
    """The files of a stream, by sample.

    Attributes:
        keys: of their paths, int64 (n,).
        states: present ones, int64 (n,); ``UNREADABLE`` where unknown.
    """

    keys: Numbers
    states: Numbers


def look(samples: Manifest) -> FileStates:
    """Keys and states of all files, or members of archives; about 5 µs each."""
    if samples.members is not None:
        return _look_at_members(samples.members, samples)
    if samples.objects is not None:
        return _look_at_objects(samples.objects, samples)
    root = os.path.join(os.fsencode(samples.root), b"") if samples.root else b""
    names = bytes(samples.names).split(b"\0")[:-1]
    folders: dict[bytes, bytes] = {}
    blocks = range(0, len(names), _BLOCK)
    with storage.asking(root):
        parts = [_look(root, names[at : at + _BLOCK], folders) for at in blocks]
    keys, states = zip(*parts, strict=True)
    return FileStates(np.concatenate(keys), np.concatenate(states))


def _look_at_objects(objects: Numbers, samples: Manifest) -> FileStates:
    """The key of an object is a digest of its URL, and its state is that of its listing."""
    root = os.fsencode(samples.root) + b"/"
    names = bytes(samples.names).split(b"\0")[:-1]
    keys = (hashlib.blake2b(root + name, digest_size=_KEY_BYTES).digest() for name in names)
    return FileStates(np.frombuffer(b"".join(keys), np.int64), objects[:, 1].copy())


def _look_at_members(members: Members, samples: Manifest) -> FileStates:
    """The key of a member is a digest of its archive's real path and its own."""
    starts, states = [], []
    for archive in members.archives:
        if urls.is_url(archive.path):
            starts.append(os.fsencode(urls.shown(archive.path)))
            states.append(object_state(archive.size, archive.tag))
            continue
        with storage.asking(archive.path):
            starts.append(os.fsencode(os.path.realpath(archive.path)))
            try:
                states.append(state_of(os.stat(archive.path)))
            except OSError:  # reading its members raises the error
                states.append(UNREADABLE)
    shown = [_below(one.path, samples.root) for one in members.archives]
    names = bytes(samples.names).split(b"\0")[:-1]
    numbers = members.locations[:, 0].tolist()
    digest = hashlib.blake2b
    keys = b"".join(
        digest(starts[at] + name[len(shown[at]) :], digest_size=_KEY_BYTES).digest()
        for at, name in zip(numbers, names, strict=True)
    )
    whole = np.array(states, np.uint64)[members.locations[:, 0]]
    offset, stored, skip = (
        members.locations[:, Location._fields.index(name)].astype(np.uint64)
        for name in ("offset", "stored", "skip")
    )
    found = np.maximum(_fold(whole, offset, stored, skip), 1).view(np.int64)
    found[whole == UNREADABLE] = UNREADABLE
    return FileStates(np.frombuffer(keys, np.int64), found)


def _below(path: str, root: str) -> bytes:
    short = urls.below(path, root) if urls.is_url(path) else os.path.relpath(path, root)
    return os.fsencode(short)


def member_state(archive: int, member: Location) -> int:
    """The state of a member of an archive of this state; never ``UNREADABLE``."""
    mixed: int = _fold(archive, member.offset, member.stored, member.skip)
    return max(mixed, 1)


def _look(root: bytes, names: list[bytes], folders: dict[bytes, bytes]) -> FileStates:
    """Keys and states of some files; inlined, as it runs for up to millions of files.

    Args:
        root: the folder of the names, with a trailing slash; may be empty.
        names: of the files.
        folders: real paths of folders; added to.
    """
    digests: list[bytes] = []
    fields: list[int] = []
    lstat, digest, ask = os.lstat, hashlib.blake2b, storage.ask
    for name in names:
        folder, slash, last = name.rpartition(b"/")
        folder += slash
        path = (folders.get(folder) or _resolve(root, folder, folders)) + last
        ask(path)
        try:
            status = lstat(path)
            if status.st_mode & _TYPE == _LINK:
                path, status = _follow(path, folders)
            fields += _FIELDS(status)
        except OSError:  # reading the file raises the error
            fields += _NOTHING
        digests.append(digest(path, digest_size=_KEY_BYTES).digest())
    return FileStates(np.frombuffer(b"".join(digests), np.int64), _states(fields))


def _resolve(root: bytes, folder: bytes, folders: dict[bytes, bytes]) -> bytes:
    """The real path of a folder, with a trailing slash; added to ``folders``."""
    storage.ask(root + folder)
    real = folders[folder] = os.path.join(os.path.realpath(root + folder), b"")
    return real


def _follow(path: bytes, folders: dict[bytes, bytes]) -> tuple[bytes, os.stat_result]:
    """The real path of a link's target, and its status; much faster than ``realpath``.

    Raises:
        OSError: it is missing, or the links form a loop.
    """
    for _ in range(_MAX_LINKS):
        folder, slash, last = path.rpartition(b"/")
        folder += slash
        real = folders.get(folder) or _resolve(b"", folder, folders)
        status = os.lstat(real + last)
        if not stat.S_ISLNK(status.st_mode):
            return real + last, status
        path = os.path.join(real, os.readlink(real + last))
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def _states(fields: list[int]) -> Numbers:
    """The states of files, from five numbers each; ``_NOTHING`` for unreadable ones."""
    try:
        table = np.array(fields, np.int64).reshape(-1, 5)
    except OverflowError:
        table = np.array([number & _ALL for number in fields], np.uint64).view(np.int64)
        table = table.reshape(-1, 5)
    devices = table[:, 4]
    for device in np.unique(devices).tolist():
        if device != _NOTHING[4] and not _keeps_numbers(device):
            table[devices == device, 3] = 0
    size, mtime, ctime, number = table[:, :4].T.view(np.uint64)
    states: Numbers = np.maximum(_fold(size, mtime, ctime, number), 1).view(np.int64)
    states[devices == _NOTHING[4]] = UNREADABLE
    return states


def state_of(status: os.stat_result) -> int:
    """A digest of any status; never ``UNREADABLE``."""
    number = status.st_ino if _keeps_numbers(status.st_dev) else 0
    mixed: int = _fold(status.st_size, status.st_mtime_ns, status.st_ctime_ns, number)
    return max(mixed, 1)


def object_state(size: int, tag: str) -> int:
    """A digest of the version of an object; ``UNREADABLE`` for one without an ETag."""
    if not tag:  # the time has seconds only, so that a change may not show
        return UNREADABLE
    digest = hashlib.blake2b(f"{size} {tag}".encode(), digest_size=8).digest()
    return max(int.from_bytes(digest, "big") & _BITS, 1)


def _fold(size: Any, mtime: Any, ctime: Any, number: Any) -> Any:
    """Integers, or uint64 arrays, folded into 63 bits."""
    return (
        size * 0x9E3779B97F4A7C15
        + mtime * 0xC2B2AE3D27D4EB4F
        + ctime * 0x165667B19E3779F9
        + number * 0xD6E8FEB86659FD93
    ) & _BITS


def settled_state(status: os.stat_result | None, before: int) -> int:
    """The state, if any later change would alter it; else ``UNREADABLE``.

    Args:
        status: of the file that was read; None if it changed meanwhile.
        before: a time, in ns since 1970, before it was opened.
    """
    if status is None:
        return UNREADABLE
    tick = _TICK if status.st_ctime_ns % _SECOND else _COARSE_TICK
    # A change time in the future comes from another clock, and does not mean a fresh file.
    fresh = before - tick < status.st_ctime_ns < time.time_ns() + tick
    return UNREADABLE if fresh else state_of(status)


def _keeps_numbers(device: int) -> bool:
    """Whether inode numbers on a device are stable; True for unknown file systems."""
    return _kept_numbers(device, int(time.monotonic()) // _MOUNTED_SECONDS)


@lru_cache(maxsize=64)
def _kept_numbers(device: int, period: int) -> bool:
    try:
        with open("/proc/self/mountinfo", "rb") as lines:
            mounts = lines.read().decode(errors="replace")
    except OSError:
        return True
    return not file_system(mounts, device).startswith(_RENUMBERING)


def file_system(mounts: str, device: int) -> str:
    """The name of a device's file system from the text of ``/proc/self/mountinfo``, or empty."""
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in mounts.splitlines():
        mount, _, source = line.partition(" - ")
        if mount.split(" ")[2:3] == [number]:
            return source.partition(" ")[0]
    return ""
