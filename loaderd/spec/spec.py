"""The spec of a stream: everything that decides its bytes.

A spec is frozen and holds plain values only, so it is sent as JSON, and decoding checks types and
allowed values. Large or other values are sent with it in a
:mod:`bundle <loaderd.ipc.bundle>`. Two streams with equal specs and bundles over equal files give
equal bytes, whichever workers render them.
"""

from __future__ import annotations

import json
import random
from typing import TypeVar

import msgspec

from loaderd.augment.pipeline import divide
from loaderd.augment.policies import AnyOperation, calls_of
from loaderd.errors import InvalidArgument
from loaderd.spec.annotations import Annotations
from loaderd.spec.base import CHANNELS, Cache, ColorMode, Frozen, OnError
from loaderd.spec.load import Load
from loaderd.spec.operations import Operation, Random, UserCode
from loaderd.spec.output import Batching, Order, Output
from loaderd.spec.source import Archives, Arrays, Directory, Download, Files, Rows

T = TypeVar("T")

_PICKED_SEEDS = 2**31
_SURROGATE = b"\\ud"
"""Only ``json.dumps`` writes this: msgspec escapes only controls, and rejects surrogates."""


class Spec(Frozen, frozen=True):
    """The spec of a stream.

    Attributes:
        source: the samples.
        load: how their images are decoded and resized.
        transforms: the operations that follow, in this order: those of ``ImageDataGenerator``.
        output: the form of a finished sample.
        batch: how samples form batches.
        order: the order of the samples, and the source of the draws.
        cache: where decoded images are kept, before they are augmented; it changes no byte.
        on_error: treatment of an unreadable image: ``raise`` an error in the trainer,
            ``substitute`` another of its class, drawn from (seed, epoch, sample),
            or ``skip`` its row of the batch.
        survey: whether images that this installation cannot decode are reported like bad ones,
            for a scan of a whole dataset, instead of raising an error.
        augment: operations of :mod:`loaderd.augment`, in the place of ``transforms``.
        annotations: what moves with the images; None for nothing.
        code: the user's functions that ``augment`` calls; None for none.
        download: where bytes from an object store are kept; None if they are not.
    """

    source: Directory | Archives | Rows | Files | Arrays
    load: Load
    transforms: tuple[Operation, ...]
    output: Output
    batch: Batching
    order: Order
    cache: Cache = "none"
    on_error: OnError = "raise"
    survey: bool = False
    augment: tuple[AnyOperation, ...] = ()
    annotations: Annotations | None = None
    code: UserCode | None = None
    download: Download | None = None

    def __post_init__(self) -> None:
        """Raises InvalidArgument for parts that do not fit one another."""
        if self.cache != "none" and self.load.aspect == "keep":
            raise InvalidArgument(
                f'cache="{self.cache}" needs images of one size: begin `augment` with an '
                "antialiased Resize, whose result is kept, and let RandomCrop or others follow"
            )
        if self.augments and (self.transforms or self.order.draws == "batch"):
            raise InvalidArgument("`augment` goes with no operation of ImageDataGenerator")
        if self.annotations is not None:
            self._check_annotations(self.annotations)
        if divide(self.augment).mixes and not self._can_mix:
            raise InvalidArgument(
                "MixUp and CutMix need images and labels of float32: labels one-hot, binary or none"
            )
        self._check_mixed_targets()
        self._check_calls()

    def _check_mixed_targets(self) -> None:
        mixes = [operation for _, operation in divide(self.augment).mixes]
        if not mixes or self.annotations is None:
            return
        if not self.annotations.can_mix:
            raise InvalidArgument(
                "`augment`: MixUp and CutMix mix images with labels, and boxes, keypoints and "
                "further images have no meaning then: leave them out"
            )
        if not all(one.keeps_pixels for one in mixes):
            raise InvalidArgument(
                "`augment`: the mean of two masks has no meaning: in the place of MixUp use "
                "CutMix, which takes parts of masks with those of their images"
            )

    def _check_calls(self) -> None:
        functions = () if self.code is None else self.code.functions
        there = () if self.annotations is None else self.annotations.targets
        for call in calls_of(self.augment):
            if not 0 <= call.number < len(functions):
                raise InvalidArgument("`augment` calls a function that was not sent")
            lacking = [name for name in call.targets if name not in there]
            if lacking:
                raise InvalidArgument(
                    f"A.Function {functions[call.number].name} takes {', '.join(lacking)}, which "
                    f"this dataset has not: it has {', '.join(there) or 'none of its targets'}"
                )

    def _check_annotations(self, wanted: Annotations) -> None:
        of_arrays = isinstance(self.source, Arrays)
        if not of_arrays and self.load.sized == (self.load.aspect == "keep"):
            raise InvalidArgument(
                "images with annotations keep their size, or are resized as `sized`"
            )
        if of_arrays and wanted.further:
            raise InvalidArgument("further images are read from files, as are the first")
        if (wanted.masks == "arrays") > of_arrays:
            raise InvalidArgument("masks in arrays go with images in arrays")

    @property
    def augments(self) -> bool:
        """Whether samples are finished by :mod:`loaderd.augment`, be it with an empty list."""
        return bool(self.augment or self.annotations)

    @property
    def _can_mix(self) -> bool:
        return self.output.dtype == "float32" and self.batch.label_mode in (
            "categorical",
            "binary",
            "given",
            "none",
        )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape of one finished sample in its data format."""
        return self._formatted(self.image_size, self.load.array_shape[2])

    @property
    def array_shape(self) -> tuple[int, int, int]:
        """The shape of one image of ``Arrays`` in the bundle, in the data format of the batch."""
        *size, channels = self.load.array_shape
        return self._formatted((size[0], size[1]), channels)

    def shape_of(self, color_mode: ColorMode) -> tuple[int, int, int]:
        """The shape of a finished image of a color mode, in its data format."""
        return self._formatted(self.image_size, CHANNELS[color_mode])

    def _formatted(self, size: tuple[int, int], channels: int) -> tuple[int, int, int]:
        if self.output.data_format == "channels_first":
            return (channels, *size)
        return (*size, channels)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of one finished sample."""
        return self.output.image_size or self.load.target_size

    @property
    def function(self) -> UserCode | None:
        """The user's function for each image, or those of ``augment``, if there are any."""
        return self.code or self.first(UserCode)

    @property
    def is_random(self) -> bool:
        """Whether samples have random parameters."""
        return any(isinstance(operation, Random) for operation in self.transforms)

    def first(self, kind: type[T]) -> T | None:
        """The first operation of a kind."""
        return next((one for one in self.transforms if isinstance(one, kind)), None)


def encode(spec: Spec) -> bytes:
    """The spec as JSON; names that are not UTF-8 hold surrogates, as in Python."""
    try:
        return msgspec.json.encode(spec)
    except UnicodeEncodeError:
        return json.dumps(msgspec.to_builtins(spec)).encode("ascii")


def decode(data: bytes) -> Spec:
    """The spec from JSON.

    Raises:
        InvalidArgument: a field is missing, unknown, of the wrong type or not allowed.
    """
    try:
        if _SURROGATE in data:
            # NaN and infinity, which are not valid JSON, are null, as msgspec writes them.
            return msgspec.convert(json.loads(data, parse_constant=lambda _: None), Spec)
        return msgspec.json.decode(data, type=Spec)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"the spec is not valid: {error}") from error


def seeded(spec: Spec) -> Spec:
    """The spec with a seed, chosen at random if it has none.

    Raises:
        InvalidArgument: several trainers share its epochs, and each would choose another.
    """
    if spec.order.seed is not None:
        return spec
    if spec.order.shard is not None and spec.order.shard.count > 1:
        raise InvalidArgument("a shard of several trainers needs a seed, the same one for all")
    seed = random.SystemRandom().randrange(_PICKED_SEEDS)
    return msgspec.structs.replace(spec, order=msgspec.structs.replace(spec.order, seed=seed))


def with_seed(spec: Spec, seed: int) -> Spec:
    """The spec with another seed; that of a shuffled listing goes with that of the order."""
    source = spec.source
    if isinstance(source, Directory) and source.shuffle_seed is not None:
        source = msgspec.structs.replace(source, shuffle_seed=seed)
    order = msgspec.structs.replace(spec.order, seed=seed)
    return msgspec.structs.replace(spec, source=source, order=order)


def fitted(spec: Spec, samples: int) -> Spec:
    """The spec with a batch size of at most ``samples``, where batches may be short."""
    if spec.order.shard is not None and spec.order.shard.remainder != "short":
        return spec
    size = min(spec.batch.batch_size, samples)
    batch = msgspec.structs.replace(spec.batch, batch_size=size)
    return msgspec.structs.replace(spec, batch=batch)


def unsharded(spec: Spec) -> Spec:
    """The spec without what distinguishes trainers that share an epoch: equal for all of them."""
    shard = spec.order.shard
    if shard is None:
        return spec
    same = msgspec.structs.replace(shard, index=0, found="argument")
    return msgspec.structs.replace(spec, order=msgspec.structs.replace(spec.order, shard=same))


def unseeded(spec: Spec) -> Spec:
    """The spec without its seed."""
    return msgspec.structs.replace(spec, order=msgspec.structs.replace(spec.order, seed=None))


def for_workers(spec: Spec) -> Spec:
    """The spec without its source, as workers get the files from the manifest."""
    return msgspec.structs.replace(spec, source=Files())
