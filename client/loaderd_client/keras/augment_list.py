"""The parts of a spec that an ``augment=[...]`` list decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from loaderd.augment.crops import Resize
from loaderd.augment.operation import Operation
from loaderd.augment.pipeline import Pipeline, divide
from loaderd.augment.repeated import without_repeats
from loaderd.errors import InvalidArgument
from loaderd.spec.base import CHANNELS
from loaderd.spec.load import Load
from loaderd.spec.output import Batching, Output
from loaderd_client.keras.functions import PackedFunction, pack_listed
from loaderd_client.keras.read_list import Functions, numbered, operations_of


class Augmented(NamedTuple):
    """The parts of a spec with a list of operations.

    Attributes:
        operations: those that workers apply.
        load: fitted to them.
        output: the same.
        batch: the same.
        repeats: that of the order.
        functions: the user's, as the operations number them.
        packed: the same, for the workers.
    """

    operations: tuple[Any, ...]
    load: Load
    output: Output
    batch: Batching
    repeats: int
    functions: Functions
    packed: PackedFunction


def augmented(
    augment: object, load: Load, output: Output, batch: Batching, *, has_targets: bool = False
) -> Augmented:
    """Fits the parts of a spec to a list of operations.

    For a list that begins with an antialiased ``Resize`` images are loaded in that size, for one
    that resizes or crops otherwise in the size that they have, and for any other in ``image_size``.

    Args:
        augment: the list, in which layers of Keras are read as operations; None for none.
        load: as without it, in ``image_size``.
        output: the same.
        batch: the same.
        has_targets: whether masks, boxes or keypoints must move with the pixels.

    Raises:
        InvalidArgument: it is no list of operations, its images have not the size that is asked
            for, or it does not fit the batches' channels or labels.
    """
    listed, repeats = without_repeats(operations_of(augment, output.data_format))
    operations, functions = numbered(listed)
    pipeline = divide(operations)
    _check_size(pipeline, load)
    check_channels(operations, CHANNELS[load.color_mode])
    loaded = operations[0] if operations else None
    if isinstance(loaded, Resize) and loaded.averages:
        load = _loaded_by(loaded, load)  # so that it changes nothing when it is applied
        output = msgspec.structs.replace(output, image_size=pipeline.size)
    elif pipeline.size is not None:
        load = msgspec.structs.replace(load, aspect="keep")
    sized = has_targets and load.aspect != "keep"
    load = msgspec.structs.replace(load, sized=sized)
    if pipeline.values or pipeline.mixes:
        output = msgspec.structs.replace(output, dtype="float32")
    if pipeline.mixes and batch.label_mode == "int":
        batch = msgspec.structs.replace(batch, label_mode="categorical")
    packed = pack_listed(functions)
    return Augmented(operations, load, output, batch, repeats, functions, packed)


def _check_size(pipeline: Pipeline, load: Load) -> None:
    """Checks what a list that resizes or crops leaves without effect."""
    if pipeline.size is None:
        return
    if pipeline.size != load.target_size:
        raise InvalidArgument(
            f"`augment` makes images of (height, width) {pipeline.size}, but `image_size` is "
            f"{load.target_size}: they must be equal"
        )
    if load.aspect != "stretch":
        name = f"{load.aspect}_to_aspect_ratio"
        raise InvalidArgument(
            f"`{name}` has no effect where `augment` resizes or crops: leave it out; "
            "Resize(..., crop_to_aspect_ratio=True) crops"
        )
    if load.interpolation != "bilinear":
        raise InvalidArgument(
            f'`interpolation="{load.interpolation}"` has no effect where `augment` resizes or '
            "crops: give it to the operation that does"
        )


def check_channels(operations: Sequence[Operation], channels: int) -> None:
    """Raises InvalidArgument for an operation that is for images of other channels."""
    for operation in divide(operations).values:
        if operation.channels not in (None, channels):
            raise InvalidArgument(
                f"augment: {operation!r} is for {operation.channels} channels, and these images "
                f"have {channels}"
            )


def _loaded_by(first: Resize, load: Load) -> Load:
    """The load that resizes as the first operation does."""
    return msgspec.structs.replace(
        load,
        target_size=first.sets_size,
        interpolation=first.interpolation,
        aspect="crop" if first.crop_to_aspect_ratio else "stretch",
    )
