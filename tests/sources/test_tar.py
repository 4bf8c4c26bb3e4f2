"""The members of tar archives are those that Python's own tarfile finds."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from loaderd.sources import tar
from loaderd.sources.member import Member, plain_name
from loaderd.sources.ranged import LocalFile
from tests.support.archives import tar_of

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
CONTENT = {
    "cat/1.jpg": b"one" * 500,
    "./dog//2.jpg": b"",
    "deep/" * 18 + "3.jpg": b"a name in two parts",
    "ünï/çödé.jpg": b"x" * 512,
    "last.jpg": b"y" * 513,
}


def members_of(path: Path) -> list[Member]:
    return list(tar.members(LocalFile(str(path))))


def contents_of(path: Path) -> list[tuple[str, bytes]]:
    data = path.read_bytes()
    return [(one.name, data[one.offset :][: one.size]) for one in members_of(path)]


@pytest.mark.parametrize("form", FORMATS)
def test_members_are_found_with_their_names_and_places(tmp_path: Path, form: int) -> None:
    long = {"long/" * 60 + "4.jpg": b"z"} if form != tarfile.USTAR_FORMAT else {}
    path = tar_of(tmp_path / "a.tar", CONTENT | long, form)
    expected = [(plain_name(name), data) for name, data in (CONTENT | long).items()]
    assert contents_of(path) == expected
    with tarfile.open(path) as archive:
        assert [one.offset_data for one in archive] == [one.offset for one in members_of(path)]


@pytest.mark.parametrize("form", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_those_of_the_command_tar_are_found(tmp_path: Path, form: str) -> None:
    folder = tmp_path / "tree"
    (folder / "cat").mkdir(parents=True)
    (folder / "cat" / "1.jpg").write_bytes(b"photo")
    path = tmp_path / "a.tar"
    subprocess.run(["tar", f"--format={form}", "-cf", path, "-C", folder, "."], check=True)
    assert contents_of(path) == [
        ("", b""),
        ("cat/", b""),
        ("cat/1.jpg", b"photo"),
    ]


def test_a_member_of_more_than_8_gib_has_a_binary_size(tmp_path: Path) -> None:
    member = tarfile.TarInfo("large.jpg")
    member.size = 9 * 2**30
    path = tmp_path / "a.tar"
    with open(path, "wb") as file:
        file.write(member.tobuf(tarfile.GNU_FORMAT))
        file.truncate(512 + member.size)
        file.seek(0, os.SEEK_END)
        file.write(tarfile.TarInfo("next.jpg").tobuf() + bytes(1024))
    assert [(one.name, one.size) for one in members_of(path)] == [
        ("large.jpg", member.size),
        ("next.jpg", 0),
    ]


def test_links_and_sparse_files_are_no_plain_members(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
            member = tarfile.TarInfo("link.jpg")
            member.type, member.linkname = kind, "cat/1.jpg"
            archive.addfile(member)
        archive.addfile(tarfile.TarInfo("after.jpg"))
    assert ["link" in one.trouble for one in members_of(path)] == [True, True, False, False]
    assert [bool(one.trouble) for one in members_of(path)] == [True, True, True, False]
    (tmp_path / "after.jpg").write_bytes(b"x")
    sparse = tmp_path / "holes.jpg"
    with open(sparse, "wb") as file:
        for at in range(0, 40 * 2**20, 2**20):  # more pieces than fit into one header
            file.seek(at)
            file.write(b"piece")
    for form in ("gnu", "posix"):
        words = ["tar", "--sparse", f"--format={form}", "-cf", str(path), sparse.name]
        subprocess.run([*words, "after.jpg"], check=True, cwd=tmp_path)
        assert ["sparse" in one.trouble for one in members_of(path)] == [True, False]


@pytest.mark.parametrize("kept", [1000, 2048 + 512, 3000])
def test_a_truncated_archive_is_refused_wherever_it_ends(tmp_path: Path, kept: int) -> None:
    path = tar_of(tmp_path / "a.tar", {"1.jpg": b"x" * 1000, "2.jpg": b"y" * 1000})
    os.truncate(path, kept)
    with pytest.raises(ValueError, match=r"it is truncated: .*(1|2)\.jpg"):
        members_of(path)


def test_one_that_ends_between_members_is_truncated_too(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", {"1.jpg": b"x" * 512, "2.jpg": b"y"})
    os.truncate(path, 1024)
    with pytest.raises(ValueError, match=r"ends at byte 1024, after 1\.jpg"):
        members_of(path)


def test_a_damaged_header_is_no_end_of_the_archive(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", {"1.jpg": b"x" * 512, "2.jpg": b"y"})
    with open(path, "r+b") as file:
        file.seek(1024 + 5)
        file.write(b"damage")
    with tarfile.open(path) as archive:
        assert archive.getnames() == ["1.jpg"]  # tarfile takes it for one
    with pytest.raises(ValueError, match=r"damaged: there is no header at byte 1024, after 1\.jpg"):
        members_of(path)


def test_what_is_no_tar_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(os.urandom(4096))
    with pytest.raises(ValueError, match="neither a tar nor a zip archive"):
        members_of(path)


def test_random_damage_to_headers_raises_nothing_else(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", {"long/" * 60 + "4.jpg": b"z", "b": b"c"}, tarfile.PAX_FORMAT)
    whole = path.read_bytes()
    for at in range(0, 3 * 512, 7):
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        path.write_bytes(damaged)
        try:
            assert members_of(path)
        except ValueError as error:
            assert "damaged" in str(error) or "neither" in str(error) or "truncated" in str(error)


def test_a_member_may_be_written_in_one_stream(tmp_path: Path) -> None:
    """As programs do that write shards of WebDataset."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w|") as archive:
        member = tarfile.TarInfo("1.jpg")
        member.size = 3
        archive.addfile(member, io.BytesIO(b"abc"))
    path = tmp_path / "a.tar"
    path.write_bytes(stream.getvalue())
    assert contents_of(path) == [("1.jpg", b"abc")]
