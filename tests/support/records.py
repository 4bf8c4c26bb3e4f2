"""The photos of a folder of classes in TFRecord files and in shards of MDS."""

from __future__ import annotations

import struct
from pathlib import Path

from scripts.record_writers import Columns, Value, example, mds_index, mds_shard, record
from tests.support.tables import Photos


def tfrecord_of(path: Path, photos: Photos) -> Path:
    """Writes photos to a TFRecord file."""
    with path.open("wb") as file:
        for content, name, label in zip(photos.content, photos.names, photos.labels, strict=True):
            features: dict[str, Value] = {
                "image/height": 60,
                "image/class/label": label,
                "image/class/text": name,
                "image/encoded": content,
                "image/filename": "a.jpg",
            }
            file.write(record(example(features)))
    return path


def mds_of(folder: Path, photos: Photos, count: int) -> Path:
    """Writes photos to some shards of MDS, with their index."""
    folder.mkdir()
    size = -(-len(photos.paths) // count)
    columns: Columns = {"image": ("jpeg", None), "label": ("int", 8), "name": ("str", None)}
    shards, counts = {}, []
    for number in range(count):
        some = photos.part(number * size, (number + 1) * size)
        rows = [
            {"image": content, "label": struct.pack("<q", label), "name": name.encode()}
            for content, name, label in zip(some.content, some.names, some.labels, strict=True)
        ]
        shards[f"shard.{number:05}.mds"] = mds_shard(columns, rows)
        counts.append(len(rows))
    for name, data in shards.items():
        (folder / name).write_bytes(data)
    (folder / "index.json").write_text(mds_index(shards, counts))
    return folder
