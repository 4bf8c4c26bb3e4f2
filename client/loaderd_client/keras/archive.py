"""``image_dataset_from_archive``: images in archives and in files of rows."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Unpack, get_args

import msgspec

from loaderd.errors import InvalidArgument
from loaderd.spec import url as url_parts
from loaderd.spec.source import Archives, Layout, check_label
from loaderd_client.core import arguments
from loaderd_client.keras.dataset import label_mode_of
from loaderd_client.keras.dataset_options import check_names
from loaderd_client.keras.image_options import (
    EXTENSIONS,
    ImageArguments,
    ImageOptions,
    sequences_of,
)

if TYPE_CHECKING:
    from loaderd_client.keras.sequence import LoaderSequence

Path = str | os.PathLike[str]

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MAX_ARCHIVES = 10**5


def image_dataset_from_archive(
    urls: Path | Sequence[Path],
    format: Literal["auto", "webdataset", "folders", "parquet", "tfrecord", "mds"] = "auto",
    image: str | Sequence[str] | None = None,
    label: str | None = "auto",
    *,
    folder: str = "",
    label_mode: str | None = "int",
    class_names: Sequence[str] | None = None,
    **options: Unpack[ImageArguments],
) -> LoaderSequence | list[LoaderSequence]:
    """Makes a sequence of the images in archives or in files of rows, which stay packed.

    Every archive is indexed once, and its index is kept in the cache folder until it changes. Then
    each image is one read at its place, so that epochs are shuffled as a whole, and split, divided
    into shards and resumed, as those of :func:`image_dataset_from_directory`, whose options these
    are. With ``folders``, samples are in the order of a directory into which all archives were
    unpacked; else in the order of ``urls``, and in an archive in that of its members or rows.
    ``file_paths`` has the path of the archive, with that of the member behind it, or the number of
    the row.

    Args:
        urls: paths of archives, which the daemon reads at the same paths, or URLs in object stores
            or on the web: of one or several; of MDS, also of local folders with ``index.json``.
            ``{000..004}`` in a path stands for the numbers from 000 to 004, and ``{a,b}`` for each
            of the two.
        format: ``webdataset``: members of one name up to its first dot are a sample, such as
            ``0001.jpg`` and ``0001.cls``; ``folders``: the members lie in one folder for each
            class; ``parquet``: as :func:`image_dataset_from_parquet` reads them; ``tfrecord``:
            records of ``tf.train.Example``; ``mds``: shards of MosaicML's Streaming; ``auto``: what
            is found, of the first two ``webdataset`` where images have members ``.cls``, ``.json``
            or ``.txt`` of their names.
        image: the extension of the members that are images, or several, such as ``"jpg"``, or
            ``"input.png"`` of ``0001.input.png``; None for bmp, gif, jpeg, jpg and png. Of rows,
            the column or feature of the images; None for ``"image"`` or another usual name.
        label: for ``webdataset``, the extension of the members with the labels: ``cls``, a whole
            number; ``txt``, the name of a class; ``json``, either, in the field ``label``, or in
            another one by ``json:FIELD``; ``auto`` takes the first of ``cls``, ``json`` and ``txt``
            that is found. Of rows, the column or feature of the labels; ``auto`` for ``"label"``
            or another usual name. None for no labels, also of class folders.
        folder: for ``folders``, the path in the archives of the folder that holds the class
            folders, such as ``"train"``; members elsewhere are left out.
        label_mode: ``int`` (int32), ``categorical`` (one-hot float32), ``binary`` (float32 of shape
            (rows, 1)), or None, which means ``label=None``.
        class_names: names of the classes in label order: of whole numbers, the names of 0, 1 and so
            on; else some or all of those in the archives. None takes all, sorted.
        **options: ``color_mode``, ``batch_size``, ``image_size``, ``shuffle``, ``seed``,
            ``validation_split``, ``subset``, ``interpolation``, ``crop_to_aspect_ratio``,
            ``pad_to_aspect_ratio``, ``data_format``, ``verbose``, ``cache``, ``decode``,
            ``on_error``, ``substitute_weight``, ``exif``, ``max_queue_size``, ``augment``,
            ``class_weights``, ``shard``, ``remainder``, ``share``, ``join``, ``download`` and
            ``download_limit``, as those of :func:`image_dataset_from_directory`.

    Returns:
        A :class:`LoaderSequence` with ``class_names`` (None without labels) and ``file_paths``;
        with ``subset="both"`` a list of two.

    Raises:
        BadArchive: an archive is missing, damaged, compressed as a whole or changed while it was
            read, or its members or rows make no samples (also a ``ValueError``).
        CacheError: the indexes cannot be kept in the cache folder, or downloads in theirs.
        EmptyDataset: the archives hold no image.
        InvalidArgument: a value that is not allowed (also a ``ValueError``).
        InvalidType: there is no such argument (also a ``TypeError``).
        MissingDependency: the extra for this format is not installed where the daemon runs.
        NoRoom: the ring does not fit in shared memory.
        StorageRefused: an object store refuses.
        StorageTimeout: an object store cannot be reached.
    """
    check_names(image_dataset_from_archive, options, ImageOptions)
    source = source_of(urls, format, image, label)
    names = arguments.names("class_names", class_names)
    mode = label_mode_of(None if label is None else "inferred", label_mode, names)
    whole = msgspec.structs.replace(
        source,
        classes=names,
        flat=mode == "none",
        label=None if mode == "none" else source.label,
        folder=arguments.text("folder", folder).strip("/"),
    )
    return sequences_of(whole, mode, ImageOptions(**options))


def source_of(
    urls: Path | Sequence[Path],
    format: str,
    image: str | Sequence[str] | None,
    label: str | None,
    mask: str | Sequence[str] | None = None,
) -> Archives:
    """All samples of archives; the arguments are those of ``image_dataset_from_archive``.

    Args:
        urls: as there.
        format: as there.
        image: as there.
        label: as there.
        mask: as of ``segmentation_dataset_from_archive``; None for no masks.

    Raises:
        InvalidArgument: one is not allowed.
    """
    paths = _paths(urls)
    layout: Layout = arguments.one_of("format", format, get_args(Layout))
    label = None if label is None else arguments.text("label", label)
    if layout in ("webdataset", "folders"):
        check_label(label)
    elif label == "":
        raise InvalidArgument('`label` should name a column, or be None. Received: label=""')
    masks = () if mask is None else _extensions("mask", mask)
    return Archives(
        directory=_place(paths),
        extensions=_image_extensions(image, masks),
        columns=_columns(image),
        hidden=False,
        paths=paths,
        layout=layout,
        label=label,
        masks=masks,
    )


def _paths(urls: Path | Sequence[Path]) -> tuple[str, ...]:
    given = [urls] if isinstance(urls, (str, os.PathLike)) else urls
    paths: list[str] = []
    for one in given:
        text = os.fspath(one) if isinstance(one, os.PathLike) else arguments.text("urls", one)
        if "*" in text and not os.path.exists(text):
            raise InvalidArgument(
                "`urls`: an asterisk stands for nothing: write {000..031} for numbers, or give a "
                f"list of paths, such as sorted(glob.glob(...)). Received: {url_parts.shown(text)}"
            )
        paths += [arguments.place("urls", path) for path in _expanded(text, url_parts.shown(text))]
    if not paths:
        raise InvalidArgument("`urls` should name one archive or more")
    for path, times in Counter(paths).items():
        if times > 1:
            raise InvalidArgument(f"`urls` names {url_parts.shown(path)} more than once")
    if len({url_parts.is_url(path) for path in paths}) > 1:
        raise InvalidArgument("`urls` should name local archives, or those of stores, and not both")
    return tuple(paths)


def _place(paths: tuple[str, ...]) -> str:
    """What archives are called together."""
    if len(paths) == 1:
        return url_parts.shown(paths[0])
    if url_parts.is_url(paths[0]):
        return url_parts.common_folder(paths) or paths[0].partition("://")[0] + "://"
    return os.path.commonpath(map(os.path.dirname, paths))


def _expanded(text: str, given: str) -> list[str]:
    """The texts that one with braces stands for, in the order of shells; ``given`` for errors."""
    braces = _BRACES.search(text)
    if braces is None:
        return [text]
    if "{" in text[: braces.start()]:
        raise InvalidArgument(f"`urls` should have no braces within others. Received: {given}")
    bounds = _RANGE.fullmatch(braces[1])
    if bounds is not None:
        first, last = bounds.groups()
        numbers = range(int(first), min(int(last), int(first) + _MAX_ARCHIVES) + 1)
        choices = [f"{one:0{len(first)}}" for one in numbers]
    else:
        choices = braces[1].split(",")
    if not choices or (len(choices) == 1 and bounds is None):
        raise InvalidArgument(
            f"`urls`: {braces[0]} should be a range such as {{000..004}}, from the lower number to "
            f"the higher one, or a choice such as {{a,b}}. Received: {given}"
        )
    rests = _expanded(text[braces.end() :], given)
    if len(choices) * len(rests) > _MAX_ARCHIVES:
        raise InvalidArgument(f"`urls` names more than {_MAX_ARCHIVES:,} archives: {given}")
    return [text[: braces.start()] + choice + rest for choice in choices for rest in rests]


def _columns(image: str | Sequence[str] | None) -> tuple[str, ...]:
    if image is None:
        return ()
    return (image,) if isinstance(image, str) else tuple(arguments.names("image", image) or ())


def _image_extensions(image: str | Sequence[str] | None, masks: tuple[str, ...]) -> tuple[str, ...]:
    if image is None:
        return tuple(one for one in EXTENSIONS if one not in masks)
    found = _extensions("image", image)
    for one in {*found} & {*masks}:
        raise InvalidArgument(f"`image` and `mask` both name {one.removeprefix('.')!r}")
    return found


def _extensions(name: str, given: str | Sequence[str]) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) else arguments.names(name, given)
    found = tuple("." + one.lower().lstrip(".") for one in names or ())
    if not found or "." in found:
        column = ", or the name of their column" if name == "image" else ""
        raise InvalidArgument(
            f"`{name}` should be the extension of {name}s{column}, or several. "
            f"Received: {name}={given!r}"
        )
    return found
