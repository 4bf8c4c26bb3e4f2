"""``image_dataset_from_directory``: Keras's arguments; a sequence from a daemon.

Arguments, checks and error messages follow ``keras/src/utils/image_dataset_utils.py``; order and
split of the files are Keras's. Images are decoded as by ``ImageDataGenerator`` and resized with
Pillow's antialiased filters, while Keras uses TensorFlow: JPEGs differ by a few grey levels.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, get_args

import msgspec
import numpy as np

from loaderd.errors import InvalidArgument
from loaderd.spec.base import (
    Aspect,
    Cache,
    ColorMode,
    DataFormat,
    Decode,
    Interpolation,
    LabelMode,
    OnError,
)
from loaderd.spec.load import Load
from loaderd.spec.output import Batching, Order, Output, Remainder
from loaderd.spec.source import Directory
from loaderd.spec.spec import Spec
from loaderd_client.core import arguments
from loaderd_client.core.shards import ShardArgument, shard_of
from loaderd_client.core.shared_supply import Sharing
from loaderd_client.keras import adapter
from loaderd_client.keras.augment_list import augmented
from loaderd_client.keras.class_weights import class_weights as checked_weights
from loaderd_client.keras.loading import Loading
from loaderd_client.keras.pil_settings import pils_switches

if TYPE_CHECKING:
    from loaderd.augment.operation import Operation
    from loaderd_client.keras.sequence import LoaderSequence

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
"""The file extensions that Keras's ``image_dataset_from_directory`` reads."""

_INTERPOLATIONS: dict[str, Interpolation] = {name: name for name in get_args(Interpolation)} | {
    "area": "box",
    "lanczos3": "lanczos",
}
_PICKED_SEEDS = 10**6
"""The upper bound, exclusive, of the seeds that Keras picks."""


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
) -> LoaderSequence | list[LoaderSequence]:
    """Makes a sequence of the images below ``directory``; replaces Keras's function of that name.

    Images are float32 from 0 to 255, or uint8 with ``interpolation="nearest"``.

    Args:
        directory: the folder; the daemon reads it at the same path.
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

    Returns:
        A :class:`LoaderSequence` with ``class_names`` (None without labels) and
        ``file_paths``; with ``subset="both"`` a list of two.

    Raises:
        InvalidArgument: a value that is not allowed (also a ``ValueError``).
        DatasetNotFound: the directory is missing (also a ``FileNotFoundError``).
        EmptyDataset: it holds no image.
        NoRoom: the ring does not fit in shared memory.
    """
    labels, subset = arguments.plain(labels), arguments.plain(subset)
    names = arguments.names("class_names", class_names)
    mode = _label_mode(labels, label_mode, names)
    if mode == "none":
        labels = None  # as in Keras: subfolders are not classes then
    shuffle = arguments.flag("shuffle", shuffle)
    validation_split = _split(validation_split, subset, shuffle, seed)
    if format != "loaderd":
        raise InvalidArgument(
            f'`format` should be "loaderd": keras.utils makes "tf" and "grain". Received: {format}'
        )
    resizing = _interpolation(interpolation)
    loading = Loading(cache, decode, on_error, substitute_weight, exif).checked(mode != "none")
    load = Load(
        target_size=_size(image_size),
        color_mode=_color_mode(color_mode),
        interpolation=resizing,
        aspect=_aspect(crop_to_aspect_ratio, pad_to_aspect_ratio),
        decode=loading.decode,
        exif=loading.exif,
        pil=pils_switches(),
        reading="decode_image",
    )
    output = Output(
        data_format=_data_format(data_format),
        dtype="uint8" if resizing == "nearest" else "float32",  # TensorFlow keeps the dtype
    )
    own = shard_of(shard, remainder, seed)
    given = seed
    seed = int(np.random.randint(_PICKED_SEEDS)) if seed is None else seed  # as in Keras
    weights = checked_weights(class_weights)
    if weights is not None and labels is None:
        raise InvalidArgument("`class_weights` needs labels")
    if isinstance(weights, tuple) and labels != "inferred":
        raise InvalidArgument(
            '`class_weights`: only classes of `labels="inferred"` have names: use "balanced"'
        )
    seed = arguments.whole("seed", seed)
    order = Order(shuffle=shuffle, seed=seed, class_weights=weights, shard=own)
    whole = Directory(
        directory=arguments.folder("directory", directory),
        extensions=EXTENSIONS,
        classes=names,
        hidden=False,
        flat=labels != "inferred",
        follow_links=arguments.flag("follow_links", follow_links),
        shuffle_seed=order.seed if shuffle else None,
        labels=None if labels is None or isinstance(labels, str) else tuple(map(int, labels)),
    )
    batch = Batching(_batch_size(batch_size), mode, loading.substitute_weight)
    parts = augmented(augment, load, output, batch)
    order = msgspec.structs.replace(order, repeats=parts.repeats)
    spec = Spec(
        source=whole,
        load=parts.load,
        transforms=(),
        output=parts.output,
        batch=parts.batch,
        order=order,
        cache=loading.cache,
        on_error=loading.on_error,
        augment=parts.operations,
        code=parts.packed.code,
    )
    from loaderd_client.keras.sequence import LoaderSequence

    sequences = [
        LoaderSequence(
            part,
            max_queue_size=max_queue_size,
            parts=parts.packed.parts,
            functions=parts.functions,
            sharing=Sharing.of(share, join, given, _subset(part), own),
        )
        for part in _parts(spec, validation_split, subset)
    ]
    if mode == "binary":
        _check_two_classes(sequences)
    for sequence in sequences if verbose else ():
        _print_found(sequence)
    return sequences if subset == "both" else sequences[0]


def _parts(spec: Spec, split: float | None, subset: str | None) -> list[Spec]:
    """One spec for each requested subset."""
    if split is None:
        return [spec]
    parts = []
    for one in ("training", "validation") if subset == "both" else (subset,):
        source = msgspec.structs.replace(spec.source, split_overall=(split, one))
        order = spec.order
        if (subset, one) == ("both", "validation"):  # as in Keras, it has one order for all epochs
            order = Order(shuffle=False, seed=order.seed, shard=order.shard)
        parts.append(msgspec.structs.replace(spec, source=source, order=order))
    return parts


def _subset(spec: Spec) -> str | None:
    assert isinstance(spec.source, Directory)
    split = spec.source.split_overall
    return None if split is None else split[1]


def _print_found(sequence: LoaderSequence) -> None:
    spec = sequence.spec
    labelled = spec.batch.label_mode != "none"
    classes = f" belonging to {sequence.num_classes} classes" if labelled else ""
    assert isinstance(spec.source, Directory)
    split = spec.source.split_overall
    purpose = f" for {split[1]}" if split else ""
    print(f"{'Using' if split else 'Found'} {sequence.n} files{classes}{purpose}.")


def _check_two_classes(sequences: list[LoaderSequence]) -> None:
    if sequences[0].num_classes != 2:
        for sequence in sequences:
            sequence.close()
        raise InvalidArgument(
            'When passing `label_mode="binary"`, there must be exactly 2 class_names. '
            f"Received: class_names={sequences[0].class_names}"
        )


# -- checks of the arguments, with Keras's messages ------------------------------------


def _label_mode(
    labels: str | Sequence[int] | None, label_mode: str | None, class_names: Sequence[str] | None
) -> LabelMode:
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


def _color_mode(color_mode: ColorMode) -> ColorMode:
    if not arguments.is_one_of(color_mode, get_args(ColorMode)):
        raise InvalidArgument(
            '`color_mode` must be one of {"rgb", "rgba", "grayscale"}. '
            f"Received: color_mode={color_mode}"
        )
    return arguments.plain(color_mode)  # type: ignore[no-any-return]  # it is one of them


def _size(image_size: int | tuple[int, int]) -> tuple[int, int]:
    if isinstance(image_size, int):
        image_size = (image_size, image_size)
    if not isinstance(image_size, (list, tuple)) or len(image_size) != 2:
        raise InvalidArgument(
            "Invalid `image_size` value. Expected a tuple of 2 integers. "
            f"Received: image_size={image_size}"
        )
    height, width = (arguments.whole("image_size", one) for one in image_size)
    return (height, width)


def _batch_size(batch_size: int) -> int:
    if batch_size is None:
        raise InvalidArgument("`batch_size` must be a number: a sequence gives whole batches")
    size = arguments.number("batch_size", batch_size)
    if size % 1:
        raise InvalidArgument(f"`batch_size` should be a whole number. Received: {batch_size!r}")
    return int(size)


def _interpolation(name: str) -> Interpolation:
    name = arguments.text("interpolation", name)
    if name.lower() not in _INTERPOLATIONS:
        raise InvalidArgument(
            f"Argument `interpolation` should be one of {tuple(_INTERPOLATIONS)}. "
            f"Received: interpolation={name}"
        )
    return _INTERPOLATIONS[name.lower()]


def _aspect(crop: bool, pad: bool) -> Aspect:
    if crop and pad:
        raise InvalidArgument(
            "Only one of `pad_to_aspect_ratio`, `crop_to_aspect_ratio` can be set to `True`."
        )
    return "crop" if crop else "pad" if pad else "stretch"


def _data_format(data_format: str | None) -> DataFormat:
    """After Keras's ``standardize_data_format``."""
    if data_format is None:
        return adapter.image_data_format()  # type: ignore[no-any-return]  # Keras has checked it
    name = arguments.text("data_format", data_format).lower()
    if name not in get_args(DataFormat):
        raise InvalidArgument(
            "The `data_format` argument must be one of {'channels_first', 'channels_last'}. "
            f"Received: data_format={data_format}"
        )
    return name  # type: ignore[return-value]  # it is one of them


def _split(
    split: float | None, subset: str | None, shuffle: bool, seed: int | None
) -> float | None:
    """The validation fraction, after Keras's ``dataset_utils.check_validation_split_arg``."""
    share = 0.0 if split is None else arguments.share("validation_split", split)
    if share and not 0 < share < 1:
        raise InvalidArgument(f"`validation_split` must be between 0 and 1, received: {split}")
    if (share or subset) and not (share and subset):
        raise InvalidArgument("If `subset` is set, `validation_split` must be set, and inversely.")
    if not arguments.is_one_of(subset, ("training", "validation", "both", None)):
        raise InvalidArgument(
            f'`subset` must be either "training", "validation" or "both", received: {subset}'
        )
    if share and shuffle and seed is None:
        raise InvalidArgument(
            "If using `validation_split` and shuffling the data, you must provide a `seed` "
            "argument, to make sure that there is no overlap between the training and "
            "validation subset."
        )
    return share or None
