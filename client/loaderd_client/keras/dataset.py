"""``image_dataset_from_directory``: Keras's arguments; a sequence from a daemon.

Arguments, checks and error messages follow ``keras/src/utils/image_dataset_utils.py``; order and
split of the files are Keras's. Images are decoded as by ``ImageDataGenerator`` and resized with
Pillow's antialiased filters, while Keras uses TensorFlow: JPEGs differ by a few grey levels.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from loaderd.errors import InvalidArgument
from loaderd.spec import url
from loaderd.spec.base import Cache, ColorMode, Decode, LabelMode, OnError
from loaderd.spec.output import Remainder
from loaderd.spec.source import Directory
from loaderd_client.core import arguments
from loaderd_client.core.shards import ShardArgument
from loaderd_client.keras.image_options import EXTENSIONS, ImageOptions, sequences_of

if TYPE_CHECKING:
    from loaderd.augment.operation import Operation
    from loaderd_client.keras.sequence import LoaderSequence


def image_dataset_from_directory(
    directory: str | os.PathLike[str],
    labels: str | Sequence[int] | None = "inferred",
    label_mode: str | None = "int",
    class_names: Sequence[str] | None = None,
    color_mode: ColorMode = "rgb",
    batch_size: int = 32,
    image_size: int | tuple[int, int] = (256, 256),
    shuffle: bool = True,
    seed: int | None = None,
    validation_split: float | None = None,
    subset: str | None = None,
    interpolation: str = "bilinear",
    follow_links: bool = False,
    crop_to_aspect_ratio: bool = False,
    pad_to_aspect_ratio: bool = False,
    data_format: str | None = None,
    format: str = "loaderd",
    verbose: bool = True,
    *,
    cache: Cache = "none",
    decode: Decode = "exact",
    on_error: OnError = "raise",
    substitute_weight: float | None = None,
    exif: bool = False,
    max_queue_size: int = 10,
    augment: Sequence[Operation] | None = None,
    class_weights: str | Mapping[str, float] | None = None,
    shard: ShardArgument = None,
    remainder: Remainder = "short",
    share: str | None = None,
    join: Literal["epoch", "now"] = "epoch",
    download: str | os.PathLike[str] | None = None,
    download_limit: int | str | None = None,
) -> LoaderSequence | list[LoaderSequence]:
    """Makes a sequence of the images below ``directory``; replaces Keras's function of that name.

    Images are float32 from 0 to 255, or uint8 with ``interpolation="nearest"``.

    Args:
        directory: the folder; the daemon reads it at the same path. Or the
            URL of one in an object store, such as ``"s3://bucket/train"``.
        labels: ``"inferred"`` from the subfolders; None for no labels; or one number for each file,
            in the order of the sorted paths. But for ``"inferred"``, all files of the folder and of
            its subfolders are taken.
        label_mode: ``int`` (int32), ``categorical`` (one-hot float32), ``binary`` (float32 of shape
            (rows, 1)), or None, which means ``labels=None``.
        class_names: names of the subfolders in label order; None takes all, sorted.
        color_mode: ``rgb``, ``rgba`` or ``grayscale``.
        batch_size: samples in a batch; the last batch of an epoch may have fewer. None is refused.
        image_size: (height, width) in pixels, or one number for both.
        shuffle: whether every epoch has a new order.
        seed: decides split and order; needed to split a shuffled list. None picks one from NumPy's
            global generator.
        validation_split: fraction of the files that is kept for validation; None and 0 for none.
        subset: ``training``, ``validation``, or ``both`` for a list of the two.
        interpolation: ``nearest``, ``bilinear``, ``bicubic``, ``hamming``, ``box`` (or ``area``),
            ``lanczos`` (or ``lanczos3``); all but ``nearest`` average when they shrink
            (antialiasing).
        follow_links: whether symbolic links to folders are followed.
        crop_to_aspect_ratio: whether pictures are cropped to the target's shape, about their
            centre, instead of stretched.
        pad_to_aspect_ratio: whether they are padded with black instead of stretched.
        data_format: ``channels_last`` or ``channels_first``; None is Keras's setting.
        format: ``"loaderd"`` only; Keras's own function makes ``tf`` and ``grain``.
        verbose: whether to print how many files were found.
        cache: as for ``ImageDataGenerator.flow_from_directory``.
        decode: the same.
        on_error: the same.
        substitute_weight: the same.
        exif: the same.
        max_queue_size: batches that the daemon keeps ready.
        augment: operations of :mod:`loaderd_client.augment`, or Keras layers, applied in this order
            to each image by itself. If one of them resizes or crops, they get images in their own
            size, and must make images of ``image_size``, with their own interpolation and aspect
            ratio. Otherwise they get images of ``image_size``. With ``Rescaling``,
            ``Normalization``, ``MixUp`` or ``CutMix`` images are float32; with the last two ``int``
            labels become one-hot rows of float32.
        class_weights: draws each epoch's samples with replacement, as many as without: with
            ``"balanced"`` as many of each class, or by a table of {class name: weight}, in which a
            sample of a class of weight 2 comes twice as often as one of weight 1; classes that are
            not in it have 1. Needs ``shuffle=True``. The validation half of ``both`` is not drawn
            by weights.
        shard: (index, count) of this trainer, where several share the dataset and take each step
            together, or ``"auto"``, which finds them: by torch.distributed, jax.distributed, Ray
            Train, ``TF_CONFIG``, ``RANK`` and ``WORLD_SIZE``, or Slurm, and is (0, 1) where
            none of them is in use. ``batch_size`` is that of one trainer. Needs a ``seed``.
        remainder: what becomes of samples at the end of an epoch that are too few for whole batches
            of all trainers: ``short`` spreads them, ``drop`` leaves them out, ``pad`` fills up with
            the epoch's first samples.
        share: a name: trainers that give the same one, and the same arguments, read one stream,
            which is rendered once. Arrays are read-only then. Without a ``seed`` the stream's is
            taken. With ``subset`` each part is a stream of its own, and with ``shard`` each
            trainer's: those of one index share it.
        join: where a trainer begins that comes later than the others: with their next ``epoch``, or
            ``now``, in the middle of one.
        download: for a URL, a folder of the daemon's machine, in which the bytes that were read are
            kept, so that the next epoch needs no network.
        download_limit: bytes of all that is kept in that folder, or a text such as ``"50GB"``; what
            was written first is removed first. None for half of what is free.

    Returns:
        A :class:`LoaderSequence` with ``class_names`` (None without labels) and
        ``file_paths``; with ``subset="both"`` a list of two.

    Raises:
        InvalidArgument: a value that is not allowed (also a ``ValueError``).
        DatasetNotFound: the directory is missing (also a ``FileNotFoundError``).
        EmptyDataset: it holds no image.
        NoRoom: the ring does not fit in shared memory.
        StorageRefused: an object store refuses.
        StorageTimeout: an object store cannot be reached.
    """
    labels = arguments.plain(labels)
    names = arguments.names("class_names", class_names)
    mode = label_mode_of(labels, label_mode, names)
    if mode == "none":
        labels = None  # as in Keras: subfolders are not classes then
    if format != "loaderd":
        raise InvalidArgument(
            f'`format` should be "loaderd": keras.utils makes "tf" and "grain". Received: {format}'
        )
    options = ImageOptions(
        color_mode=color_mode,
        batch_size=batch_size,
        image_size=image_size,
        shuffle=shuffle,
        seed=seed,
        validation_split=validation_split,
        subset=subset,
        interpolation=interpolation,
        crop_to_aspect_ratio=crop_to_aspect_ratio,
        pad_to_aspect_ratio=pad_to_aspect_ratio,
        data_format=data_format,
        verbose=verbose,
        cache=cache,
        decode=decode,
        on_error=on_error,
        substitute_weight=substitute_weight,
        exif=exif,
        max_queue_size=max_queue_size,
        augment=augment,
        class_weights=class_weights,
        shard=shard,
        remainder=remainder,
        share=share,
        join=join,
        download=download,
        download_limit=download_limit,
    )
    whole = Directory(
        directory=_directory(directory),
        extensions=EXTENSIONS,
        classes=names,
        hidden=False,
        flat=labels != "inferred",
        follow_links=arguments.flag("follow_links", follow_links),
        labels=None if labels is None or isinstance(labels, str) else tuple(map(int, labels)),
    )
    return sequences_of(whole, mode, options)


def _directory(given: str | os.PathLike[str]) -> str:
    """An absolute path, or the URL of a folder that can be listed."""
    place = arguments.place("directory", given)
    if not url.is_url(place):
        return place
    if not url.is_listable(place):
        raise InvalidArgument(
            "`directory`: objects on the web have no listing: pack them into archives, and read "
            f"these by image_dataset_from_archive. Received: {url.shown(place)}"
        )
    return place.rstrip("/")


def label_mode_of(
    labels: str | Sequence[int] | None, label_mode: str | None, class_names: Sequence[str] | None
) -> LabelMode:
    """The form of the labels, of arguments that are checked."""
    if not arguments.is_one_of(labels, ("inferred", None)):
        _check_labels(labels, label_mode, class_names)
    if not arguments.is_one_of(label_mode, ("int", "categorical", "binary", None)):
        raise InvalidArgument(
            '`label_mode` argument must be one of "int", "categorical", "binary", or None. '
            f"Received: label_mode={label_mode}"
        )
    mode: LabelMode = "none" if labels is None else arguments.plain(label_mode) or "none"
    if mode == "none" and class_names is not None:
        raise InvalidArgument(
            "When `labels=None` (no labels), argument `class_names` cannot be specified."
        )
    return mode


def _check_labels(
    labels: object, label_mode: str | None, class_names: Sequence[str] | None
) -> None:
    if not isinstance(labels, (list, tuple)):
        raise InvalidArgument(
            "`labels` argument should be a list/tuple of integer labels, of the same size as "
            'the number of image files in the target directory, "inferred", or None. '
            f"Received: labels={labels}"
        )
    if class_names:
        raise InvalidArgument(
            'You can only pass `class_names` if `labels="inferred"`. '
            f"Received: class_names={class_names}"
        )
    if label_mode == "categorical" and set(labels) != set(range(len(set(labels)))):
        raise InvalidArgument(
            '`labels` must be the whole numbers from 0 on for `label_mode="categorical"`. '
            f"Received: {sorted(set(labels))}"
        )
