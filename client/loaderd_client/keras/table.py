"""``image_dataset_from_dataframe``: images and their targets in the columns of a table."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from loaderd.errors import EmptyDataset, InvalidArgument
from loaderd_client.core import arguments
from loaderd_client.keras.annotated import AnnotatedSequence, dataset_of
from loaderd_client.keras.columns import Columns
from loaderd_client.keras.dataset_options import DatasetArguments, options_of
from loaderd_client.keras.sample_table import SampleTable


def image_dataset_from_dataframe(
    table: Any,
    image: str | Sequence[str] = "image",
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
        image: paths of the images; or several columns, of images that belong together and have one
            size, such as stereo pairs: all are augmented by the same draws.
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
    images = (image,) if isinstance(image, str) else tuple(image)
    if not images or not all(isinstance(name, str) for name in images):
        raise InvalidArgument(f"`image` should name at least one column. Received: {image!r}")
    given = {
        **{_image(number): name for number, name in enumerate(images)},
        "label": label,
        "mask": mask,
        "boxes": boxes,
        "box_labels": box_labels,
        "keypoints": keypoints,
        "weight": weight,
        "sampling_weight": sampling_weight,
    }
    names = {what: name for what, name in given.items() if name is not None}
    held = _columns(table, names)
    if not held[_image(0)]:
        raise EmptyDataset("the table has no rows: the dataset would have no images")
    root = "" if directory is None else arguments.folder("directory", directory)
    paths = [_paths(root, held[_image(number)], name) for number, name in enumerate(images)]
    listing = SampleTable(
        images=paths[0],
        further=tuple(paths[1:]),
        masks=_paths(root, held["mask"], str(mask)) if "mask" in held else None,
    )
    columns = Columns(names, held, chosen.bounding_box_format)
    return dataset_of(columns.added_to(listing, class_weights), chosen)


def _image(number: int) -> str:
    """What a column of images is kept under; the first is number 0."""
    return f"image {number}" if number else "image"


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
