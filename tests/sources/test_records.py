"""Images and labels are found in TFRecord files and in shards of MDS."""

from __future__ import annotations

import gzip
import json
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loaderd.errors import BadArchive
from loaderd.ipc.manifest import MemberCodec
from loaderd.sources.archive_index import index_of
from loaderd.sources.groups import Recipe
from loaderd.sources.index_file import ArchiveIndex
from loaderd.sources.mds_folder import with_shards
from loaderd.sources.retries import Retries
from loaderd.spec.source import Archives
from scripts.record_writers import Columns, example, masked, mds_shard, record
from tests.support.records import mds_of
from tests.support.tables import Photos

IMAGE = "image/encoded"
CONTENT = [b"first image", b"", b"third", bytes(40_000), b"\xff" * 9]


def indexed(path: Path, label: str | None = "auto", *columns: str) -> ArchiveIndex:
    recipe = Recipe("auto", label, (), columns)
    return index_of(str(path), recipe, str(path.parent / "cache"), lambda _: None)


def contents_of(path: Path, index: ArchiveIndex) -> list[bytes | None]:
    data = path.read_bytes()
    found: list[bytes | None] = []
    for offset, _, size, _, codec, _, _ in index.locations.tolist():
        found.append(None if codec == MemberCodec.ABSENT else data[offset : offset + size])
    return found


def written(path: Path, *records: bytes) -> Path:
    path.write_bytes(b"".join(map(record, records)))
    return path


@pytest.mark.parametrize("is_packed", [True, False])
def test_images_and_labels_of_records_are_found(tmp_path: Path, is_packed: bool) -> None:
    examples = [
        example({"image/height": 7, IMAGE: one, "image/class/label": n, "sizes": [1, 2]}, is_packed)
        for n, one in enumerate(CONTENT, 1)
    ]
    path = written(tmp_path / "a.tfrecord", *examples)
    found = indexed(path)
    assert (found.layout, found.label, found.labels) == (
        "tfrecord",
        "image/class/label",
        [1, 2, 3, 4, 5],
    )
    assert contents_of(path, found) == CONTENT
    assert found.names == ["0", "1", "2", "3", "4"]
    assert indexed(path, None).labels is None


def test_features_have_other_names_and_labels_may_be_texts(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.tfrecord",
        example({"name": "cat", "photo": b"1", IMAGE: b"no"}),
        example({"photo": b"2", "name": "dog"}),
        example({"name": "emu"}),
    )
    found = indexed(path, "name", "photo")
    assert found.labels == ["cat", "dog", "emu"]
    assert contents_of(path, found) == [b"1", b"2", None]


def test_tensorflow_writes_what_is_read_here(tmp_path: Path) -> None:
    """Its checksums, too."""
    import tensorflow as tf

    path = tmp_path / "a.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for n, one in enumerate(CONTENT):
            image = tf.train.Feature(bytes_list=tf.train.BytesList(value=[one]))
            label = tf.train.Feature(int64_list=tf.train.Int64List(value=[n]))
            floats = tf.train.Feature(float_list=tf.train.FloatList(value=[0.5, 1.5]))
            features = tf.train.Features(feature={"image": image, "label": label, "f": floats})
            writer.write(tf.train.Example(features=features).SerializeToString())
    found = indexed(path)
    assert (contents_of(path, found), found.labels) == (CONTENT, [0, 1, 2, 3, 4])
    head = path.read_bytes()[:12]
    assert masked(head[:8]) == head[8:]


BAD_RECORDS: dict[str, tuple[bytes, str | None, str]] = {
    "no image": (example({"label": 1}), None, "no feature 'image/encoded' or 'image'.* label;"),
    "no label": (example({IMAGE: b""}), "auto", "no feature .*'label'.*give label=None"),
    "image of numbers": (example({IMAGE: 3}), None, "holds numbers, and should hold"),
    "two labels": (example({IMAGE: b"", "label": [1, 2]}), "auto", "record 0 has no label"),
    "negative": (example({IMAGE: b"", "label": -1}), "auto", "record 0 has no label.*-1"),
    "no message": (b"\xff\xff\xff", None, "it is damaged"),
}


@pytest.mark.parametrize(("data", "label", "words"), BAD_RECORDS.values(), ids=BAD_RECORDS)
def test_records_that_make_no_samples_are_refused(
    tmp_path: Path, data: bytes, label: str | None, words: str
) -> None:
    with pytest.raises(BadArchive, match=rf"a\.tfrecord: .*{words}"):
        indexed(written(tmp_path / "a.tfrecord", data), label)


def test_compressed_records_are_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    path.write_bytes(gzip.compress(record(example({IMAGE: b"1"}))))
    recipe = Recipe("tfrecord", None, ())
    with pytest.raises(BadArchive, match=r"compressed as a whole .by GZIP.*without compression"):
        index_of(str(path), recipe, str(tmp_path), lambda _: None)
    with pytest.raises(BadArchive, match=r"compressed as a whole .by gzip"):
        indexed(path)


def a_tfrecord(path: Path) -> bytes:
    written(path, *(example({IMAGE: bytes([n]) * 9, "label": n}) for n in range(3)))
    return path.read_bytes()


COLUMNS: Columns = {"image": ("jpeg", None), "label": ("int", 8), "name": ("str", None)}


def a_shard(path: Path) -> bytes:
    rows = [
        {"image": one, "label": struct.pack("<q", n), "name": f"class {n % 2}".encode()}
        for n, one in enumerate(CONTENT[:3])
    ]
    path.write_bytes(mds_shard(COLUMNS, rows))
    return path.read_bytes()


@pytest.mark.parametrize("write", [a_tfrecord, a_shard])
def test_files_that_are_cut_or_damaged_anywhere_are_refused_or_whole(
    tmp_path: Path, write: Callable[[Path], bytes]
) -> None:
    path = tmp_path / "a.bin"
    whole = write(path)
    count = len(indexed(path).names)
    layout: Any = "tfrecord" if write is a_tfrecord else "mds"
    changes = random.Random(5)
    recipe = Recipe(layout, "auto", ())
    for at in range(len(whole)):
        path.write_bytes(whole[:at])
        try:
            found = index_of(str(path), recipe, str(tmp_path / "cache"), lambda _: None)
        except BadArchive as error:
            assert "a.bin: it " in str(error)
        else:  # between two records, the file is a whole one
            assert write is a_tfrecord
            assert len(found.names) < count
        path.write_bytes(
            whole[:at] + bytes([whole[at] ^ changes.randrange(1, 256)]) + whole[at + 1 :]
        )
        try:
            found = index_of(str(path), recipe, str(tmp_path / "cache"), lambda _: None)
        except BadArchive as error:
            assert "a.bin: " in str(error)
        else:
            assert len(found.names) == count
            assert found.locations[:, :2].sum(axis=1).max() <= len(whole)


def test_images_and_labels_of_a_shard_are_found(tmp_path: Path) -> None:
    path = tmp_path / "shard.00000.mds"
    a_shard(path)
    found = indexed(path)
    assert (found.layout, found.label, found.labels) == ("mds", "label", [0, 1, 2])
    assert contents_of(path, found) == CONTENT[:3]
    assert indexed(path, "name").labels == ["class 0", "class 1", "class 0"]


@pytest.mark.parametrize(
    ("encoding", "data", "label"),
    [
        ("uint8", b"\x07", 7),
        ("int32", struct.pack("<i", 70_000), 70_000),
        ("str_int", b"12", 12),
        ("str", "émeu".encode(), "émeu"),
    ],
)
def test_labels_of_a_shard_have_several_encodings(
    tmp_path: Path, encoding: str, data: bytes, label: int | str
) -> None:
    path = tmp_path / "a.mds"
    columns: Columns = {"image": ("png", None), "class": (encoding, None)}
    path.write_bytes(mds_shard(columns, [{"image": b"x", "class": data}]))
    assert indexed(path).labels == [label]


BAD_SHARDS: dict[str, tuple[Columns, str]] = {
    "no image": ({"x": ("int", None)}, "no column 'image' or .*: it has x; .*`image`"),
    "no label": ({"image": ("jpeg", None)}, "no column 'label' or .*give label=None"),
    "raw pixels": ({"image": ("pil", None), "label": ("int", None)}, "encoded as pil.*jpeg, png"),
    "float": ({"image": ("png", None), "label": ("float64", None)}, "sample 0 has no label"),
}


@pytest.mark.parametrize(("columns", "words"), BAD_SHARDS.values(), ids=BAD_SHARDS)
def test_shards_that_make_no_samples_are_refused(
    tmp_path: Path, columns: Columns, words: str
) -> None:
    path = tmp_path / "a.mds"
    path.write_bytes(mds_shard(columns, [dict.fromkeys(columns, b"")]))
    with pytest.raises(BadArchive, match=rf"a\.mds: .*{words}"):
        indexed(path)


def test_a_folder_stands_for_the_shards_of_its_index(photos: Path, tmp_path: Path) -> None:
    folder = mds_of(tmp_path / "mds", Photos.of(photos).part(0, 6), 3)
    asked = Archives(directory="", extensions=(), paths=("/a.tar", str(folder)))
    names = [os.path.basename(path) for path in with_shards(asked, Retries(5)).paths]
    assert names == ["a.tar", "shard.00000.mds", "shard.00001.mds", "shard.00002.mds"]

    listed = json.loads((folder / "index.json").read_text())

    def refused(words: str, **changes: Any) -> None:
        changed = {**listed, "shards": [listed["shards"][0], {**listed["shards"][1], **changes}]}
        (folder / "index.json").write_text(json.dumps(changed))
        with pytest.raises(BadArchive, match=words):
            with_shards(asked, Retries(5))

    raw = listed["shards"][1]["raw_data"]
    refused("00001.mds: it is truncated or damaged", raw_data={**raw, "bytes": raw["bytes"] + 1})
    refused("is no shard of MDS", raw_data={**raw, "basename": "../a.mds"})
    refused("is no shard of MDS", format="json")
    refused(
        "compressed by zstd alone.*compression=None",
        raw_data={**raw, "basename": "b.mds"},
        zip_data={"basename": "b.mds.zstd"},
        compression="zstd",
    )
    refused("its index.json is none of MDS", raw_data={})
    (folder / "index.json").unlink()
    with pytest.raises(BadArchive, match=r"without index\.json.*name archives"):
        with_shards(asked, Retries(5))
