"""``image_dataset_from_dataframe``: images and their targets in the columns of a table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loaderd.errors import EmptyDataset, InvalidArgument
from loaderd.spec.annotations import BoxFormat
from loaderd_client.core import arguments
from loaderd_client.keras.annotated import (
    AnnotatedSequence,
    DatasetOptions,
    Instances,
    SampleTable,
    as_corners,
    dataset_of,
)

Array = NDArray[Any]


def image_dataset_from_dataframe(
    table: Any,
    image: str = "image",
    *,
    label: str | None = None,
    mask: str | None = None,
    boxes: str | None = None,
    box_labels: str | None = None,
    keypoints: str | None = None,
    weight: str | None = None,
    directory: str | os.PathLike[str] | None = None,
    **options: Any,
) -> AnnotatedSequence:
    """Makes a dataset of the rows of a table, by the names of its columns.

    Args:
        table: a pandas DataFrame, or a dictionary of columns.
        image: paths of the images.
        label: names of classes, numbers, or lists of numbers (multi-hot, or several).
        mask: paths of masks, whose values are numbers of classes, 0 to 255.
        boxes: for each image a list of boxes in ``bounding_box_format``, in pixels; may be empty.
        box_labels: for each image a list of as many whole numbers.
        keypoints: for each image a list of (x, y, visible), of all images as many, or an empty
            list; with boxes, a list of such lists, one for each box.
        weight: numbers, by which losses are multiplied.
        directory: the folder of paths that are not absolute; None for the working directory.
        **options: see :class:`DatasetOptions`.

    Returns:
        A sequence of dictionaries, or, with ``targets``, of tuples.

    Raises:
        EmptyDataset: the table has no rows.
        InvalidArgument: a column is missing, has another length, or holds something else; names
            the row.
    """
    chosen = DatasetOptions(**options)
    given = {
        "image": image,
        "label": label,
        "mask": mask,
        "boxes": boxes,
        "box_labels": box_labels,
        "keypoints": keypoints,
        "weight": weight,
    }
    held = _columns(table, {what: name for what, name in given.items() if name is not None})
    if not held["image"]:
        raise EmptyDataset("the table has no rows: the dataset would have no images")
    root = "" if directory is None else arguments.folder("directory", directory)
    labels, class_names = _labels(held.get("label"))
    weights = held.get("weight")
    listing = SampleTable(
        images=_paths(root, held["image"], image),
        masks=_paths(root, held["mask"], str(mask)) if "mask" in held else None,
        instances=_instances(held, chosen.bounding_box_format),
        labels=labels,
        weights=None if weights is None else np.array(weights, np.float32),
        class_names=class_names,
    )
    return dataset_of(listing, chosen)


def _columns(table: Any, names: dict[str, str]) -> dict[str, list[Any]]:
    """The columns by what they hold, all of one length."""
    found = {what: _column(table, name) for what, name in names.items()}
    count = len(found["image"])
    for what, values in found.items():
        if len(values) != count:
            raise InvalidArgument(
                f"column {names[what]!r} has {len(values)} rows, and {names['image']!r} has {count}"
            )
    return found


def _column(table: Any, name: str) -> list[Any]:
    try:
        return list(table[name])
    except KeyError:
        names = ", ".join(map(str, getattr(table, "columns", table)))
        raise InvalidArgument(f"the table has no column {name!r}: it has {names}") from None


def _paths(root: str, values: Sequence[Any], column: str) -> list[str]:
    for row, value in enumerate(values):
        if not isinstance(value, str | os.PathLike):
            raise InvalidArgument(f"row {row}: {column!r} should be a path. Received: {value!r}")
    return [os.path.abspath(os.path.join(root, os.fspath(value))) for value in values]


def _labels(values: Sequence[Any] | None) -> tuple[Array | None, Sequence[str]]:
    """The labels as an array, and the names of their classes, where they are names."""
    if values is None:
        return None, ()
    if values and isinstance(values[0], str):
        names = sorted({str(value) for value in values})
        place = {name: number for number, name in enumerate(names)}
        return np.array([place[str(value)] for value in values], np.int32), names
    try:
        found = np.array([np.asarray(value) for value in values])
    except ValueError:
        raise InvalidArgument("labels should be lists of one length, or single numbers") from None
    if found.dtype.kind not in "biuf":
        raise InvalidArgument(f"labels should be names, numbers or lists. Received: {values[0]!r}")
    return found.astype(
        np.int32 if found.ndim == 1 and found.dtype.kind in "biu" else np.float32
    ), ()


def _instances(held: dict[str, list[Any]], form: BoxFormat) -> Instances | None:
    if "boxes" not in held and "keypoints" not in held:
        return None
    if ("boxes" in held) != ("box_labels" in held):
        raise InvalidArgument("`boxes` and `box_labels` should be given together")
    if "boxes" not in held:
        alone = held["keypoints"]
        points = [_points(row, [value] if len(value) else []) for row, value in enumerate(alone)]
        return Instances([len(one) for one in points], keypoints=_stacked(points))
    boxes = [_boxes(row, value, form) for row, value in enumerate(held["boxes"])]
    labels = [np.array(value, np.int32).reshape(-1) for value in held["box_labels"]]
    for row, (box, label) in enumerate(zip(boxes, labels, strict=True)):
        if len(box) != len(label):
            raise InvalidArgument(f"row {row}: {len(box)} boxes, but {len(label)} box_labels")
    points = [_points(row, value) for row, value in enumerate(held.get("keypoints", ()))]
    for row, (box, point) in enumerate(zip(boxes, points, strict=False)):
        if len(box) != len(point):
            raise InvalidArgument(f"row {row}: {len(box)} boxes, but keypoints of {len(point)}")
    return Instances(
        [len(box) for box in boxes],
        np.concatenate(boxes),
        np.concatenate(labels),
        _stacked(points) if points else None,
    )


def _boxes(row: int, value: Any, form: BoxFormat) -> Array:
    """float32 (n, 4): left, top, right, bottom."""
    if form.startswith("rel_"):
        raise InvalidArgument(
            f'`bounding_box_format="{form}"`: boxes of a table are in pixels: use one of '
            "xyxy, yxyx, xywh and center_xywh"
        )
    try:
        boxes = np.array(value, np.float32).reshape(-1, 4)
    except (TypeError, ValueError):
        raise InvalidArgument(
            f"row {row}: boxes should be a list of four numbers each. Received: {value!r}"
        ) from None
    found = as_corners(boxes, form, (1, 1))
    if (found[:, 2:] < found[:, :2]).any():
        raise InvalidArgument(f"row {row}: a box has a negative size: {value!r}")
    return found


def _points(row: int, value: Any) -> Array:
    """float32 (instances, k, 3)."""
    try:
        points = np.array(value, np.float32)
        if not len(points):
            return points.reshape(0, 0, 3)
        return points.reshape(len(points), -1, 3)
    except (TypeError, ValueError):
        raise InvalidArgument(
            f"row {row}: keypoints should be lists of (x, y, visible). Received: {value!r}"
        ) from None


def _stacked(points: list[Array]) -> Array:
    counts = {each.shape[1] for each in points if len(each)}
    if len(counts) > 1:
        raise InvalidArgument(f"keypoints should be as many for all. Received: {sorted(counts)}")
    if not counts:
        raise InvalidArgument("no row has keypoints: it is not known how many there should be")
    return np.concatenate([each.reshape(len(each), *counts, 3) for each in points])
