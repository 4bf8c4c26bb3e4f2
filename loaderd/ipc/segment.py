"""Blocks of shared memory without names.

The supervisor creates rings as ``multiprocessing.shared_memory`` segments, keeps a descriptor
and unlinks the name at once; other segments never have a name. The kernel frees a segment with its
last descriptor or mapping, whichever process is killed. Descriptors are sent over the sockets; no
process attaches by name, so the resource tracker never sees one that does.
"""

from __future__ import annotations

import errno
import mmap
import os
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory

from loaderd.errors import NoRoom, RoomTaken

SHM = "/dev/shm"


def prepare() -> None:
    """Starts multiprocessing's resource tracker, so that the first segment need not wait for it."""
    resource_tracker.ensure_running()


def create(size: int) -> int:
    """Creates a segment of ``size`` bytes and returns its only descriptor.

    Raises:
        NoRoom: the system refuses it.
    """
    try:
        memory = SharedMemory(create=True, size=size)
    except OSError as error:
        raise NoRoom(f"no segment of {size} bytes in {SHM}: {error.strerror}") from error
    try:
        return os.open(f"{SHM}/{memory.name}", os.O_RDWR | os.O_CLOEXEC)
    finally:
        memory.unlink()
        memory.close()


def reserve(fd: int, size: int) -> None:
    """Allocates the pages now, so that lack of memory is an error here, not a SIGBUS later.

    Raises:
        NoRoom: the machine has less than ``size`` bytes in all.
        RoomTaken: less than ``size`` bytes are free now.
    """
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.ENOMEM):
            raise
        kind = NoRoom if size > total() else RoomTaken
        raise kind(room_text(size, free())) from error


def free() -> int:
    """Free bytes of shared memory on the machine."""
    state = os.statvfs(SHM)
    return state.f_bavail * state.f_frsize


def total() -> int:
    """Bytes of shared memory on the machine, free and used."""
    state = os.statvfs(SHM)
    return state.f_blocks * state.f_frsize


def room_text(asked: int, there: int) -> str:
    """The text of NoRoom for a lack of shared memory."""
    return (
        f"the ring needs {asked:,} bytes of shared memory and {SHM} has {there:,} free: "
        "lower batch_size, target_size or max_queue_size, or make it larger "
        "(docker run --shm-size)"
    )


def attach(fd: int, size: int, *, writable: bool) -> mmap.mmap:
    """Maps a segment and closes the descriptor."""
    access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    try:
        return mmap.mmap(fd, size, mmap.MAP_SHARED, access)
    finally:
        os.close(fd)


def publish(data: bytes | memoryview) -> int:
    """Creates a segment that holds ``data``; returns its descriptor.

    Needs no resource tracker, unlike ``create``: short-lived processes would each start one.

    Raises:
        NoRoom: there is no memory for it.
    """
    fd = os.memfd_create("loaderd-table")
    try:
        reserve(fd, len(data))
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
    except BaseException:
        os.close(fd)
        raise
    return fd
