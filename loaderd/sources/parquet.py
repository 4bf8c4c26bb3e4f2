"""Finds the images and labels of a Parquet file.

pyarrow reads the labels; where images lie is in :mod:`loaderd.sources.parquet_pages`.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from loaderd.errors import MissingDependency
from loaderd.ipc.manifest import Location
from loaderd.sources.index_file import ArchiveSamples
from loaderd.sources.labels import checked
from loaderd.sources.member import Member
from loaderd.sources.parquet_footer import Footer, Leaf
from loaderd.sources.parquet_pages import ColumnChunk, locations
from loaderd.sources.ranged import RangedFile, seekable

_IMAGE, _LABEL = ("image",), "label"
_BYTES = "BYTE_ARRAY"
_NOTE = b"huggingface"
"""Where Hugging Face's ``datasets`` keeps the types of columns."""


def samples(
    file: RangedFile, columns: Sequence[str], label: str | None, progress: Callable[[int], None]
) -> ArchiveSamples:
    """The rows of the file.

    Args:
        file: the file.
        columns: those that may hold images, of which the first that is there counts; empty for
            ``image``.
        label: the column of the labels; ``auto`` for ``label``, None for none.
        progress: called with how many bytes of the file were looked through.

    Raises:
        MissingDependency: pyarrow or cramjam is not installed.
        OSError: the file cannot be read.
        ValueError: it is damaged, or has no such columns.
    """
    footer = Footer(file)
    image = _image(footer.leaves, columns or _IMAGE)
    asked = _LABEL if label == "auto" else label
    labels = None if asked is None else _labels(file, footer, asked)
    found = _rows(file, footer.chunks(image), progress)
    images = [Member(str(row), *one[1:]) for row, one in enumerate(found)]
    if len(images) != footer.rows or (labels is not None and len(labels) != footer.rows):
        raise ValueError(f"it is damaged: it has not as many values as rows ({footer.rows})")
    return ArchiveSamples(
        "parquet" if images else None,
        asked,
        images,
        labels,
        class_names=None if asked is None else _class_names(footer, asked),
    )


def _rows(
    file: RangedFile, chunks: Iterator[ColumnChunk], progress: Callable[[int], None]
) -> Iterator[Location]:
    for chunk in chunks:
        yield from locations(file, chunk)
        progress(chunk.start + chunk.nbytes)
    progress(file.nbytes)


def _image(leaves: Sequence[Leaf], names: Sequence[str]) -> Leaf:
    """The column of the images: of bytes, or a structure with bytes, as Hugging Face writes it."""
    for name in names:
        for leaf in leaves:
            if leaf.path in (name, f"{name}.bytes"):
                return _checked(leaf, name)
    asked = " or ".join(map(repr, names))
    raise ValueError(
        f"it has no column {asked} of images: it has {_names(leaves)}; name one with `image`"
    )


def _names(leaves: Sequence[Leaf]) -> str:
    return ", ".join(dict.fromkeys(leaf.path.partition(".")[0] for leaf in leaves))


def _checked(leaf: Leaf, name: str) -> Leaf:
    if leaf.kind != _BYTES or leaf.is_list:
        kind = "lists" if leaf.is_list else leaf.kind
        raise ValueError(
            f"its column {name!r} holds {kind}, and should hold the bytes of encoded images "
            "(binary), or structures with a field `bytes`"
        )
    return leaf


def _labels(file: RangedFile, footer: Footer, name: str) -> list[int | str]:
    """The labels of all rows."""
    if name not in [leaf.path for leaf in footer.leaves]:
        raise ValueError(
            f"it has no column {name!r} of labels: it has {_names(footer.leaves)}; name one with "
            "`label`, or give label=None"
        )
    arrow, parquet = _library("pyarrow"), _library("pyarrow.parquet")
    try:
        opened = parquet.ParquetFile(seekable(file))
        column = opened.read(columns=[name], use_threads=False).column(name)
    except (arrow.ArrowException, KeyError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the storage, not of pyarrow
        raise ValueError(f"it is damaged: {error}") from error
    if arrow.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return checked(column.to_pylist(), f"column {name!r}")


def _class_names(footer: Footer, name: str) -> list[str] | None:
    """The names of a ``ClassLabel`` of Hugging Face."""
    try:
        names = json.loads(footer.notes[_NOTE])["info"]["features"][name]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    is_list = isinstance(names, list) and all(isinstance(one, str) for one in names)
    return names if is_list and names else None


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingDependency(
            "pyarrow, which reads Parquet files, is not installed where the daemon runs: "
            'pip install "loaderd[parquet]"'
        ) from error
