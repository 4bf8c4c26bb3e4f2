"""``image_dataset_from_huggingface``: the images of a ``datasets.Dataset``, where they lie.

Neither ``datasets`` nor pyarrow is imported here: a program with a dataset has imported both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from loaderd.errors import EmptyDataset, InvalidArgument, InvalidType
from loaderd.spec.source import Rows
from loaderd_client.core import arguments
from loaderd_client.keras.dataset import label_mode_of
from loaderd_client.keras.dataset_options import check_names
from loaderd_client.keras.image_options import ImageArguments, ImageOptions, sequences_of
from loaderd_client.keras.row_labels import labels_of, no_labels
from loaderd_client.keras.row_listing import listing_of
from loaderd_client.keras.sample_table import Ids

if TYPE_CHECKING:
    from loaderd_client.keras.sequence import LoaderSequence


def image_dataset_from_huggingface(
    dataset: Any,
    image: str = "image",
    label: str | None = "label",
    *,
    label_mode: str | None = "int",
    class_names: Sequence[str] | None = None,
    **options: Unpack[ImageArguments],
) -> LoaderSequence | list[LoaderSequence]:
    """Makes a sequence of the images of a ``datasets.Dataset``, which is not decoded or copied.

    The daemon reads each image where it lies in the dataset's Arrow files, or in a file of its own.
    Samples are in the order of the dataset: what ``select``, ``shuffle``, ``filter`` and
    ``train_test_split`` have chosen counts. ``file_paths`` has the path of the Arrow file, with the
    number of the row in the underlying table behind it.

    Args:
        dataset: a ``datasets.Dataset`` in files, as ``load_dataset`` and ``load_from_disk`` give
            it. Its format is not applied; one with a transform (``set_transform``) is refused.
        image: the column of the images: of type ``Image``, or bytes of encoded images.
        label: the column of the labels: ``ClassLabel``, whole numbers from 0 on, or names of
            classes. None for none.
        label_mode: ``int`` (int32), ``categorical`` (one-hot float32), ``binary`` (float32 of shape
            (rows, 1)), or None, which means ``label=None``.
        class_names: names of the classes in label order: of whole numbers, the names of 0, 1 and so
            on; else some or all of those in the column. None takes those of the ``ClassLabel``, or
            all that there are, sorted.
        **options: ``color_mode``, ``batch_size``, ``image_size``, ``shuffle``, ``seed``,
            ``validation_split``, ``subset``, ``interpolation``, ``crop_to_aspect_ratio``,
            ``pad_to_aspect_ratio``, ``data_format``, ``verbose``, ``cache``, ``decode``,
            ``on_error``, ``substitute_weight``, ``exif``, ``max_queue_size``, ``augment``,
            ``class_weights``, ``shard``, ``remainder``, ``share`` and ``join``, as those of
            :func:`image_dataset_from_directory`.

    Returns:
        A :class:`LoaderSequence` with ``class_names`` (None without labels) and ``file_paths``;
        with ``subset="both"`` a list of two.

    Raises:
        EmptyDataset: the dataset has no rows.
        InvalidArgument: a column is missing or holds something else, or the images lie in no file
            (also a ``ValueError``).
        InvalidType: ``dataset`` is no ``datasets.Dataset``, or there is no such argument (also a
            ``TypeError``).
        NoRoom: the ring does not fit in shared memory.
    """
    check_names(image_dataset_from_huggingface, options, ImageOptions)
    names = arguments.names("class_names", class_names)
    mode = label_mode_of(None if label is None else "inferred", label_mode, names)
    table = _table(dataset)
    rows = _selected(dataset, table)
    if not len(rows):
        raise EmptyDataset("No images found in `dataset`: it has no rows")
    images = _column(table, "image", image)
    labels = no_labels(rows)
    if mode != "none":
        given, known = _column(table, "label", label), _class_names(dataset, label)
        labels = labels_of(given, rows, names, known)
    root, packed = listing_of(images, labels)
    whole = Rows(directory=root, extensions=(), hidden=False, flat=mode == "none")
    parts = {"listing": np.frombuffer(packed, np.uint8)}
    return sequences_of(whole, mode, ImageOptions(**options), parts)


def _table(dataset: Any) -> Any:
    """The Arrow table below a dataset."""
    if isinstance(dataset, Mapping):
        raise InvalidType(
            f"`dataset` has several parts: give one of {', '.join(map(repr, dataset))}, such as "
            f"dataset[{next(iter(dataset), 'train')!r}]"
        )
    table = getattr(getattr(dataset, "data", None), "table", None)
    if table is None or not hasattr(dataset, "_indices"):
        raise InvalidType(
            "`dataset` should be a datasets.Dataset, as load_dataset gives it without "
            f"streaming=True. Received: {type(dataset).__name__}"
        )
    if dataset.format["type"] == "custom":
        raise InvalidArgument(
            "`dataset` has a transform, which would not be applied: remove it by "
            "`dataset.reset_format()`, and give `augment`"
        )
    return table


def _selected(dataset: Any, table: Any) -> Ids:
    """The rows of the table that the dataset has, in its order."""
    indices = dataset._indices
    if indices is None:
        return np.arange(len(table))
    found: Ids = indices.column(0).to_numpy().astype(np.intp)
    return found


def _column(table: Any, argument: str, name: str | None) -> Any:
    if name not in table.column_names:
        raise InvalidArgument(
            f"`dataset` has no column {name!r}: it has {', '.join(table.column_names)}; name one "
            f"with `{argument}`"
        )
    return table.column(name)


def _class_names(dataset: Any, label: str | None) -> list[str] | None:
    """The names of a ``ClassLabel``."""
    return getattr((dataset.features or {}).get(label), "names", None)
