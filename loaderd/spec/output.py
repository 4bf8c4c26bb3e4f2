"""The parts of a spec that define finished samples, batches and their order."""

from __future__ import annotations

from typing import Literal

from loaderd.errors import InvalidArgument
from loaderd.spec.base import ComputeDType, DataFormat, Draws, DType, Frozen, LabelMode

ClassWeights = Literal["balanced"] | tuple[tuple[str, float], ...]
"""Weights of all samples of a class: 1 / their number, or (name, weight); 1 for other classes."""

Remainder = Literal["short", "drop", "pad"]
ShardOrigin = Literal[
    "argument",
    "torch.distributed",
    "jax.distributed",
    "ray.train",
    "TF_CONFIG",
    "RANK",
    "SLURM_PROCID",
    "default",
]
"""Where a trainer's index and number were found; ``default``: nowhere, so it is alone."""

MAX_TRAINERS = 2**20


class Save(Frozen, frozen=True):
    """Where finished samples are saved as image files.

    Attributes:
        directory: an existing folder (absolute).
        prefix: of the file names.
        format: the images' format and file extension.
        most: exclusive bound of the random numbers in Keras's names.
    """

    directory: str
    prefix: str
    format: str
    most: int


class Output(Frozen, frozen=True):
    """The form of a finished sample.

    Attributes:
        data_format: of the batch.
        dtype: of the batch.
        floatx: the dtype that Keras computes in: ``keras.config.floatx()``, by
            ``compute_dtype``.
        save: where to also save every finished image; None for nowhere.
        image_size: (height, width) in pixels, where operations change that of loaded images;
            None where they keep it.
    """

    data_format: DataFormat = "channels_last"
    dtype: DType = "float32"
    floatx: ComputeDType = "float32"
    save: Save | None = None
    image_size: tuple[int, int] | None = None


class Batching(Frozen, frozen=True):
    """How samples form batches.

    Attributes:
        batch_size: samples in a batch; the last batch of an epoch may be smaller.
        label_mode: ``categorical`` one-hot rows, ``sparse`` one number each, both of
            the pipeline's dtype; ``int`` one int32 each; ``binary`` float32 of shape
            (batch, 1); ``input`` the images again; ``given`` float32 rows of the bundle's
            ``labels``; ``none`` no labels.
        substitute_weight: the sample weight of a substitute for a bad image (all others
            have 1); None for batches without weights.
        label_shape: of one row of given labels.
    """

    batch_size: int
    label_mode: LabelMode = "categorical"
    substitute_weight: float | None = None
    label_shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Raises InvalidArgument for an empty batch, or labels of a negative size."""
        if self.batch_size < 1:
            raise InvalidArgument(f"batch_size must be at least 1, got {self.batch_size}")
        if min(self.label_shape, default=0) < 0:
            raise InvalidArgument(f"labels must not have the shape {self.label_shape}")


class Shard(Frozen, frozen=True):
    """The part of a stream that one of several trainers reads, which take each step together.

    Batch k of all of them together, the global batch, is the next ``count * batch_size`` samples of
    the epoch's order; each trainer has a block of it, in the order of ``index``.

    Attributes:
        index: the trainer's, from 0 to ``count - 1``.
        count: trainers.
        remainder: what becomes of the samples that fill no global batch. ``short``: they are spread
            as evenly as possible. ``drop``: they are left out. ``pad``: the first samples of the
            epoch's order come again, so that every batch is whole.
        found: where the client has found index and count; changes no byte.
    """

    index: int
    count: int
    remainder: Remainder = "short"
    found: ShardOrigin = "argument"

    def __post_init__(self) -> None:
        """Raises InvalidArgument if there is no such trainer."""
        if not 1 <= self.count <= MAX_TRAINERS:
            raise InvalidArgument(
                f"a shard's count must be between 1 and {MAX_TRAINERS}, got {self.count}"
            )
        if not 0 <= self.index < self.count:
            raise InvalidArgument(
                f"a shard's index must be between 0 and {self.count - 1}, as its count is "
                f"{self.count}, got {self.index}"
            )


WHOLE = Shard(0, 1)
"""The part of a trainer that is alone."""


class Order(Frozen, frozen=True):
    """The order of the samples, and the source of the random draws.

    Attributes:
        shuffle: a new order for every epoch.
        seed: any whole number from 0; None has the daemon choose and report one.
        draws: ``sample``: an epoch's order is drawn from (seed, epoch), a sample's
            parameters from (seed, epoch, sample). ``batch``: both as Keras's iterators
            draw them, batch number k of the stream from seed + k; seeds are below 2**32.
        given: whether every epoch has the order of the bundle's ``order``: sample numbers, which
            may be incomplete or repeat.
        count: samples of an epoch: the first of the dataset; None for all.
        class_weights: by which samples are drawn with replacement; None for each once.
        weighted: whether they are drawn by the bundle's ``weights``.
        repeats: how often each of an epoch's samples comes in a row; with 2, half of the samples
            are in an epoch.
        shard: the part of each epoch that is read; None for all of it.
    """

    shuffle: bool = True
    seed: int | None = None
    draws: Draws = "sample"
    given: bool = False
    count: int | None = None
    class_weights: ClassWeights | None = None
    weighted: bool = False
    repeats: int = 1
    shard: Shard | None = None

    def __post_init__(self) -> None:
        """Raises InvalidArgument for a seed that the generators cannot take, and what clashes."""
        bits = 32 if self.draws == "batch" else 63
        if self.seed is not None and not 0 <= self.seed < 2**bits:
            raise InvalidArgument(f"seed must be between 0 and 2**{bits} - 1, got {self.seed}")
        if self.count is not None and self.count < 1:
            raise InvalidArgument(f"an epoch must have at least 1 sample, got {self.count}")
        if self.repeats < 1:
            raise InvalidArgument(f"samples must be repeated at least once, got {self.repeats}")
        if self.shard is not None and self.draws != "sample":
            raise InvalidArgument("a shard needs draws for each sample")
        self._check_sampling()

    def _check_sampling(self) -> None:
        if self.is_weighted:
            name = "sampling by weights"
        elif self.repeats > 1:
            name = "RepeatedAugmentation"
        else:
            return
        if not self.shuffle or self.given:
            raise InvalidArgument(f"{name} needs shuffle=True")
        if self.draws != "sample" or self.count is not None:
            raise InvalidArgument(f"{name} needs whole epochs with draws for each sample")

    @property
    def is_weighted(self) -> bool:
        """Whether samples are drawn with replacement."""
        return self.weighted or self.class_weights is not None
