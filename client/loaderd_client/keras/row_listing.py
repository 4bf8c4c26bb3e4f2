"""Lists the images in a column of a table: where their bytes lie, or the files that they are.

pyarrow is not imported here: a program that has such a table has imported it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loaderd.errors import InvalidArgument
from loaderd.ipc import manifest
from loaderd.ipc.manifest import Archive, Location, MemberCodec, Members
from loaderd.ipc.text import printable
from loaderd_client.keras.mapped import BINARY, MappedFiles, locations
from loaderd_client.keras.row_labels import RowLabels
from loaderd_client.keras.sample_table import Ids

_CODEC = Location._fields.index("codec")


def listing_of(images: Any, labels: RowLabels) -> tuple[str, bytes]:
    """The folder of all samples, and the samples as a manifest.

    Args:
        images: the column: pyarrow's chunked array.
        labels: the rows that are samples, and their labels.

    Raises:
        InvalidArgument: the column holds something else, or images that lie in no file.
    """
    content, paths = _parts(images)
    files = MappedFiles()
    found = locations(content, files)[labels.rows]
    is_absent = found[:, _CODEC] == MemberCodec.ABSENT
    named = _paths(paths, labels.rows[is_absent])
    if any(named):
        return _of_files(named, labels)
    return _of_rows(files.archives, found, labels)


def _of_files(named: Sequence[str | None], labels: RowLabels) -> tuple[str, bytes]:
    """The manifest of images that are files of their own."""
    paths = [os.path.abspath(one) for one in named if one is not None]
    if len(paths) < len(labels.rows):
        raise InvalidArgument(
            f"{len(paths)} of {len(labels.rows)} images of `dataset` are files of their own, and "
            "the others are not: `filter` them, and make two datasets"
        )
    root = os.path.commonpath([os.path.dirname(one) for one in paths])
    names = [os.fsencode(os.path.relpath(one, root)) for one in paths]
    return root, manifest.pack(root, labels.class_names, names, labels.numbers)


def _of_rows(
    archives: Sequence[Archive], found: NDArray[np.int64], labels: RowLabels
) -> tuple[str, bytes]:
    """The manifest of images that lie in files with others."""
    if not archives:
        raise InvalidArgument("`dataset` has no image: all that it holds are null or empty")
    root = os.path.commonpath([os.path.dirname(one.path) for one in archives])
    short = [os.path.relpath(one.path, root) for one in archives]
    numbers = zip(found[:, 0].tolist(), labels.rows.tolist(), strict=True)
    names = os.fsencode("\0".join(f"{short[at]}/{row}" for at, row in numbers)).split(b"\0")
    members = Members(tuple(archives), found)
    return root, manifest.pack(root, labels.class_names, names, labels.numbers, members)


def _parts(images: Any) -> tuple[list[Any], list[Any]]:
    """The chunks of the images' bytes, and of their paths."""
    kind = images.type
    if str(kind) in BINARY:
        return images.chunks, []
    if not _is_image(kind):
        raise InvalidArgument(
            f"the images of `dataset` are of type {kind}: they should be of the feature Image, or "
            "bytes (binary); name their column with `image`"
        )
    content, path = kind.get_field_index("bytes"), kind.get_field_index("path")
    flat = [chunk.flatten() for chunk in images.chunks]
    return [one[content] for one in flat], [one[path] for one in flat]


def _is_image(kind: Any) -> bool:
    """Whether a type is that of the feature ``Image``."""
    place = getattr(kind, "get_field_index", lambda _: -1)
    return place("path") >= 0 <= place("bytes") and str(kind.field("bytes").type) in BINARY


def _paths(chunks: Sequence[Any], rows: Ids) -> list[str | None]:
    """Paths of the images of some rows; None where there is none."""
    if not chunks or not len(rows):
        return []
    every = [path for chunk in chunks for path in chunk.to_pylist()]
    found = [every[row] for row in rows.tolist()]
    for row, path in zip(rows.tolist(), found, strict=True):
        if path is not None and "://" in path:
            raise InvalidArgument(
                f"the image of row {row} of `dataset` is in no local file: {printable(path)}"
            )
    return found
