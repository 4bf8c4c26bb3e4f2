"""Datasets of images and masks: in two folders, or in archives."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import msgspec

from loaderd.errors import DatasetNotFound, InvalidArgument
from loaderd.ipc.text import printable
from loaderd_client.core import arguments
from loaderd_client.keras.annotated import AnnotatedSequence, dataset_of, dataset_of_archives
from loaderd_client.keras.archive import source_of
from loaderd_client.keras.dataset_options import DatasetArguments, options_of
from loaderd_client.keras.image_options import EXTENSIONS
from loaderd_client.keras.sample_table import SampleTable

_MASKS = (".png", ".bmp", ".gif", ".tif", ".tiff")
_NAMED = 3


def segmentation_dataset_from_directory(
    images: str | os.PathLike[str],
    masks: str | os.PathLike[str],
    **options: Unpack[DatasetArguments],
) -> AnnotatedSequence:
    """Makes a dataset of the images below one folder and the masks below another.

    The mask of ``images/a/1.jpg`` is ``masks/a/1.png``, or another format without loss. Its values
    are numbers of classes, 0 to 255; of a picture with a palette they are its indices.

    Args:
        images: the folder of the images; the daemon reads it at the same path.
        masks: the folder of the masks.
        **options: see :class:`DatasetOptions`.

    Returns:
        A sequence of dictionaries with ``images`` and ``segmentation_masks``, or, with
        ``targets=("segmentation_masks",)``, of (images, masks).

    Raises:
        DatasetNotFound: a folder is missing (also a ``FileNotFoundError``).
        EmptyDataset: there is no image.
        InvalidArgument: an image has no mask, two images or masks differ in the extension alone,
            or an option is not allowed.
        InvalidType: there is no such argument (also a ``TypeError``).
    """
    chosen = options_of(segmentation_dataset_from_directory, options)
    folder, beside = _folder("images", images), _folder("masks", masks)
    found = _files("images", folder, EXTENSIONS)
    known = _files("masks", beside, _MASKS)
    lacking = [name for name in found if name not in known]
    if lacking:
        raise InvalidArgument(
            f"{len(lacking)} of {len(found)} images in {folder} have no mask in {beside}: "
            f"{', '.join(lacking[:_NAMED])}{', …' if len(lacking) > _NAMED else ''}"
        )
    listing = SampleTable(list(found.values()), masks=[known[name] for name in found])
    return dataset_of(listing, chosen)


def segmentation_dataset_from_archive(
    urls: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    image: str | Sequence[str] | None = None,
    mask: str | Sequence[str] = "mask.png",
    **options: Unpack[DatasetArguments],
) -> AnnotatedSequence:
    """Makes a dataset of the images and masks in tar or zip archives, which stay packed.

    Members of one key, the name up to its first dot, are a sample, such as ``0001.jpg`` and
    ``0001.mask.png``. Masks are as those of :func:`segmentation_dataset_from_directory`; archives
    are indexed as by :func:`image_dataset_from_archive`, and samples are in the order of ``urls``,
    and in an archive in that of its images.

    Args:
        urls: of the archives, as of :func:`image_dataset_from_archive`.
        image: the extension of the members that are images, or several, such as ``"jpg"``; None for
            bmp, gif, jpeg, jpg and png, but for that of the masks.
        mask: the extension of the members that are masks, such as ``"png"`` of ``0001.png``, or
            several, of which each key has one.
        **options: see :class:`DatasetOptions`.

    Returns:
        A sequence as of :func:`segmentation_dataset_from_directory`.

    Raises:
        BadArchive: an archive is missing, damaged, compressed as a whole or changed while it was
            read, or a key has an image without a mask, or two of either (also a ``ValueError``).
        CacheError: the indexes cannot be kept in the cache folder.
        EmptyDataset: the archives hold no image.
        InvalidArgument: an option is not allowed.
        InvalidType: there is no such argument (also a ``TypeError``).
        MissingDependency: the extra for object stores is not installed where the daemon runs.
        StorageRefused: an object store refuses.
        StorageTimeout: an object store cannot be reached.
    """
    chosen = options_of(segmentation_dataset_from_archive, options)
    whole = source_of(urls, "webdataset", image, None, mask)
    if not whole.masks:
        raise InvalidArgument(
            f"`mask` should be the extension of masks, or several. Received: mask={mask!r}"
        )
    return dataset_of_archives(msgspec.structs.replace(whole, flat=True), chosen)


def _folder(name: str, path: str | os.PathLike[str]) -> str:
    folder = arguments.folder(name, path)
    if not os.path.isdir(folder):
        raise DatasetNotFound(f"`{name}`: there is no folder {folder}")
    return folder


def _files(argument: str, folder: str, extensions: tuple[str, ...]) -> dict[str, str]:
    """Paths of files by their names below a folder, without extension, in order."""
    found: dict[str, str] = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.suffix.lower() in extensions and path.is_file():
            name = str(path.relative_to(folder).with_suffix(""))
            if name in found:
                raise InvalidArgument(
                    f"`{argument}`: {printable(found[name])} and {printable(path.name)} differ in "
                    "the extension alone: keep one of them"
                )
            found[name] = str(path)
    return found
