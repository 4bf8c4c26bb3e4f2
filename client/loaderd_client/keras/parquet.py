"""``image_dataset_from_parquet``: images in a column of Parquet files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Unpack

from loaderd_client.keras.archive import Path, image_dataset_from_archive
from loaderd_client.keras.dataset_options import check_names
from loaderd_client.keras.image_options import ImageArguments, ImageOptions

if TYPE_CHECKING:
    from loaderd_client.keras.sequence import LoaderSequence


def image_dataset_from_parquet(
    urls: Path | Sequence[Path],
    image: str = "image",
    label: str | None = "label",
    *,
    label_mode: str | None = "int",
    class_names: Sequence[str] | None = None,
    **options: Unpack[ImageArguments],
) -> LoaderSequence | list[LoaderSequence]:
    """Makes a sequence of the images in a column of Parquet files, which are not rewritten.

    It is :func:`image_dataset_from_archive` with ``format="parquet"``. Samples are in the order of
    ``urls``, and in a file in that of its rows. ``file_paths`` has the path of the file, with the
    number of the row behind it, from 0.

    Args:
        urls: paths of local files; as those of :func:`image_dataset_from_archive`.
        image: the column of the images: the bytes of encoded ones (binary), or structures with a
            field ``bytes``, as Hugging Face's datasets have them.
        label: the column of the labels: whole numbers from 0 on, or names of classes; None for
            none.
        label_mode: ``int`` (int32), ``categorical`` (one-hot float32), ``binary`` (float32 of shape
            (rows, 1)), or None, which means ``label=None``.
        class_names: names of the classes in label order: of whole numbers, the names of 0, 1 and so
            on; else some or all of those in the column. None takes those of a ``ClassLabel`` in the
            file's schema, or all that there are, sorted.
        **options: those of :func:`image_dataset_from_archive`.

    Returns:
        A :class:`LoaderSequence` with ``class_names`` (None without labels) and ``file_paths``;
        with ``subset="both"`` a list of two.

    Raises:
        BadArchive: a file is missing, damaged or changed while it was read, or has no such columns
            (also a ``ValueError``).
        CacheError: the indexes cannot be kept in the cache folder.
        EmptyDataset: the files have no rows.
        InvalidArgument: a value that is not allowed (also a ``ValueError``).
        InvalidType: there is no such argument (also a ``TypeError``).
        MissingDependency: the extra ``parquet`` is not installed where the daemon runs.
        NoRoom: the ring does not fit in shared memory.
    """
    check_names(image_dataset_from_parquet, options, ImageOptions)
    return image_dataset_from_archive(
        urls,
        "parquet",
        image,
        label,
        label_mode=label_mode,
        class_names=class_names,
        **options,
    )
