r"""Named arrays that are sent with a spec in sealed shared memory.

A client writes a bundle once; workers map it and read it in place, so nothing is pickled
and all share one copy. It holds what a spec cannot: images that the trainer
has in memory, a manifest of its own, statistics of the dataset, a pickled function::

    header | JSON: [name, dtype, shape, offset], ... | array | array | ...
    16 B

Arrays begin at multiples of 64 bytes. The memory has no name (memfd) and is sealed before
it is sent: it cannot be changed or shortened while others read it.
"""

from __future__ import annotations

import fcntl
import json
import math
import mmap
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loaderd.errors import InvalidArgument, NoRoom, ProtocolError
from loaderd.ipc import descriptors, segment
from loaderd.ipc.owned import Owned

Parts = Mapping[str, NDArray[Any]]

MAGIC = b"loaderdB"
SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL

_HEADER = struct.Struct("<8sQ")
_ALIGN = 64
_KINDS = "biuf"
_PIECE = 1 << 26  # bytes that are written at once
_COMPARED = 1 << 20  # bytes that are compared at once
_MAX_INDEX = 1 << 16

_descriptors = Owned(os.close)


class Bundle:
    """A sealed bundle of this process, to be sent with a spec as often as needed.

    Args:
        parts: arrays of numbers by name; the caller may free them afterwards.

    Attributes:
        fd: the descriptor; open until the bundle dies.
        nbytes: the length.
        parts: the arrays, as read-only views of the bundle.

    Raises:
        InvalidArgument: an array does not hold numbers.
        NoRoom: there is not enough memory.
    """

    def __init__(self, parts: Parts) -> None:
        self.fd = os.memfd_create("loaderd-bundle", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            self.nbytes = _write(self.fd, parts)
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, SEALS)
            self.parts = attach(os.dup(self.fd), self.nbytes)
        except BaseException:
            os.close(self.fd)
            raise
        _descriptors.watch(self, self.fd)


def check(fd: int, nbytes: int) -> None:
    """Checks that a received bundle is safe to read.

    Raises:
        ProtocolError: it is not sealed memory, has another length, or has holes.
    """
    try:
        sealed = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:
        sealed = 0
    if sealed & SEALS != SEALS:
        raise ProtocolError("the bundle is not sealed memory")
    state = os.fstat(fd)
    if state.st_size != nbytes:
        raise ProtocolError(f"the bundle has {state.st_size} bytes, not {nbytes}")
    if state.st_blocks * 512 < nbytes - _MAX_INDEX:
        # Reading a hole allocates memory that is in no account.
        raise ProtocolError("the bundle has holes")


def attach(fd: int, nbytes: int) -> dict[str, NDArray[Any]]:
    """Maps a bundle and closes the descriptor; the arrays keep the mapping alive.

    Raises:
        NoRoom: it cannot be mapped.
        ProtocolError: it is damaged.
    """
    try:
        memory = segment.attach(fd, nbytes, writable=False)
    except OSError as error:
        raise NoRoom(f"a bundle of {nbytes:,} bytes cannot be mapped: {error.strerror}") from error
    return _arrays(memory)


def attach_all(fds: Sequence[int], sizes: Sequence[int]) -> dict[str, NDArray[Any]]:
    """:func:`attach` for several bundles, whose arrays have different names."""
    parts: dict[str, NDArray[Any]] = {}
    waiting = list(fds)
    try:
        for nbytes in sizes:
            parts |= attach(waiting.pop(0), nbytes)
    finally:
        descriptors.close_all(waiting)
    return parts


def _arrays(buffer: mmap.mmap) -> dict[str, NDArray[Any]]:
    """The arrays of a mapped bundle, read-only."""
    if len(buffer) < _HEADER.size:
        raise ProtocolError(f"a bundle of {len(buffer)} bytes has no room for its header")
    magic, length = _HEADER.unpack_from(buffer)
    if magic != MAGIC or length > _MAX_INDEX:
        raise ProtocolError("the segment holds no bundle")
    try:
        index = json.loads(buffer[_HEADER.size : _HEADER.size + length])
        return {
            name: _view(buffer, dtype, tuple(shape), offset) for name, dtype, shape, offset in index
        }
    except (ValueError, TypeError, OverflowError, RecursionError, SyntaxError) as error:
        raise ProtocolError(f"the bundle is damaged: {error}") from error


def _view(buffer: mmap.mmap, dtype: str, shape: tuple[int, ...], offset: int) -> NDArray[Any]:
    kind = np.dtype(dtype)
    if kind.kind not in _KINDS or min(shape, default=0) < 0:
        raise ValueError(f"an array of {kind} and shape {shape}")
    flat = np.frombuffer(buffer, kind, math.prod(shape), offset)
    return flat.reshape(shape)


def same_bytes(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Whether arrays are equal byte for byte (so NaN equals NaN), without copying them whole."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    flat, others = (np.ascontiguousarray(each).reshape(-1).view(np.uint8) for each in (one, other))
    return all(
        np.array_equal(flat[first : first + _COMPARED], others[first : first + _COMPARED])
        for first in range(0, len(flat), _COMPARED)
    )


def _write(fd: int, parts: Parts) -> int:
    index, offset = [], _MAX_INDEX
    for name, part in parts.items():
        if part.dtype.kind not in _KINDS:
            raise InvalidArgument(f"{name} must be numbers, but its dtype is {part.dtype}")
        index.append((name, part.dtype.str, part.shape, offset))
        offset = -(-(offset + part.nbytes) // _ALIGN) * _ALIGN
    header = json.dumps(index).encode("ascii")
    try:
        os.ftruncate(fd, offset)
        with open(fd, "wb", closefd=False) as file:
            file.write(_HEADER.pack(MAGIC, len(header)) + header)
            for (_, _, _, at), part in zip(index, parts.values(), strict=True):
                file.seek(at)
                for piece in _pieces(part):
                    file.write(np.ascontiguousarray(piece).data)
    except OSError as error:
        raise NoRoom(f"no room for a bundle of {offset:,} bytes: {error.strerror}") from error
    return offset


def _pieces(part: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Slices along the first axis: only a slice is copied to make it contiguous."""
    if part.ndim == 0 or part.nbytes <= _PIECE:
        yield part
        return
    step = max(1, _PIECE * len(part) // part.nbytes)
    yield from (part[first : first + step] for first in range(0, len(part), step))
