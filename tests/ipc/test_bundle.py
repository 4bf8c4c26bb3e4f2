"""A bundle carries arrays by name, as they are, and nobody can change it on the way."""

from __future__ import annotations

import fcntl
import os
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from loaderd.errors import InvalidArgument, NoRoom, ProtocolError
from loaderd.ipc import bundle
from loaderd.ipc.bundle import Bundle

DTYPES = st.sampled_from(["u1", "i2", "<i4", "<i8", "<f2", "<f4", "<f8", "?"])
ARRAYS = hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
NAMES = st.text("abcdefgh", min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(NAMES, ARRAYS, max_size=4))
def test_arrays_arrive_as_they_were(parts: dict[str, Any]) -> None:
    packed = Bundle(parts)
    bundle.check(packed.fd, packed.nbytes)
    arrived = bundle.attach(os.dup(packed.fd), packed.nbytes)
    assert arrived.keys() == parts.keys()
    for name, part in parts.items():
        np.testing.assert_array_equal(arrived[name], part)
        assert arrived[name].dtype == part.dtype
        assert not arrived[name].flags.writeable
        assert arrived[name].ctypes.data % 64 == 0


def test_arrays_need_not_be_contiguous() -> None:
    whole = np.arange(3 * 40 * 50 * 3).reshape(3, 40, 50, 3)
    for part in (whole.transpose(0, 3, 1, 2), whole[::-1, ::2], whole[:, :, ::-1]):
        np.testing.assert_array_equal(Bundle({"images": part}).parts["images"], part)


def test_large_arrays_are_written_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "_PIECE", 1000)
    images = np.random.default_rng(0).integers(0, 256, (77, 9, 11, 3), np.uint8)
    np.testing.assert_array_equal(Bundle({"images": images}).parts["images"], images)
    np.testing.assert_array_equal(
        Bundle({"images": images[:, ::-1]}).parts["images"], images[:, ::-1]
    )


def test_arrays_outlive_their_bundle() -> None:
    kept = Bundle({"mean": np.arange(5.0)}).parts["mean"]
    assert kept.tolist() == [0, 1, 2, 3, 4]


def test_a_bundle_leaves_no_descriptor_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        Bundle({"mean": np.arange(5.0)})
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("part", [np.array(["a"]), np.array([None]), np.array([1j])])
def test_only_numbers_travel(part: Any) -> None:
    with pytest.raises(InvalidArgument, match="labels must be numbers"):
        Bundle({"labels": part})


def test_nobody_can_write_to_a_bundle() -> None:
    packed = Bundle({"mean": np.arange(5.0)})
    with pytest.raises(PermissionError):
        os.pwrite(packed.fd, b"x", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(packed.fd, 0)


def test_memory_that_is_not_sealed_is_refused() -> None:
    packed = Bundle({"mean": np.arange(5.0)})
    fd = os.memfd_create("open", os.MFD_ALLOW_SEALING)
    os.write(fd, os.pread(packed.fd, packed.nbytes, 0))
    with pytest.raises(ProtocolError, match="not sealed"):
        bundle.check(fd, packed.nbytes)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, bundle.SEALS & ~fcntl.F_SEAL_SHRINK & ~fcntl.F_SEAL_SEAL)
    with pytest.raises(ProtocolError, match="not sealed"):
        bundle.check(fd, packed.nbytes)
    os.close(fd)


def test_what_is_no_memory_is_refused() -> None:
    reader, writer = os.pipe()
    with pytest.raises(ProtocolError, match="not sealed"):
        bundle.check(reader, 10)
    os.close(reader)
    os.close(writer)


def test_a_wrong_length_is_refused() -> None:
    packed = Bundle({"mean": np.arange(5.0)})
    with pytest.raises(ProtocolError, match="bytes, not"):
        bundle.check(packed.fd, packed.nbytes + 1)


def test_a_bundle_with_holes_is_refused() -> None:
    nbytes = 2**20
    fd = os.memfd_create("holes", os.MFD_ALLOW_SEALING)
    os.truncate(fd, nbytes)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, bundle.SEALS)
    with pytest.raises(ProtocolError, match="holes"):
        bundle.check(fd, nbytes)
    os.close(fd)


def test_what_cannot_be_mapped_is_a_clear_error() -> None:
    fd = os.open("/", os.O_RDONLY)
    with pytest.raises(NoRoom, match="cannot be mapped"):
        bundle.attach(fd, 4096)


@pytest.mark.parametrize("data", [b"short", b"x" * 100, bundle.MAGIC + b"\xff" * 92])
def test_bytes_that_are_no_bundle_are_refused(data: bytes) -> None:
    fd = os.memfd_create("odd")
    os.write(fd, data)
    with pytest.raises(ProtocolError):
        bundle.attach(fd, len(data))


@pytest.mark.parametrize(
    "index",
    [
        b'[["a", "O", [1], 0]]',
        b'[["a", "<f8", [1000000], 0]]',
        b'[["a", "<f8", [1], 10000000]]',
        b'[["a", "<f8", [-1], 0]]',
        b'[["a", "<f8"]]',
        b'[["a", ",", [1], 0]]',
        b'[["a", "\\ud800", [1], 0]]',
        b"{}}",
        b"[1]",
    ],
)
def test_an_index_that_lies_is_refused(index: bytes) -> None:
    fd = os.memfd_create("odd")
    header = bundle.MAGIC + len(index).to_bytes(8, "little") + index
    os.write(fd, header.ljust(4096, b"\0"))
    with pytest.raises(ProtocolError):
        bundle.attach(fd, 4096)


def test_a_bundle_without_room_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "ftruncate", full)
    with pytest.raises(NoRoom, match=r"bundle of [\d,]+ bytes: No space left"):
        Bundle({"mean": np.arange(5.0)})
