"""The photos of a folder of classes as rows of tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq


class Photos(NamedTuple):
    """Photos in the order of a directory's listing."""

    paths: list[Path]
    content: list[bytes]
    names: list[str]
    labels: list[int]
    classes: list[str]

    @classmethod
    def of(cls, folder: Path) -> Photos:
        """Those of a folder."""
        classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
        paths = [path for name in classes for path in sorted((folder / name).iterdir())]
        names = [path.parent.name for path in paths]
        labels = [classes.index(name) for name in names]
        return cls(paths, [path.read_bytes() for path in paths], names, labels, classes)

    def part(self, first: int, last: int) -> Photos:
        """Some of them."""
        chosen = slice(first, last)
        return Photos(
            self.paths[chosen],
            self.content[chosen],
            self.names[chosen],
            self.labels[chosen],
            self.classes,
        )


def parquet_of(path: Path, photos: Photos, **options: Any) -> Path:
    """Writes photos to a Parquet file, with their classes as numbers and names."""
    table = pa.table(
        {
            "label": pa.array(photos.labels, pa.int64()),
            "image": pa.array(photos.content, pa.binary()),
            "name": pa.array(photos.names, pa.string()),
        }
    )
    pq.write_table(table, path, **options)
    return path


def dataset_of(photos: Photos) -> Any:
    """The photos as a dataset of Hugging Face, in memory."""
    import datasets

    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=photos.classes)}
    )
    images = [{"bytes": one, "path": None} for one in photos.content]
    return datasets.Dataset.from_dict({"image": images, "label": photos.labels}, features=features)
