"""The options of datasets with targets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from inspect import signature
from typing import Any, Literal, TypedDict

from loaderd.augment.boxes import BoxFormat
from loaderd.errors import InvalidType
from loaderd.spec.base import Cache, ColorMode, DataFormat, Decode, OnError
from loaderd.spec.output import Remainder
from loaderd_client.core.shards import ShardArgument


@dataclass(frozen=True, kw_only=True)
class DatasetOptions:
    """The options of all datasets with targets.

    Args:
        image_size: (height, width) of the images, in pixels.
        batch_size: samples in a batch; the last batch of an epoch may have fewer.
        shuffle: whether every epoch has a new order.
        seed: decides split, order and augmentation; needed to split a shuffled dataset. None picks
            one from NumPy's global generator.
        validation_split: fraction of the samples that is kept for validation; None for none.
        subset: ``training`` or ``validation``: which part of the split.
        color_mode: ``rgb``, ``rgba`` or ``grayscale``; or one for each image of a sample.
        augment: operations of :mod:`loaderd_client.augment`, or Keras layers; masks, boxes and
            keypoints move with the pixels. For a list that does not resize, images are resized to
            ``image_size`` before the first. ``MixUp`` goes with ``labels`` alone, ``CutMix`` with
            labels and masks; whole numbers become one-hot.
        targets: which of ``labels``, ``segmentation_masks``, ``bounding_boxes`` and ``keypoints`` a
            batch ``(images, targets)`` has: one as it is, several as a tuple. None for Keras's
            dictionary of all.
        bounding_box_format: of boxes, in Keras's names: ``xyxy``, ``yxyx``, ``xywh``,
            ``center_xywh``, and these with ``rel_``.
        max_boxes: boxes of an image in a batch; None for the most that an image has.
        min_area: pixels; boxes of which less is seen are left out.
        min_visibility: the fraction of a box that must be seen; else it is left out.
        data_format: ``channels_last`` or ``channels_first``, of images; None is Keras's setting.
        cache: where decoded images are kept: ``none``, ``memory`` or ``disk``; a list that crops or
            warps to ``image_size`` must begin with a ``Resize``, whose result is kept. Masks and
            further images are decoded each time.
        decode: ``exact``, or ``scaled``, which decodes large JPEGs at a fraction of their size.
        on_error: what happens to a sample that cannot be read: ``raise``, ``substitute`` another of
            its class, or any other where labels are no classes, or ``skip``.
        max_queue_size: batches that the daemon keeps ready.
        share: a name: trainers that give the same one, and the same arguments, read one stream,
            which is rendered once. Arrays are read-only then. Without a ``seed`` the stream's is
            taken. With ``subset`` each part is a stream of its own, and with ``shard`` each
            trainer's: those of one index share it.
        join: where a trainer begins that comes later than the others: with their next ``epoch``, or
            ``now``, in the middle of one.
        verbose: whether to print how many samples there are.
        shard: (index, count) of this trainer, where several share the dataset and take each step
            together, or ``"auto"``, which finds them, as for ``image_dataset_from_directory``.
            ``batch_size`` is that of one trainer. Needs a ``seed``.
        remainder: what becomes of samples at the end of an epoch that are too few for whole batches
            of all trainers: ``short`` spreads them, ``drop`` leaves them out, ``pad`` fills up with
            the epoch's first samples.
    """

    image_size: tuple[int, int] = (256, 256)
    batch_size: int = 32
    shuffle: bool = True
    seed: int | None = None
    validation_split: float | None = None
    subset: Literal["training", "validation"] | None = None
    color_mode: ColorMode | Sequence[ColorMode] = "rgb"
    augment: Sequence[Any] | None = None
    targets: Sequence[str] | None = None
    bounding_box_format: BoxFormat = "xyxy"
    max_boxes: int | None = None
    min_area: float = 0.0
    min_visibility: float = 0.0
    data_format: DataFormat | None = None
    cache: Cache = "none"
    decode: Decode = "exact"
    on_error: OnError = "raise"
    max_queue_size: int = 10
    share: str | None = None
    join: Literal["epoch", "now"] = "epoch"
    verbose: bool = True
    shard: ShardArgument = None
    remainder: Remainder = "short"


class DatasetArguments(TypedDict, total=False):
    """The keyword arguments of :class:`DatasetOptions`, which describes them.

    Functions that take them declare these, so that editors complete them and type checkers know
    their types.
    """

    image_size: tuple[int, int]
    batch_size: int
    shuffle: bool
    seed: int | None
    validation_split: float | None
    subset: Literal["training", "validation"] | None
    color_mode: ColorMode | Sequence[ColorMode]
    augment: Sequence[Any] | None
    targets: Sequence[str] | None
    bounding_box_format: BoxFormat
    max_boxes: int | None
    min_area: float
    min_visibility: float
    data_format: DataFormat | None
    cache: Cache
    decode: Decode
    on_error: OnError
    max_queue_size: int
    share: str | None
    join: Literal["epoch", "now"]
    verbose: bool
    shard: ShardArgument
    remainder: Remainder


def options_of(function: Callable[..., Any], arguments: DatasetArguments) -> DatasetOptions:
    """The options that a function was called with; see :func:`check_names`."""
    check_names(function, arguments, DatasetOptions)
    return DatasetOptions(**arguments)


def check_names(function: Callable[..., Any], arguments: Iterable[str], kind: type) -> None:
    """Makes sure that a function was called with arguments that it has.

    Args:
        function: for the error.
        arguments: the names of its further keyword arguments.
        kind: the dataclass of those.

    Raises:
        InvalidType: one is not known; says which may have been meant.
    """
    known = [field.name for field in fields(kind)]
    for name in arguments:
        if name not in known:
            near = get_close_matches(name, [*signature(function).parameters, *known], 1)
            raise InvalidType(
                f"{function.__name__}() got an unexpected keyword argument {name!r}"
                + (f": did you mean {near[0]}?" if near else "")
            )
