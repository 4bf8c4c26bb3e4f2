"""The spec of a dataset with targets."""

from __future__ import annotations

import os
from typing import Any, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from loaderd.augment.boxes import BoxFormat
from loaderd.augment.crops import Resize
from loaderd.augment.pipeline import divide
from loaderd.errors import InvalidArgument
from loaderd.ipc.bundle import Parts
from loaderd.spec.annotations import Annotations, MaskSource
from loaderd.spec.base import CHANNELS, ColorMode, DataFormat
from loaderd.spec.load import Load
from loaderd.spec.output import Batching, Order, Output
from loaderd.spec.source import Archives, Arrays, Files
from loaderd.spec.spec import Spec
from loaderd_client.core import arguments
from loaderd_client.core.shards import shard_of
from loaderd_client.keras import adapter
from loaderd_client.keras.augment_list import Augmented, augmented, check_channels
from loaderd_client.keras.dataset_options import DatasetOptions
from loaderd_client.keras.loading import Loading
from loaderd_client.keras.pil_settings import pils_switches
from loaderd_client.keras.read_list import Functions
from loaderd_client.keras.sample_table import SampleTable

_SEEDS = 2**32
"""Of what shuffles a listing of the daemon."""


def compiled(listing: SampleTable, options: DatasetOptions) -> tuple[Spec, Parts, Functions]:
    """The spec, the arrays that it refers to, and the user's functions that it calls.

    Raises:
        InvalidArgument: an option is not allowed, or does not fit the samples.
    """
    arguments.one_of("bounding_box_format", options.bounding_box_format, get_args(BoxFormat))
    modes = _color_modes(options.color_mode, 1 + len(listing.further))
    data_format = options.data_format or adapter.image_data_format()
    output = Output(data_format=arguments.one_of("data_format", data_format, get_args(DataFormat)))
    loading = Loading(options.cache, options.decode, options.on_error, None, False).checked(True)
    load = Load(
        target_size=arguments.size(options.image_size, "image_size"),
        color_mode=modes[0],
        interpolation="bilinear",
        decode=loading.decode,
        pil=pils_switches(),
        reading="decode_image",
    )
    batch = Batching(arguments.whole("batch_size", options.batch_size), "none")
    found = augmented(options.augment, load, output, batch, has_targets=listing.has_targets)
    for mode in modes:
        check_channels(found.operations, CHANNELS[mode])
    given: dict[str, Any] = {}
    if divide(found.operations).mixes:
        found, listing, given = _mixed(found, listing)
    images = listing.images
    if isinstance(images, np.ndarray):
        found = _of_arrays(found, images, options)
    spec = Spec(
        source=_source(listing),
        load=found.load,
        transforms=(),
        output=found.output,
        batch=found.batch,
        order=Order(
            shuffle=arguments.flag("shuffle", options.shuffle),
            seed=arguments.seed(options.seed),
            class_weights=listing.class_weights,
            weighted=listing.sampling is not None,
            repeats=found.repeats,
            shard=shard_of(options.shard, options.remainder, options.seed),
        ),
        cache=loading.cache,
        on_error=loading.on_error,
        augment=found.operations,
        annotations=_annotations(listing, options, modes) if listing.has_targets else None,
        code=found.packed.code,
    )
    return spec, {**listing.parts(), **given, **found.packed.parts}, found.functions


def part_of(options: DatasetOptions, samples: int) -> NDArray[np.intp] | None:
    """The numbers of the samples that are asked for; None for all.

    After ``get_training_or_validation_split`` in ``keras/src/utils/dataset_utils.py``: the last
    ``int(validation_split * samples)`` are for validation, of a list that is shuffled first if the
    dataset is.

    Raises:
        InvalidArgument: ``validation_split`` and ``subset`` do not fit one another.
    """
    share = _share(options)
    if share is None:
        return None
    numbers = np.arange(samples)
    if options.shuffle:
        high, low = divmod(arguments.seed(options.seed), 2**32)
        np.random.RandomState([low, high] if high else low).shuffle(numbers)
    training = samples - int(share * samples)
    return numbers[:training] if options.subset == "training" else numbers[training:]


def part_of_archives(archives: Archives, options: DatasetOptions) -> Archives:
    """The part of archives that is asked for, as of :func:`part_of`.

    Raises:
        InvalidArgument: ``validation_split``, ``subset`` and ``seed`` do not fit one another.
    """
    share = _share(options)
    if share is None:
        return archives
    seed = arguments.seed(options.seed) if options.shuffle else None
    if seed is not None and seed >= _SEEDS:
        raise InvalidArgument(
            f"`seed` should be below {_SEEDS}, to split a shuffled dataset of archives. "
            f"Received: {options.seed!r}"
        )
    split = (share, options.subset)
    return msgspec.structs.replace(archives, split_overall=split, shuffle_seed=seed)


def _share(options: DatasetOptions) -> float | None:
    """The checked fraction for validation; None for no split."""
    split, subset = options.validation_split, options.subset
    if split is None and subset is None:
        return None
    if split is None or subset is None:
        raise InvalidArgument("give both `validation_split` and `subset`, or neither")
    share = arguments.share("validation_split", split)
    if not 0 < share < 1:
        raise InvalidArgument(f"`validation_split` must be between 0 and 1. Received: {split!r}")
    arguments.one_of("subset", subset, ("training", "validation"))
    if options.shuffle and options.seed is None:
        raise InvalidArgument(
            "`validation_split` of a shuffled dataset needs a `seed`, so that training and "
            "validation have no sample in common"
        )
    return share


def _source(listing: SampleTable) -> Archives | Arrays | Files:
    if listing.archives is not None:
        return listing.archives
    if isinstance(listing.images, np.ndarray):
        return Arrays()
    return Files(_folder_of(listing.images))


def _folder_of(paths: list[str]) -> str:
    return os.path.commonpath([os.path.dirname(path) for path in paths])


def _color_modes(given: Any, images: int) -> tuple[ColorMode, ...]:
    """The color mode of each image of a sample."""
    modes = tuple(given) if isinstance(given, list | tuple) else (given,) * images
    if len(modes) != images:
        raise InvalidArgument(
            f"`color_mode` should be one for all images, or one for each of {images}. "
            f"Received: {given!r}"
        )
    return tuple(arguments.one_of("color_mode", mode, get_args(ColorMode)) for mode in modes)


def _mixed(found: Augmented, listing: SampleTable) -> tuple[Augmented, SampleTable, dict[str, Any]]:
    """The parts of a spec that mixes images and labels, the samples, and labels for the bundle."""
    labels = listing.labels
    if labels is None:
        return found, listing, {}
    if listing.classes is not None:
        batch = msgspec.structs.replace(found.batch, label_mode="categorical")
        return found._replace(batch=batch), listing.with_names(), {}
    rows = labels.astype(np.float32)
    batch = msgspec.structs.replace(found.batch, label_mode="given", label_shape=rows.shape[1:])
    return found._replace(batch=batch), listing, {"labels": rows}


def _of_arrays(found: Augmented, images: NDArray[Any], options: DatasetOptions) -> Augmented:
    """The parts of a spec whose images are of the size of an array."""
    size = found.output.image_size or found.load.target_size
    planar = found.output.data_format == "channels_first"
    height, width = images.shape[2:] if planar else images.shape[1:3]
    load = msgspec.structs.replace(
        found.load, target_size=(height, width), aspect="stretch", sized=False
    )
    output = msgspec.structs.replace(found.output, image_size=size)
    operations = found.operations
    if not operations and size != (height, width):
        operations = (Resize(*size),)  # with others they are resized before the first
    return found._replace(operations=operations, load=load, output=output)


def _annotations(
    listing: SampleTable, options: DatasetOptions, modes: tuple[ColorMode, ...]
) -> Annotations:
    wanted = Annotations(masks=_mask_source(listing), further=modes[1:])
    instances = listing.instances
    if instances is None:
        return wanted
    most = listing.max_boxes if options.max_boxes is None else options.max_boxes
    return msgspec.structs.replace(
        wanted,
        max_boxes=arguments.whole("max_boxes", most),
        boxes=instances.boxes is not None,
        keypoints=0 if instances.keypoints is None else instances.keypoints.shape[1],
        box_format=options.bounding_box_format,
        min_area=arguments.number("min_area", options.min_area),
        min_visibility=arguments.number("min_visibility", options.min_visibility),
    )


def _mask_source(listing: SampleTable) -> MaskSource | None:
    if listing.shapes is not None:
        return "shapes"
    if listing.archives is not None:
        return "members"
    if listing.masks is None:
        return None
    return "arrays" if isinstance(listing.masks, np.ndarray) else "files"
