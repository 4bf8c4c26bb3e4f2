r"""Arrays by name, which travel beside a spec in sealed shared memory.

A client writes a bundle once; workers map it and read it in place, so nothing is pickled
and there is one copy for all of them. It holds what a spec cannot: images that the trainer
has in memory, a manifest of its own, statistics of the dataset, a pickled function::

    header | JSON: [name, dtype, shape, offset], ... | array | array | ...
    16 B

Arrays begin at multiples of 64 bytes. The memory has no name (memfd) and is sealed before
it is sent: nobody can change or shorten it while others read it.
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
from loaderd.ipc import segment
from loaderd.ipc.owned import Owned

Parts = Mapping[str, NDArray[Any]]

MAGIC = b"loaderdB"
SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL

_HEADER = struct.Struct("<8sQ")
_ALIGN = 64
_KINDS = "biuf"
_PIECE = 1 << 26  # bytes that are written at once
_COMPARED = 1 << 20  # bytes that are compared at once
_LONGEST_INDEX = 1 << 16

_descriptors = Owned(os.close)


class Bundle:
    """A sealed bundle of ours, to be sent with a spec as often as needed.

    Args:
        parts: arrays of numbers by name; the caller may free them afterwards.

    Attributes:
        fd: the descriptor; open until the bundle dies.
        nbytes: the length.
        parts: the arrays, read-only, where they lie now.

    Raises:
        InvalidArgument: an array holds something else than numbers.
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
    """Makes sure that a bundle which somebody sent can be read without harm.

    Raises:
        ProtocolError: it is no sealed memory, of another length, or not filled.
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
    if state.st_blocks * 512 < nbytes - _LONGEST_INDEX:
        # Whoever reads a hole takes memory for it, which nobody has counted.
        raise ProtocolError("the bundle has holes")


def attach(fd: int, nbytes: int) -> dict[str, NDArray[Any]]:
    """Maps a bundle and closes the descriptor; the arrays hold the mapping.

    Raises:
        NoRoom: it cannot be mapped.
        ProtocolError: it is damaged.
    """
    try:
        memory = segment.attach(fd, nbytes, writable=False)
    except OSError as error:
        raise NoRoom(f"a bundle of {nbytes:,} bytes cannot be mapped: {error.strerror}") from error
    return view(memory)


def attach_all(fds: Sequence[int], sizes: Sequence[int]) -> dict[str, NDArray[Any]]:
    """The same of several bundles, whose arrays have different names."""
    parts: dict[str, NDArray[Any]] = {}
    waiting = list(fds)
    try:
        for nbytes in sizes:
            parts |= attach(waiting.pop(0), nbytes)
    except BaseException:
        for fd in waiting:
            os.close(fd)
        raise
    return parts


def view(buffer: mmap.mmap) -> dict[str, NDArray[Any]]:
    """The arrays of a mapped bundle, read-only.

    Raises:
        ProtocolError: it is damaged.
    """
    if len(buffer) < _HEADER.size:
        raise ProtocolError(f"a bundle of {len(buffer)} bytes has no room for its header")
    magic, length = _HEADER.unpack_from(buffer)
    if magic != MAGIC or length > _LONGEST_INDEX:
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
    """Whether arrays are equal, NaN for NaN; without taking as much memory again."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    flat, others = (np.ascontiguousarray(each).reshape(-1).view(np.uint8) for each in (one, other))
    return all(
        np.array_equal(flat[first : first + _COMPARED], others[first : first + _COMPARED])
        for first in range(0, len(flat), _COMPARED)
    )


def _write(fd: int, parts: Parts) -> int:
    index, offset = [], _LONGEST_INDEX
    for name, part in parts.items():
        if part.dtype.kind not in _KINDS:
            raise InvalidArgument(f"{name} must be numbers, but its dtype is {part.dtype}")
        index.append((name, part.dtype.str, part.shape, offset))
        offset = -(-(offset + part.nbytes) // _ALIGN) * _ALIGN
    header = json.dumps(index).encode("ascii")
    try:
        os.ftruncate(fd, offset)
        os.pwrite(fd, _HEADER.pack(MAGIC, len(header)) + header, 0)
        for (_, _, _, at), part in zip(index, parts.values(), strict=True):
            _write_part(fd, part, at)
    except OSError as error:
        raise NoRoom(f"no room for a bundle of {offset:,} bytes: {error.strerror}") from error
    return offset


def _write_part(fd: int, part: NDArray[Any], at: int) -> None:
    for piece in _pieces(part):
        data = np.ascontiguousarray(piece).reshape(-1).view(np.uint8).data if piece.size else b""
        done = 0
        while done < len(data):
            done += os.pwrite(fd, data[done:], at + done)
        at += done


def _pieces(part: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Along the first axis, so that an array which must be made contiguous is not doubled."""
    if part.ndim == 0 or part.nbytes <= _PIECE:
        yield part
        return
    step = max(1, _PIECE * len(part) // part.nbytes)
    yield from (part[first : first + step] for first in range(0, len(part), step))
