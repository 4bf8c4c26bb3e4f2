"""Archives are indexed once, and any sample of theirs is one read at its place."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import tarfile
import zipfile
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loaderd.errors import BadArchive, BadImage, CacheError, InvalidArgument, ProtocolError
from loaderd.ipc import manifest
from loaderd.ipc.manifest import Manifest, Members
from loaderd.sources import archives, file_identity, index_file
from loaderd.sources.archive_index import index_of
from loaderd.sources.archives import Indexer, list_members
from loaderd.sources.directory import Listing, list_samples
from loaderd.sources.files import NO_LIMIT, FileLimit
from loaderd.sources.groups import Recipe
from loaderd.sources.index_file import ArchiveIndex
from loaderd.sources.members import MAX_OPEN, MemberSource
from loaderd.sources.ranged import LocalFile
from loaderd.spec.source import Archives, Directory
from tests.support.archives import Content, tar_of, zip_of
from tests.support.daemons import eventually

EXTENSIONS = (".jpg", ".png")
TREE = {
    "notes.txt": b"no image",
    "dog/b.jpg": b"dog b",
    "dog/a.png": b"dog a",
    "cat/x/2.jpg": b"cat x 2",
    "cat/x-y/1.jpg": b"cat x-y 1",
    "cat/10.JPG": b"cat 10",
    "cat/9.jpg": b"cat 9",
    ".hidden/h.jpg": b"hidden",
    "emu/no-image.gif": b"",
}
PAIRS = {"b.jpg": b"one", "b.cls": b"1\n", "a.seg.png": b"mask", "a.png": b"two", "a.cls": b"0"}


def source(*paths: Path, **fields: Any) -> Archives:
    given: dict[str, Any] = {
        "extensions": EXTENSIONS,
        "hidden": False,
        "directory": "here",
    } | fields
    return Archives(paths=tuple(map(str, paths)), **given)


def listed(asked: Archives, cache: Path) -> Listing:
    indexes = Indexer(asked.paths, Recipe.of(asked), str(cache)).run(lambda *_: None)
    return list_members(asked, indexes)


def table_of(listing: Listing) -> Manifest:
    table = manifest.pack(
        listing.root, listing.class_names, listing.filenames, listing.labels, listing.members
    )
    return Manifest.view(table)


def test_the_last_archive_may_end_at_any_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after it was seen to go on, and before it is asked for."""
    made: Future[ArchiveIndex] = Future()

    def wait(*_: object) -> tuple[set[object], set[object]]:
        if made.done():
            return {made}, set()
        made.set_exception(BadArchive("the last one"))
        return set(), {made}

    monkeypatch.setattr(archives, "wait", wait)
    indexer = Indexer(["a.tar"], Recipe.of(source(tmp_path / "a.tar")), str(tmp_path))
    with pytest.raises(BadArchive, match="the last one"):
        indexer._watch([made], lambda *_: None)


def test_archives_that_only_a_query_tells_apart_have_an_index_each(tmp_path: Path) -> None:
    recipe, folder = Recipe.of(source(tmp_path / "a.tar")), tmp_path / "indexes"
    for name in ("a", "b", "a", "b"):
        path = str(tmp_path / f"{name}.tar")
        if not os.path.exists(path):
            tar_of(Path(path), {f"cat/{name}.jpg": b"cat"})
        eventually(lambda path=path: LocalFile(path).is_settled())  # type: ignore[misc]
        url, file = f"https://h/get?file={name}", LocalFile(path)
        found = index_of(url, recipe, str(folder), lambda _: None, file)
        assert found.names == [f"cat/{name}.jpg"]
    assert len(list(folder.iterdir())) == 2


def contents_of(listing: Listing) -> list[bytes]:
    read = MemberSource(table_of(listing), NO_LIMIT)
    return [bytes(read.read(sample)) for sample in range(len(read))]


def unpack(content: Content, folder: Path) -> Path:
    for name, data in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def stored_zip(path: Path, content: Content) -> Path:
    return zip_of(path, content, zipfile.ZIP_STORED)


WRITERS: dict[str, Callable[[Path, Content], Path]] = {
    "tar": tar_of,
    "deflated zip": zip_of,
    "stored zip": stored_zip,
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"flat": True},
        {"classes": ("emu", "dog")},
        {"shuffle_seed": 5, "split_overall": (0.4, "validation")},
        {"shuffle_seed": 5, "split_overall": (0.4, "training")},
    ],
    ids=repr,
)
def test_class_folders_are_listed_as_those_of_a_directory(
    tmp_path: Path, write: Callable[[Path, Content], Path], fields: dict[str, Any]
) -> None:
    folder = unpack(TREE, tmp_path / "tree")
    of_files = list_samples(
        Directory(directory=str(folder), extensions=EXTENSIONS, hidden=False, **fields)
    )
    found = listed(source(write(tmp_path / "a.bin", TREE), **fields), tmp_path)
    assert found.class_names == of_files.class_names
    assert found.labels.tolist() == of_files.labels.tolist()
    assert found.filenames == [b"a.bin/" + name for name in of_files.filenames]
    assert contents_of(found) == [
        (folder / os.fsdecode(n)).read_bytes() for n in of_files.filenames
    ]


def test_class_folders_of_several_archives_make_one_directory(tmp_path: Path) -> None:
    names = sorted(TREE)
    (tmp_path / "sub").mkdir()
    one = tar_of(tmp_path / "sub" / "1.tar", {"top/" + n: TREE[n] for n in names[::2]})
    two = zip_of(tmp_path / "2.zip", {"top/" + n: TREE[n] for n in names[1::2]})
    whole = list_samples(
        Directory(
            directory=str(unpack(TREE, tmp_path / "tree")), extensions=EXTENSIONS, hidden=False
        )
    )
    found = listed(source(one, two, folder="top"), tmp_path)
    assert [re.sub(b".*/top/", b"", name) for name in found.filenames] == whole.filenames
    assert found.root == str(tmp_path)
    assert {name.split(b"/top/")[0] for name in found.filenames} == {b"sub/1.tar", b"2.zip"}
    assert listed(source(one, two), tmp_path).class_names == ("top",)


def test_of_members_with_one_name_the_last_counts_as_by_unpacking(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    tar_of(path, {"cat/1.jpg": b"old"})
    with tarfile.open(path, "a") as archive:
        (tmp_path / "new").write_bytes(b"new")
        archive.add(tmp_path / "new", "./cat/1.jpg")
    assert contents_of(listed(source(path), tmp_path)) == [b"new"]


@pytest.mark.parametrize(
    ("label", "texts", "names", "numbers"),
    [
        ("cls", ["2", "0\n"], ("0", "1", "2"), [2, 0]),
        ("txt", ["dog", " cat\n"], ("cat", "dog"), [1, 0]),
        ("json", ['{"label": "dog"}', '{"label": "cat"}'], ("cat", "dog"), [1, 0]),
        ("json:kind", ['{"kind": 1}', '{"kind": 0}'], ("0", "1"), [1, 0]),
    ],
)
def test_labels_are_numbers_or_names_of_classes(
    tmp_path: Path, label: str, texts: list[str], names: tuple[str, ...], numbers: list[int]
) -> None:
    extension = label.partition(":")[0]
    content: dict[str, bytes] = {}
    for key, text in zip(("k/2", "k/1"), texts, strict=True):
        content |= {f"{key}.jpg": key.encode(), f"{key}.{extension}": text.encode()}
    found = listed(source(tar_of(tmp_path / "a.tar", content), label=label), tmp_path)
    assert found.filenames == [b"a.tar/k/2.jpg", b"a.tar/k/1.jpg"]  # the archive's order
    assert (found.class_names, found.labels.tolist()) == (names, numbers)
    assert contents_of(found) == [b"k/2", b"k/1"]


def test_members_of_a_key_need_not_be_neighbours_and_others_are_left_out(tmp_path: Path) -> None:
    found = listed(source(tar_of(tmp_path / "a.tar", PAIRS)), tmp_path)
    assert found.filenames == [b"a.tar/b.jpg", b"a.tar/a.png"]
    other = source(tmp_path / "a.tar", extensions=(".seg.png", ".jpg"))
    assert listed(other, tmp_path).filenames == [b"a.tar/b.jpg", b"a.tar/a.seg.png"]


def test_class_names_order_and_choose_the_names_of_labels(tmp_path: Path) -> None:
    names = {"1.jpg": b"1", "1.txt": b"dog", "2.jpg": b"2", "2.txt": b"cat"}
    path = tar_of(tmp_path / "a.tar", names)
    found = listed(source(path, classes=("dog",)), tmp_path)
    assert (found.class_names, found.filenames) == (("dog",), [b"a.tar/1.jpg"])
    with pytest.raises(InvalidArgument, match="emu"):
        listed(source(path, classes=("emu",)), tmp_path)
    numbers = tar_of(tmp_path / "b.tar", PAIRS)
    assert listed(source(numbers, classes=("x", "y", "z")), tmp_path).class_names == ("x", "y", "z")
    with pytest.raises(InvalidArgument, match="`class_names` has 1 names"):
        listed(source(numbers, classes=("x",)), tmp_path)


def test_without_labels_none_are_needed(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", {"b.jpg": b"1", "a.jpg": b"2"})
    asked = source(path, layout="webdataset", label=None, flat=True)
    assert listed(asked, tmp_path).filenames == [b"a.tar/b.jpg", b"a.tar/a.jpg"]


BAD: dict[str, tuple[Content, dict[str, Any], str]] = {
    "no label": ({"a.jpg": b"", "b.jpg": b"", "b.cls": b"1"}, {}, r"a\.jpg has no label"),
    "no label anywhere": ({"a.jpg": b""}, {"layout": "webdataset"}, "no member cls or json or txt"),
    "two images": (
        {"a.jpg": b"", "a.png": b"", "a.cls": b"1"},
        {},
        r"key a has two images, a\.jpg and a\.png",
    ),
    "no image": ({**PAIRS, "c.cls": b"1"}, {}, r"c\.cls is the label of no image"),
    "no number": ({"a.jpg": b"", "a.cls": b"cat"}, {}, r"a\.cls is no label.*whole number"),
    "no name": ({"a.jpg": b"", "a.txt": b" \n"}, {}, r"a\.txt is no label: it is empty"),
    "no text": ({"a.jpg": b"", "a.txt": b"\xff"}, {}, r"a\.txt is no label.*utf-8"),
    "no JSON": ({"a.jpg": b"", "a.json": b"{"}, {}, r"a\.json is no JSON"),
    "no field": ({"a.jpg": b"", "a.json": b"{}"}, {}, r"a\.json has no label: its field 'label'"),
    "huge": ({"a.jpg": b"", "a.cls": b"9" * 5000}, {}, r"a\.cls is no label"),
    "many classes": ({"a.jpg": b"", "a.cls": b"999999"}, {}, "1,000,000 classes"),
    "mixed": (
        {"a.jpg": b"", "a.json": b'{"label": 1}', "b.jpg": b"", "b.json": b'{"label": "x"}'},
        {},
        "some labels are whole numbers and some are names",
    ),
}


@pytest.mark.parametrize(("content", "fields", "words"), BAD.values(), ids=BAD)
def test_members_that_make_no_samples_are_named(
    tmp_path: Path, content: Content, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(BadArchive, match=words):
        listed(source(tar_of(tmp_path / "a.tar", content), **fields), tmp_path)


def test_archives_of_one_dataset_are_alike(tmp_path: Path) -> None:
    paths = [tar_of(tmp_path / "a.tar", TREE), tar_of(tmp_path / "b.tar", PAIRS)]
    with pytest.raises(BadArchive, match=r"b\.tar: it holds samples with labels in \.cls, and .*a"):
        listed(source(*paths), tmp_path)


@pytest.mark.parametrize(
    ("tool", "compress"),
    [("gzip", gzip.compress), ("bzip2", bz2.compress), ("xz", lzma.compress)],
)
def test_archives_that_are_compressed_as_a_whole_are_refused(
    tmp_path: Path, tool: str, compress: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "a.tar.z"
    path.write_bytes(compress(tar_of(tmp_path / "a.tar", PAIRS).read_bytes()))
    with pytest.raises(BadArchive, match=rf"a\.tar\.z: it is compressed as a whole \(by {tool}\)"):
        listed(source(path), tmp_path)


def test_archives_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.tar").touch()
    os.mkfifo(tmp_path / "pipe.tar")
    whole = zip_of(tmp_path / "a.zip", TREE).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[:-30])
    zip_of(tmp_path / "lzma.zip", {"cat/1.jpg": b"x"}, zipfile.ZIP_LZMA)
    for name, words in {
        "missing.tar": "No such file",
        "empty.tar": "it is empty",
        "pipe.tar": "not a regular file",
        "cut.zip": "truncated or damaged",
        "lzma.zip": r"cat/1\.jpg is neither stored nor deflated",
    }.items():
        with pytest.raises(BadArchive, match=f"{name}: .*{words}"):
            listed(source(tmp_path / name), tmp_path)


# -- indexes that are kept ---------------------------------------------------------------


def scans(path: Path, cache: Path) -> tuple[ArchiveIndex, bool]:
    """The index of an archive, and whether the archive was looked through for it."""
    told: list[int] = []
    recipe = Recipe("auto", "auto", EXTENSIONS)
    found = index_of(str(path), recipe, str(cache), told.append)
    return found, len(told) > 1


def kept(path: Path, cache: Path) -> ArchiveIndex:
    """The index, once it is kept: not while the archive may yet change within a clock's tick."""
    eventually(lambda: not scans(path, cache)[1])
    return scans(path, cache)[0]


def test_an_index_is_kept_until_the_archive_changes(tmp_path: Path) -> None:
    path, cache = tar_of(tmp_path / "a.tar", PAIRS), tmp_path / "cache"
    first = kept(path, cache)
    assert first.names == ["b.jpg", "a.png"]
    assert os.stat(cache).st_mode & 0o077 == 0
    tar_of(path, {"c.jpg": b"1", "c.cls": b"1"})
    assert scans(path, cache)[1]
    assert kept(path, cache).names == ["c.jpg"]
    assert len(list(cache.iterdir())) == 1


def test_a_damaged_index_is_made_again(tmp_path: Path) -> None:
    path, cache = tar_of(tmp_path / "a.tar", PAIRS), tmp_path / "cache"
    first = kept(path, cache)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    for damaged in (b"", whole[:-1], whole[:30] + b"x" + whole[31:]):
        file.write_bytes(damaged)
        assert scans(path, cache) == (first, True)


def test_a_folder_that_cannot_hold_indexes_is_named(tmp_path: Path) -> None:
    (tmp_path / "archives").write_text("no folder")
    path = tar_of(tmp_path / "a.tar", PAIRS)

    def is_named() -> bool:
        try:
            listed(source(path), tmp_path)
        except CacheError as error:
            return "archives" in str(error) and "--cache-dir" in str(error)
        return False

    eventually(is_named)


# -- reading -----------------------------------------------------------------------------


def test_few_archives_are_held_open_and_none_afterwards(tmp_path: Path) -> None:
    paths = [
        tar_of(tmp_path / f"{n:02}.tar", {"a.jpg": b"%d" % n, "a.cls": b"0"}) for n in range(20)
    ]
    found = listed(source(*paths), tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    read = MemberSource(table_of(found), NO_LIMIT)
    assert len(os.listdir("/proc/self/fd")) == before  # opened by the worker that reads
    for sample in [*range(20), 3, 19, 0]:
        assert bytes(read.read(sample)) == b"%d" % sample
        assert len(os.listdir("/proc/self/fd")) <= before + MAX_OPEN
    del read
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_archive_that_was_changed_is_named_with_the_member(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", PAIRS)
    found = listed(source(path), tmp_path)
    read = MemberSource(table_of(found), NO_LIMIT)
    assert bytes(read.read(0)) == b"one"
    with open(path, "ab") as file:
        file.write(bytes(512))
    for reader in (read, MemberSource(table_of(found), NO_LIMIT)):
        with pytest.raises(BadArchive, match=r"a\.tar/a\.png: it was changed after it was indexed"):
            reader.read(1)
    path.unlink()
    with pytest.raises(BadArchive, match=r"a\.tar/a\.png: the archive is gone"):
        read.read(1)
    path.symlink_to(path)
    with pytest.raises(BadArchive, match=r"a\.tar/a\.png: the archive cannot be opened: Too many"):
        read.read(1)


def test_one_that_was_replaced_is_read_as_it_was_by_those_who_have_it_open(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", PAIRS)
    found = listed(source(path), tmp_path)
    read = MemberSource(table_of(found), NO_LIMIT)
    assert bytes(read.read(0)) == b"one"
    os.replace(tar_of(tmp_path / "b.tar", dict(reversed(PAIRS.items()))), path)
    assert bytes(read.read(1)) == b"two"
    with pytest.raises(BadArchive, match="changed after it was indexed"):
        MemberSource(table_of(found), NO_LIMIT).read(1)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damaged_members_of_zips_are_bad_images(tmp_path: Path, method: int) -> None:
    content = {f"cat/{n}.jpg": bytes(range(256)) * 2 + b"x" * 500 for n in range(3)}
    path = zip_of(tmp_path / "a.zip", content, method)
    found = listed(source(path), tmp_path).members
    assert found is not None
    with open(path, "r+b") as file:
        file.seek(int(found.locations[1, 1]) + 100)
        file.write(b"damage")
    read = MemberSource(table_of(listed(source(path), tmp_path)), NO_LIMIT)
    assert bytes(read.read(0)) == content["cat/0.jpg"]
    with pytest.raises(BadImage, match=r"a\.zip/cat/1\.jpg: .*damaged"):
        read.read(1)
    assert bytes(read.read(2)) == content["cat/2.jpg"]


def test_a_zip_that_unpacks_to_more_than_it_says_is_a_bad_image(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {"cat/1.jpg": bytes(10**6)})
    found = listed(source(path), tmp_path)
    assert found.members is not None
    locations = found.members.locations.copy()
    locations[0, 3] = 1000
    changed = Listing(
        found.root,
        found.class_names,
        found.filenames,
        found.labels,
        Members(found.members.archives, locations),
    )
    with pytest.raises(BadImage, match="it has 1001 bytes in the place of 1000"):
        MemberSource(table_of(changed), NO_LIMIT).read(0)


def test_a_member_above_the_limit_is_a_bad_image(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {"cat/1.jpg": bytes(2000)})
    read = MemberSource(table_of(listed(source(path), tmp_path)), FileLimit(1000, "allowed here"))
    with pytest.raises(BadImage, match=r"cat/1\.jpg: 2000 bytes are more than allowed here"):
        read.read(0)


def test_a_table_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    found = listed(source(tar_of(tmp_path / "a.tar", PAIRS)), tmp_path)
    assert found.members is not None
    for column, number in ((0, 1), (0, -1), (1, -1), (2, -5)):
        locations = found.members.locations.copy()
        locations[1, column] = number
        table = manifest.pack(
            found.root,
            found.class_names,
            found.filenames,
            found.labels,
            Members(found.members.archives, locations),
        )
        with pytest.raises(ProtocolError):
            MemberSource(Manifest.view(table), NO_LIMIT)


def parquet_pair(path: Path, _: Content) -> Path:
    """Two images in one compressed page, which is read for either."""
    table = pa.table({"image": [b"one" * 50, b"two" * 50], "label": [0, 1]})
    pq.write_table(table, path, compression="zstd")
    return path


@pytest.mark.parametrize("write", [tar_of, parquet_pair])
def test_the_states_of_members_are_those_that_reading_finds(
    tmp_path: Path, write: Callable[[Path, Content], Path]
) -> None:
    path = write(tmp_path / "a.tar", PAIRS)
    table = table_of(listed(source(path), tmp_path))
    read = MemberSource(table, NO_LIMIT)

    def settled() -> bool:
        read.read(0)
        return read.identity(0) != 0

    eventually(settled)
    keys, states = file_identity.look(table)
    assert len(set(keys.tolist())) == len(set(states.tolist())) == 2
    for sample in (1, 0):
        read.read(sample)
        assert read.identity(sample) == states[sample] != 0
    os.utime(path)
    assert not (file_identity.look(table).states == states).any()
    np.testing.assert_array_equal(file_identity.look(table).keys, keys)


def test_an_index_that_is_not_used_for_months_is_removed_when_others_are_made(
    tmp_path: Path,
) -> None:
    cache = tmp_path / "cache"
    old, used = (tar_of(tmp_path / name, PAIRS) for name in ("old.tar", "used.tar"))
    for path in (old, used):
        os.utime(path, (1, 1))
        kept(path, cache)
    files = list(cache.rglob("*.index"))
    assert len(files) == 2
    for file in files:
        os.utime(file, (1, 1))
    assert not scans(used, cache)[1]  # which counts as a use
    listed(source(tar_of(tmp_path / "new.tar", PAIRS)), tmp_path)
    index_file.remove_unused(str(cache))
    assert len(list(cache.rglob("*.index"))) == 1
    assert not scans(used, cache)[1]


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    paths = [tar_of(tmp_path / f"{n}.tar", PAIRS) for n in range(3)]
    told: list[tuple[float, int, int]] = []
    recipe = Recipe.of(source(*paths))
    found = Indexer([str(path) for path in paths], recipe, str(tmp_path)).run(
        lambda *state: told.append(state)
    )
    assert [one.names for one in found] == [["b.jpg", "a.png"]] * 3
    assert all(0 <= share <= 1 and total == 3 for share, _, total in told)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(found[0]), type=ArchiveIndex) == found[0]
