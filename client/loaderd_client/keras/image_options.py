"""The options of datasets of images with one label, and the sequences that they make."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypedDict, get_args

import msgspec
import numpy as np

from loaderd.errors import InvalidArgument
from loaderd.ipc.bundle import Parts
from loaderd.spec import url
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
from loaderd.spec.source import Directory, Download
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


class ImageArguments(TypedDict, total=False):
    """The arguments of :class:`ImageOptions`, as further keyword arguments of a function."""

    color_mode: ColorMode
    batch_size: int
    image_size: int | tuple[int, int]
    shuffle: bool
    seed: int | None
    validation_split: float | None
    subset: str | None
    interpolation: str
    crop_to_aspect_ratio: bool
    pad_to_aspect_ratio: bool
    data_format: str | None
    verbose: bool
    cache: Cache
    decode: Decode
    on_error: OnError
    substitute_weight: float | None
    exif: bool
    max_queue_size: int
    augment: Sequence[Operation] | None
    class_weights: str | Mapping[str, float] | None
    shard: ShardArgument
    remainder: Remainder
    share: str | None
    join: Literal["epoch", "now"]
    download: str | os.PathLike[str] | None
    download_limit: int | str | None


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """What ``image_dataset_from_directory`` describes, but for what selects files and labels."""

    color_mode: ColorMode = "rgb"
    batch_size: int = 32
    image_size: int | tuple[int, int] = (256, 256)
    shuffle: bool = True
    seed: int | None = None
    validation_split: float | None = None
    subset: str | None = None
    interpolation: str = "bilinear"
    crop_to_aspect_ratio: bool = False
    pad_to_aspect_ratio: bool = False
    data_format: str | None = None
    verbose: bool = True
    cache: Cache = "none"
    decode: Decode = "exact"
    on_error: OnError = "raise"
    substitute_weight: float | None = None
    exif: bool = False
    max_queue_size: int = 10
    augment: Sequence[Operation] | None = None
    class_weights: str | Mapping[str, float] | None = None
    shard: ShardArgument = None
    remainder: Remainder = "short"
    share: str | None = None
    join: Literal["epoch", "now"] = "epoch"
    download: str | os.PathLike[str] | None = None
    download_limit: int | str | None = None


def sequences_of(
    whole: Directory, mode: LabelMode, options: ImageOptions, given: Parts | None = None
) -> LoaderSequence | list[LoaderSequence]:
    """The sequence of a dataset, or one for each of ``both`` subsets.

    Args:
        whole: the samples, before they are shuffled and split.
        mode: the form of the labels.
        options: as the user gave them.
        given: arrays of a bundle that ``whole`` needs; None for none.

    Raises:
        InvalidArgument: one is not allowed (also a ``ValueError``).
        DatasetError: there are no samples, or they cannot be listed.
        NoRoom: the ring does not fit in shared memory.
    """
    subset = arguments.plain(options.subset)
    shuffle = arguments.flag("shuffle", options.shuffle)
    split = _split(options.validation_split, subset, shuffle, options.seed)
    resizing = _interpolation(options.interpolation)
    loading = Loading(
        options.cache, options.decode, options.on_error, options.substitute_weight, options.exif
    ).checked(mode != "none")
    load = Load(
        target_size=_size(options.image_size),
        color_mode=_color_mode(options.color_mode),
        interpolation=resizing,
        aspect=_aspect(options.crop_to_aspect_ratio, options.pad_to_aspect_ratio),
        decode=loading.decode,
        exif=loading.exif,
        pil=pils_switches(),
        reading="decode_image",
    )
    output = Output(
        data_format=_data_format(options.data_format),
        dtype="uint8" if resizing == "nearest" else "float32",  # TensorFlow keeps the dtype
    )
    order = _order(options, shuffle, mode, whole)
    whole = msgspec.structs.replace(whole, shuffle_seed=order.seed if shuffle else None)
    batch = Batching(_batch_size(options.batch_size), mode, loading.substitute_weight)
    parts = augmented(options.augment, load, output, batch)
    spec = Spec(
        source=whole,
        load=parts.load,
        transforms=(),
        output=parts.output,
        batch=parts.batch,
        order=msgspec.structs.replace(order, repeats=parts.repeats),
        cache=loading.cache,
        on_error=loading.on_error,
        augment=parts.operations,
        code=parts.packed.code,
        download=_download(options, whole),
    )
    from loaderd_client.keras.sequence import LoaderSequence

    sequences = [
        LoaderSequence(
            part,
            max_queue_size=options.max_queue_size,
            parts={**parts.packed.parts, **(given or {})},
            functions=parts.functions,
            sharing=Sharing.of(
                options.share, options.join, options.seed, _subset(part), order.shard
            ),
        )
        for part in _parts(spec, split, subset)
    ]
    if mode == "binary":
        _check_two_classes(sequences)
    for sequence in sequences if options.verbose else ():
        _print_found(sequence)
    return sequences if subset == "both" else sequences[0]


def _download(options: ImageOptions, whole: Directory) -> Download | None:
    if options.download is None:
        if options.download_limit is not None:
            raise InvalidArgument("`download_limit` goes with `download`, the folder of the files")
        return None
    if not url.is_url(whole.directory):
        raise InvalidArgument("`download` is for URLs: these files are local already")
    limit = options.download_limit
    folder = arguments.folder("download", options.download)
    return Download(
        folder=folder, limit=None if limit is None else arguments.nbytes("download_limit", limit)
    )


def _order(options: ImageOptions, shuffle: bool, mode: LabelMode, whole: Directory) -> Order:
    own, seed = shard_of(options.shard, options.remainder, options.seed), options.seed
    seed = int(np.random.randint(_PICKED_SEEDS)) if seed is None else seed  # as in Keras
    weights = checked_weights(options.class_weights)
    if weights is not None and mode == "none":
        raise InvalidArgument("`class_weights` needs labels")
    if isinstance(weights, tuple) and whole.flat:
        raise InvalidArgument(
            '`class_weights`: only classes of `labels="inferred"` have names: use "balanced"'
        )
    seed = arguments.whole("seed", seed)
    return Order(shuffle=shuffle, seed=seed, class_weights=weights, shard=own)


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
