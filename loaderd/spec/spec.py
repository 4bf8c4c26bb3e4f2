"""What a client asks for: everything that decides what a stream's bytes are.

A spec is frozen and holds plain values only, so that it travels as JSON and is
checked (types and allowed values) wherever it is decoded. What is too large for JSON, or
no plain value, travels beside it in a :mod:`bundle <loaderd.ipc.bundle>`. Two streams with
equal specs and bundles over equal files give equal bytes, whoever renders them.
"""

from __future__ import annotations

import json
import random
from typing import TypeVar

import msgspec

from loaderd.errors import InvalidArgument
from loaderd.spec.base import Cache, Frozen, OnError
from loaderd.spec.load import Load
from loaderd.spec.operations import Function, Operation, Random
from loaderd.spec.output import Batching, Order, Output
from loaderd.spec.source import Arrays, Directory, Files

T = TypeVar("T")

_PICKED_SEEDS = 2**31


class Spec(Frozen, frozen=True):
    """All of it.

    Attributes:
        source: which samples there are.
        load: how their images are decoded and resized.
        transforms: what then happens to them, in this order.
        output: the form that they have then.
        batch: how they are put together.
        order: in which order, and with which draws.
        cache: where decoded images are kept, before they are augmented; it changes no byte.
        on_error: what becomes of an image that cannot be read: ``raise`` tells the trainer,
            ``substitute`` takes another of its class, drawn from (seed, epoch, sample),
            ``skip`` leaves its row out of the batch.
        survey: whether images that this installation cannot decode are passed over like bad ones,
            by whoever wants to hear of them all; others get the error.
    """

    source: Directory | Files | Arrays
    load: Load
    transforms: tuple[Operation, ...]
    output: Output
    batch: Batching
    order: Order
    cache: Cache = "none"
    on_error: OnError = "raise"
    survey: bool = False

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape of one finished sample in its data format."""
        height, width, channels = self.load.array_shape
        if self.output.data_format == "channels_first":
            return (channels, height, width)
        return (height, width, channels)

    @property
    def function(self) -> Function | None:
        """The user's code that is run on each image, if there is any."""
        return self.first(Function)

    @property
    def is_random(self) -> bool:
        """Whether any parameter of a sample is drawn."""
        return any(isinstance(operation, Random) for operation in self.transforms)

    def first(self, kind: type[T]) -> T | None:
        """The first operation of a kind."""
        return next((one for one in self.transforms if isinstance(one, kind)), None)


def encode(spec: Spec) -> bytes:
    """The spec as JSON. Names that are no UTF-8 are in it as Python has them, by surrogates."""
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
            return msgspec.convert(json.loads(data, parse_constant=_no_number), Spec)
        return msgspec.json.decode(data, type=Spec)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"the spec is not valid: {error}") from error


def _no_number(_: str) -> None:
    """NaN and the infinities, which are no JSON: null, as msgspec writes them."""


_SURROGATE = b"\\ud"
"""What the slow way alone writes: msgspec escapes nothing but controls, and has no surrogates."""


def seeded(spec: Spec) -> Spec:
    """The same with a seed: one is picked where there is none."""
    if spec.order.seed is not None:
        return spec
    seed = random.SystemRandom().randrange(_PICKED_SEEDS)
    return msgspec.structs.replace(spec, order=msgspec.structs.replace(spec.order, seed=seed))


def fitted(spec: Spec, samples: int) -> Spec:
    """The same for so many samples: a batch never has more rows than there are."""
    if spec.batch.batch_size <= samples:
        return spec
    batch = msgspec.structs.replace(spec.batch, batch_size=samples)
    return msgspec.structs.replace(spec, batch=batch)


def unseeded(spec: Spec) -> Spec:
    """The same for all seeds."""
    return msgspec.structs.replace(spec, order=msgspec.structs.replace(spec.order, seed=None))


def for_workers(spec: Spec) -> Spec:
    """What a worker must know: the manifest that goes along says which files there are."""
    return msgspec.structs.replace(spec, source=Files())
