"""A manifest gives back what was packed, from any buffer, and refuses anything else."""

from __future__ import annotations

import mmap
import os
import struct

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loaderd.errors import ProtocolError
from loaderd.ipc.manifest import VERSION, Archive, Manifest, Members, pack, with_masks

file_names = st.binary(min_size=1, max_size=30).filter(lambda name: b"\0" not in name)
folder_names = st.binary(max_size=30).filter(lambda n: b"\0" not in n).map(os.fsdecode)


def int32(values: list[int]) -> npt.NDArray[np.int32]:
    return np.array(values, np.int32)


def a_table() -> bytes:
    return pack("/data", ["cat", "dog"], [b"cat/1.jpg", b"dog/2.jpg"], int32([0, 1]))


@given(folder_names, st.lists(folder_names), st.lists(file_names), st.data())
def test_what_was_packed_is_read_back(
    root: str, class_names: list[str], filenames: list[bytes], data: st.DataObject
) -> None:
    numbers = st.integers(-(2**31), 2**31 - 1)
    labels = data.draw(st.lists(numbers, min_size=len(filenames), max_size=len(filenames)))
    manifest = Manifest.view(pack(root, class_names, filenames, int32(labels)))
    assert manifest.root == root
    assert manifest.class_names == tuple(class_names)
    assert manifest.labels.tolist() == labels
    assert len(manifest) == len(filenames)
    assert manifest.filenames() == [os.fsdecode(name) for name in filenames]
    assert [manifest.path(i) for i in range(len(manifest))] == [
        os.path.join(os.fsencode(root), b"") + name for name in filenames
    ]


@pytest.mark.parametrize("root", ["/data", "/data/"])
def test_a_path_is_the_root_and_the_file_name(root: str) -> None:
    manifest = Manifest.view(pack(root, ["cat"], [b"cat/\xff.jpg"], int32([0])))
    assert manifest.path(0) == b"/data/cat/\xff.jpg"


def test_it_is_read_in_place_from_a_longer_mapping() -> None:
    table = a_table()
    with mmap.mmap(-1, len(table) + mmap.PAGESIZE) as shared:
        shared[: len(table)] = table
        manifest = Manifest.view(shared)
        at = table.index(b"dog/2.jpg")
        shared[at : at + 3] = b"DOG"  # a copy would not see this
        assert manifest.path(1) == b"/data/DOG/2.jpg"
        del manifest  # else the mapping could not be closed


def test_labels_lie_in_the_table_aligned_and_read_only() -> None:
    shared = mmap.mmap(-1, mmap.PAGESIZE)
    shared[: len(a_table())] = a_table()
    labels = Manifest.view(shared).labels
    assert labels.dtype == np.int32
    assert labels.ctypes.data % 64 == 0
    with pytest.raises(ValueError, match="read-only"):
        labels[0] = 1


@pytest.mark.parametrize("sample", [-1, 2])
def test_a_sample_that_does_not_exist_is_refused(sample: int) -> None:
    manifest = Manifest.view(a_table())
    with pytest.raises(IndexError, match=f"sample {sample} of 2"):
        manifest.path(sample)


def test_labels_that_do_not_fit_the_names_are_refused() -> None:
    with pytest.raises(ValueError, match="2 file names, but labels of shape"):
        pack("/data", [], [b"1.jpg", b"2.jpg"], int32([0]))


ARCHIVES = (Archive("/data/\udcff.tar", 5000, 17), Archive("/data/b.zip", 2**40, 2**60))
LOCATIONS = np.array(
    [[1, 2**39, 10, 20, 2**32 - 1, 1, 0, 0], [0, 512, 30, 30, -1, 2, 40, 80]],
)


def test_locations_in_archives_are_read_back_in_place() -> None:
    names, labels = [b"b.zip/2.jpg", b"a/1.jpg"], int32([1, 0])
    shared = mmap.mmap(-1, mmap.PAGESIZE)
    table = pack("/data", ["cat", "dog"], names, labels, Members(ARCHIVES, LOCATIONS))
    shared[: len(table)] = table
    manifest = Manifest.view(shared)
    assert manifest.members is not None
    assert manifest.members.archives == ARCHIVES
    np.testing.assert_array_equal(manifest.members.locations, LOCATIONS)
    assert manifest.members.locations.ctypes.data % 64 == 0
    assert not manifest.members.locations.flags.writeable
    assert manifest.filenames() == ["b.zip/2.jpg", "a/1.jpg"]
    assert manifest.labels.tolist() == [1, 0]
    assert Manifest.view(a_table()).members is None
    empty = pack("/data", [], [], int32([]), Members(ARCHIVES, LOCATIONS[:0]))
    found = Manifest.view(empty).members
    assert found is not None
    assert found.locations.shape == (0, 8)


def test_masks_are_read_back_with_the_samples() -> None:
    names, members = [b"a/1.jpg", b"a/2.jpg"], Members(ARCHIVES, LOCATIONS)
    masks = pack("/data", (), [b"a/1.png", b"a/2.png"], int32([0, 0]), members)
    table = with_masks(pack("/data", ["cat"], names, int32([0, 0]), members), masks)
    manifest = Manifest.view(table + bytes(100))
    assert manifest.masks is not None
    assert manifest.masks.members is not None
    assert (manifest.path(1), manifest.masks.path(1)) == (b"/data/a/2.jpg", b"/data/a/2.png")
    np.testing.assert_array_equal(manifest.masks.members.locations, LOCATIONS)
    assert manifest.filenames() == ["a/1.jpg", "a/2.jpg"]
    assert manifest.class_names == ("cat",)
    again = Manifest.view(bytes(manifest.table))
    assert again.masks is not None
    assert again.masks.filenames() == ["a/1.png", "a/2.png"]


def test_masks_that_do_not_fit_the_samples_are_refused() -> None:
    names, members = [b"a/1.jpg", b"a/2.jpg"], Members(ARCHIVES, LOCATIONS)
    one = pack("/data", (), names[:1], int32([0]), Members(ARCHIVES, LOCATIONS[:1]))
    for masks, why in (
        (one, "one for each"),
        (pack("/data", (), names, int32([0, 0])), "no members of archives"),
        (one[:-1], "ends after"),
        (b"x" * 64, "holds no manifest"),
    ):
        with pytest.raises(ProtocolError, match=why):
            Manifest.view(with_masks(pack("/data", (), names, int32([0, 0]), members), masks))


def test_locations_that_do_not_fit_the_names_are_refused() -> None:
    with pytest.raises(ValueError, match="locations of shape"):
        pack("/data", [], [b"1.jpg"], int32([0]), Members(ARCHIVES, LOCATIONS))


@pytest.mark.parametrize(
    ("kept", "why"),
    [(0, "no room for its header"), (63, "no room"), (64, "ends after 64"), (-1, "ends after")],
)
def test_half_a_table_is_refused(kept: int, why: str) -> None:
    with pytest.raises(ProtocolError, match=why):
        Manifest.view(a_table()[:kept])


@pytest.mark.parametrize(
    ("at", "data", "why"),
    [
        (0, b"X", "holds no manifest"),
        (8, struct.pack("<H", VERSION + 1), f"has version {VERSION + 1}, not {VERSION}"),
        (10, struct.pack("<H", 6), "is damaged"),
        (10, struct.pack("<H", 5), "is damaged"),
        (16, struct.pack("<Q", 3), "is damaged"),
        (16, struct.pack("<Q", 2**63), "is damaged"),
        (56, struct.pack("<Q", 2**63), "ends after"),
        (128 + 16, struct.pack("<q", 2**40), "do not fill their place"),
        (-1, b"X", "class names cannot be read"),
    ],
)
def test_a_damaged_table_is_refused(at: int, data: bytes, why: str) -> None:
    table = bytearray(a_table())
    at %= len(table)
    table[at : at + len(data)] = data
    with pytest.raises(ProtocolError, match=why):
        Manifest.view(table)


def test_an_ending_is_found_in_any_case() -> None:
    def packed(*names: bytes) -> Manifest:
        return Manifest.view(pack("/r", (), names, np.zeros(len(names), np.int32)))

    assert packed(b"a/1.jpg", b"a/2.TifF", b"b/3.png").has_extension(b".tiff")
    assert not packed(b"a.tiff/1.jpg", b"a/tiff", b"a/2.tiff2").has_extension(b".tiff")
    assert not packed().has_extension(b".tiff")
