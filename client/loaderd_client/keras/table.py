"""``image_dataset_from_dataframe``: images and their targets in the columns of a table."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Unpack

import numpy as np
from numpy.typing import NDArray

from loaderd.augment.boxes import BoxFormat, to_corners
from loaderd.errors import EmptyDataset, InvalidArgument
from loaderd.sampling.weights import Weights, checked, class_weights_of_samples
from loaderd_client.core import arguments
from loaderd_client.keras.annotated import AnnotatedSequence, dataset_of
from loaderd_client.keras.class_weights import class_weights as checked_weights
from loaderd_client.keras.class_weights import column_weights
from loaderd_client.keras.dataset_options import DatasetArguments, options_of
from loaderd_client.keras.sample_table import Instances, SampleTable

Array = NDArray[Any]

_SHOWN = 80
"""Characters of a value in an error."""


class _Cell(NamedTuple):
    """A value of a table.

    Attributes:
        row: its number.
        column: the name.
        value: what is there.
        should: what should be there, as a sentence for errors.
    """

    row: int
    column: str
    value: Any
    should: str

    def refused(self) -> InvalidArgument:
        """The error, in one line."""
        return InvalidArgument(
            f"row {self.row}: {self.should} in {self.column!r}. Received: {_shown(self.value)}"
        )

    def numbers(self, kinds: str = "biuf") -> Array:
        """Its numbers, of NumPy's kinds, in any shape."""
        try:
            found = np.asarray(self.value)
        except (TypeError, ValueError):  # lists of several lengths
            raise self.refused() from None
        if found.size and found.dtype.kind not in kinds:
            raise self.refused()
        return found

    def floats(self, *shape: int) -> Array:
        """Finite float32 of a shape, in which -1 is any length; an empty list is of length 0."""
        found = self.numbers()
        if shape and found.ndim and not len(found):
            found = np.empty([max(length, 0) for length in shape])
        if found.ndim != len(shape):
            raise self.refused()
        if any(wanted not in (-1, own) for own, wanted in zip(found.shape, shape, strict=True)):
            raise self.refused()
        with np.errstate(over="ignore"):
            found = found.astype(np.float32)
        if not np.isfinite(found).all():
            raise self.refused()
        return found


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
    class_weights: str | Mapping[str, float] | None = None,
    sampling_weight: str | None = None,
    **options: Unpack[DatasetArguments],
) -> AnnotatedSequence:
    """Makes a dataset of the rows of a table, by the names of its columns.

    Args:
        table: a pandas DataFrame, or a dictionary of columns.
        image: paths of the images.
        label: names of classes, finite numbers, or lists of these (multi-hot, or several); all
            rows have the same.
        mask: paths of masks, whose values are numbers of classes, 0 to 255.
        boxes: for each image a list of boxes in ``bounding_box_format``, in pixels; may be empty.
        box_labels: for each image a list of as many whole numbers from 0.
        keypoints: for each image a list of (x, y, visible), of all images as many, or an empty
            list; with boxes, a list of such lists, one for each box.
        weight: finite numbers, by which losses are multiplied.
        directory: the folder of paths that are not absolute; None for the working directory.
        class_weights: draws each epoch's samples with replacement, as many as without: with
            ``"balanced"`` as many of each class, or by a table of {class name: weight}, in which a
            sample of a class of weight 2 comes twice as often as one of weight 1; classes that are
            not in it have 1. Needs ``label``, and ``shuffle=True``.
        sampling_weight: the column of such weights of samples.
        **options: see :class:`DatasetOptions`.

    Returns:
        A sequence of dictionaries, or, with ``targets``, of tuples.

    Raises:
        EmptyDataset: the table has no rows.
        InvalidArgument: a column is missing, has another length, or holds something else; names
            the row.
        InvalidType: there is no such argument (also a ``TypeError``).
    """
    chosen = options_of(image_dataset_from_dataframe, options)
    given = {
        "image": image,
        "label": label,
        "mask": mask,
        "boxes": boxes,
        "box_labels": box_labels,
        "keypoints": keypoints,
        "weight": weight,
        "sampling_weight": sampling_weight,
    }
    held = _columns(table, {what: name for what, name in given.items() if name is not None})
    if not held["image"]:
        raise EmptyDataset("the table has no rows: the dataset would have no images")
    root = "" if directory is None else arguments.folder("directory", directory)
    labels, class_names = _labels(str(label), held["label"]) if "label" in held else (None, ())
    listing = SampleTable(
        images=_paths(root, held["image"], image),
        masks=_paths(root, held["mask"], str(mask)) if "mask" in held else None,
        instances=_instances(given, held, chosen.bounding_box_format),
        labels=labels,
        weights=_weights(str(weight), held["weight"]) if "weight" in held else None,
        class_names=class_names,
        sampling=_sampling(class_weights, labels, class_names, sampling_weight, held),
    )
    return dataset_of(listing, chosen)


def _shown(value: Any) -> str:
    """A value in one line: arrays have several."""
    text = " ".join(repr(value).split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


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


def _labels(column: str, values: Sequence[Any]) -> tuple[Array, Sequence[str]]:
    """The labels as an array, and the names of their classes, where they are names."""
    should = "labels should be names, numbers or lists, the same in all rows,"
    cells = [_Cell(row, column, value, should) for row, value in enumerate(values)]
    if isinstance(values[0], str):
        return _named(cells)
    each = [cell.numbers() for cell in cells]
    for cell, one in zip(cells, each, strict=True):
        if one.shape != each[0].shape:
            raise cell.refused()
    found = np.array(each)
    whole = found.ndim == 1 and found.dtype.kind in "biu"
    with np.errstate(over="ignore"):
        kept = found.astype(np.int32 if whole else np.float32)
    fits = kept == found if whole else np.isfinite(kept)
    for row in np.flatnonzero(~fits.reshape(len(found), -1).all(axis=1)):
        raise cells[row]._replace(should="labels should be finite, and fit in 32 bits,").refused()
    return kept, ()


def _sampling(
    given: object,
    labels: Array | None,
    class_names: Sequence[str],
    column: str | None,
    held: dict[str, list[Any]],
) -> Weights | None:
    """The weights by which samples are drawn."""
    weights = checked_weights(given)
    if column is not None and weights is not None:
        raise InvalidArgument("give either `class_weights` or `sampling_weight`")
    if column is not None:
        return column_weights(column, held["sampling_weight"])
    if weights is None:
        return None
    if labels is None or labels.ndim != 1 or labels.dtype.kind != "i":
        raise InvalidArgument("`class_weights` needs `label`, a column of names of classes")
    return checked(class_weights_of_samples(weights, labels, tuple(class_names)))


def _named(cells: Sequence[_Cell]) -> tuple[Array, Sequence[str]]:
    for cell in cells:
        if not isinstance(cell.value, str):
            raise cell.refused()
    names = sorted({str(cell.value) for cell in cells})
    place = {name: number for number, name in enumerate(names)}
    return np.array([place[str(cell.value)] for cell in cells], np.int32), names


def _weights(column: str, values: Sequence[Any]) -> Array:
    """float32 (n,)."""
    should = "weights should be finite numbers"
    cells = [_Cell(row, column, value, should) for row, value in enumerate(values)]
    return np.array([cell.floats() for cell in cells], np.float32)


def _instances(
    names: dict[str, str | None], held: dict[str, list[Any]], form: BoxFormat
) -> Instances | None:
    if "boxes" not in held and "keypoints" not in held:
        return None
    if ("boxes" in held) != ("box_labels" in held):
        raise InvalidArgument("`boxes` and `box_labels` should be given together")
    if "boxes" not in held:
        points = _points(str(names["keypoints"]), held["keypoints"], boxed=False)
        return Instances([len(one) for one in points], keypoints=np.concatenate(points))
    boxes = _boxes(str(names["boxes"]), held["boxes"], form)
    labels = _box_labels(str(names["box_labels"]), held["box_labels"])
    counts = [len(one) for one in boxes]
    _require_counts(counts, labels, f"labels in {names['box_labels']!r}")
    found = Instances(counts, np.concatenate(boxes), np.concatenate(labels))
    if "keypoints" not in held:
        return found
    points = _points(str(names["keypoints"]), held["keypoints"], boxed=True)
    _require_counts(counts, points, f"lists of keypoints in {names['keypoints']!r}")
    return found._replace(keypoints=np.concatenate(points))


def _require_counts(counts: list[int], arrays: Sequence[Array], what: str) -> None:
    for row, (count, array) in enumerate(zip(counts, arrays, strict=True)):
        if len(array) != count:
            raise InvalidArgument(f"row {row}: {count} boxes, but {len(array)} {what}")


def _boxes(column: str, values: Sequence[Any], form: BoxFormat) -> list[Array]:
    """float32 (n, 4) for each row: left, top, right, bottom."""
    if form.startswith("rel_"):
        raise InvalidArgument(
            f'`bounding_box_format="{form}"`: boxes of a table are in pixels: use one of '
            "xyxy, yxyx, xywh and center_xywh"
        )
    should = "boxes should be a list of four numbers each, all finite,"
    found = []
    for row, value in enumerate(values):
        cell = _Cell(row, column, value, should)
        corners = to_corners(cell.floats(-1, 4), form, (1, 1))
        if (corners[:, 2:] < corners[:, :2]).any():
            raise InvalidArgument(
                f"row {row}: a box has a negative size in {column!r}: {_shown(value)}"
            )
        found.append(corners)
    return found


def _box_labels(column: str, values: Sequence[Any]) -> list[Array]:
    """int32 (n,) for each row."""
    found = []
    for row, value in enumerate(values):
        cell = _Cell(row, column, value, "box labels should be a list of whole numbers from 0")
        labels = cell.numbers("iuf")
        with np.errstate(invalid="ignore"):
            kept = labels.astype(np.int32)
        if labels.ndim != 1 or (kept < 0).any() or (kept != labels).any():
            raise cell.refused()
        found.append(kept)
    return found


def _points(column: str, values: Sequence[Any], boxed: bool) -> list[Array]:
    """float32 (instances, k, 3) for each row: with boxes an instance each, else up to one."""
    should = "keypoints should be lists of finite (x, y, visible)"
    if boxed:
        should += " for each box"
    cells = [_Cell(row, column, value, should) for row, value in enumerate(values)]
    if boxed:
        found = [cell.floats(-1, -1, 3) for cell in cells]
    else:
        found = [one[np.newaxis][: len(one)] for one in (cell.floats(-1, 3) for cell in cells)]
    counts = [one.shape[1] for one in found if len(one)]
    if not counts or not counts[0]:
        raise InvalidArgument(
            f"no row has keypoints in {column!r}: it is not known how many there should be"
        )
    for cell, one in zip(cells, found, strict=True):
        if len(one) and one.shape[1] != counts[0]:
            should = f"keypoints should be as many for all, {counts[0]} as in the first,"
            raise cell._replace(should=should).refused()
    return [one if len(one) else np.empty((0, counts[0], 3), np.float32) for one in found]
