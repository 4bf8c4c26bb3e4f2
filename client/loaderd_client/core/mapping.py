"""Mappings of shared memory that hold no descriptor.

Python's ``mmap`` keeps a descriptor open as long as the mapping (before 3.13, always). Programs may
keep thousands of batches, each of a ring of its own, with a limit of 1024 descriptors.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from ctypes import c_int, c_size_t, c_ssize_t, c_void_p

from loaderd.ipc.owned import Owned

_libc = ctypes.CDLL(None, use_errno=True)
_map = _libc.mmap
_map.restype = c_void_p
_map.argtypes = [c_void_p, c_size_t, c_int, c_int, c_int, c_ssize_t]
_unmap = _libc.munmap
_unmap.argtypes = [c_void_p, c_size_t]
_advise = _libc.madvise
_advise.argtypes = [c_void_p, c_size_t, c_int]

_FAILED = c_void_p(-1).value

_mappings = Owned(_unmap)


class Mapping:
    """A segment mapped for reading and writing, until this object is freed.

    Args:
        fd: the segment; still owned by the caller.
        nbytes: its length.

    Attributes:
        address: its first byte.
        companion: what lives as long as the mapping, and the arrays on it.

    Raises:
        OSError: it cannot be mapped.
    """

    def __init__(self, fd: int, nbytes: int) -> None:
        address = _map(None, nbytes, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, 0)
        if address is None or address == _FAILED:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        self.address: int = address
        self.nbytes = nbytes
        self.companion: object = None
        _mappings.watch(self, address, nbytes)

    def empty(self, offset: int, nbytes: int) -> None:
        """Frees the memory of a range, for all processes that map the segment."""
        _advise(self.address + offset, nbytes, mmap.MADV_REMOVE)
