"""Packs the images of a folder into archives and tables of all kinds."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from scripts.benchmarks import photos
from scripts.record_writers import Columns, Value, example, mds_index, mds_shard, record

SHARDS = 8
SAMPLES = "shard-{0..7}.tar"
"""The tars of samples, in the form of WebDataset."""

ARROW = "arrow"
"""The folder of a dataset of Hugging Face."""


class _Photo(NamedTuple):
    """An image, with the number and the name of its class."""

    path: Path
    number: int
    name: str


def packed(folder: Path, into: Path) -> dict[str, str]:
    """Archives of a folder's images, by what they are."""
    files = photos.files_of(folder)
    classes = sorted({path.parent.name for path in files})
    every = [_Photo(path, classes.index(path.parent.name), path.parent.name) for path in files]
    _tars(every, folder, into)
    for method, title in ((zipfile.ZIP_STORED, "stored"), (zipfile.ZIP_DEFLATED, "deflated")):
        with zipfile.ZipFile(into / f"{title}.zip", "w", method) as archive:
            for one in every:
                archive.write(one.path, one.path.relative_to(folder))
    _tables(every, into)
    _records(every, into)
    return {
        "tar of class folders": str(into / "folders.tar"),
        f"{SHARDS} tars of samples": str(into / SAMPLES),
        "zip, stored": str(into / "stored.zip"),
        "zip, deflated": str(into / "deflated.zip"),
        "Parquet, uncompressed": str(into / "none.parquet"),
        "Parquet, Snappy": str(into / "snappy.parquet"),
        "TFRecord": str(into / "train.tfrecord"),
        "MDS": str(into / "mds"),
    }


def _tars(every: list[_Photo], folder: Path, into: Path) -> None:
    with tarfile.open(into / "folders.tar", "w") as archive:
        for one in every:
            archive.add(one.path, str(one.path.relative_to(folder)))
    for shard in range(SHARDS):
        with tarfile.open(into / f"shard-{shard}.tar", "w") as archive:
            for number in range(shard, len(every), SHARDS):
                archive.add(every[number].path, f"{number:06}.jpg")
                _add_label(archive, f"{number:06}.txt", every[number].name)


def _add_label(archive: tarfile.TarFile, name: str, label: str) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(label.encode())
    archive.addfile(member, io.BytesIO(label.encode()))


def _tables(every: list[_Photo], into: Path) -> None:
    """Parquet files, and a dataset of Hugging Face."""
    import datasets

    content = [one.path.read_bytes() for one in every]
    table = pa.table({"image": content, "label": [one.number for one in every]})
    for compression in ("none", "snappy"):
        path = into / f"{compression}.parquet"
        pq.write_table(table, path, compression=compression, row_group_size=1000)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    rows = {
        "image": [{"bytes": one, "path": None} for one in content],
        "label": [one.number for one in every],
    }
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(into / ARROW)


def _records(every: list[_Photo], into: Path) -> None:
    with (into / "train.tfrecord").open("wb") as file:
        for one in every:
            features: dict[str, Value] = {
                "image/encoded": one.path.read_bytes(),
                "image/class/label": one.number,
            }
            file.write(record(example(features)))
    (into / "mds").mkdir()
    shards, counts = {}, []
    for number, rows in enumerate(_parts(every)):
        columns: Columns = {"image": ("jpeg", None), "label": ("int", 8)}
        shards[f"shard.{number:05}.mds"] = mds_shard(columns, rows)
        counts.append(len(rows))
    for name, data in shards.items():
        (into / "mds" / name).write_bytes(data)
    (into / "mds" / "index.json").write_text(mds_index(shards, counts))


def _parts(every: list[_Photo]) -> Iterator[list[dict[str, bytes]]]:
    size = -(-len(every) // SHARDS)
    for first in range(0, len(every), size):
        yield [
            {"image": one.path.read_bytes(), "label": struct.pack("<q", one.number)}
            for one in every[first : first + size]
        ]
