"""``segmentation_dataset_from_directory``: images and masks in two folders."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Unpack

from loaderd.errors import DatasetNotFound, InvalidArgument
from loaderd.ipc.text import printable
from loaderd_client.core import arguments
from loaderd_client.keras.annotated import AnnotatedSequence, dataset_of
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
