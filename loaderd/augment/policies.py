"""Operations that apply others, and the union of all.

New operations of the other modules are in the union by being there.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Sequence
from itertools import accumulate
from types import ModuleType
from typing import TYPE_CHECKING, Any

import msgspec

from loaderd.augment import (
    auto,
    color,
    crops,
    erasing,
    filters,
    function,
    geometry,
    mixing,
    values,
)
from loaderd.augment.draws import Draws
from loaderd.augment.function import FunctionCall
from loaderd.augment.mixing import Mix, MixOperation
from loaderd.augment.operation import ImageOperation, Operation, Size
from loaderd.errors import InvalidArgument

if TYPE_CHECKING:
    from loaderd.augment.canvas import Canvas

Drawn = list[tuple[ImageOperation, Any]]
"""Operations to apply, each with its parameters."""


def draw_all(ops: Sequence[ImageOperation], draws: Draws, size: Size) -> Drawn:
    """The parameters of operations that follow one another."""
    drawn: Drawn = []
    for op in ops:
        drawn.append((op, op.draw(draws, size)))
        size = op.sets_size or size
    return drawn


class _Group(ImageOperation, frozen=True):
    """Applies some of its operations."""

    def apply(self, canvas: Canvas, parameters: Drawn) -> None:
        """Applies those that were drawn."""
        for op, drawn in parameters:
            op.apply(canvas, drawn)


class RandomApply(_Group, frozen=True):
    """Applies operations with some probability, together or not at all.

    As torchvision's ``RandomApply``.

    Args:
        ops: the operations, in their order; none that changes the size.
        p: the probability.
    """

    ops: Sequence[AnyImageOperation]
    p: float = 0.5

    def check(self) -> None:
        """Raises InvalidArgument for operations that cannot be left out, and for a wrong p."""
        ops = _checked(self, ImageOperation)
        if any(op.sets_size for op in ops):
            raise InvalidArgument("RandomApply: `ops` must not change the size of images")
        if not 0 <= self.p <= 1:
            raise self.refusal("p", "must be from 0 to 1")

    def draw(self, draws: Draws, size: Size) -> Drawn:
        """All operations with their parameters, or none."""
        return draw_all(self.ops, draws, size) if draws.happens(self.p) else []


class RandomChoice(_Group, frozen=True):
    """Applies one of several operations to each image.

    As torchvision's ``RandomChoice``, which chooses for a whole call.

    Args:
        ops: the operations. If one changes the size of images, all must change it to the same.
        p: their probabilities, which are divided by their sum; None for equal ones.
    """

    ops: Sequence[AnyImageOperation]
    p: tuple[float, ...] | None = None

    def check(self) -> None:
        """Raises InvalidArgument for operations of different sizes, and for a wrong p."""
        ops = _checked(self, ImageOperation)
        if len({op.sets_size for op in ops}) > 1:
            raise InvalidArgument("RandomChoice: `ops` must all make images of the same size")
        _check_weights(self, self.p)

    @property
    def sets_size(self) -> Size | None:
        """That of all its operations."""
        return getattr(self.ops[0], "sets_size", None)  # which a layer of Keras has not

    def draw(self, draws: Draws, size: Size) -> Drawn:
        """One operation with its parameters."""
        return draw_all((_chosen(self.ops, self.p, draws),), draws, size)


class RandomMix(MixOperation, frozen=True):
    """Mixes each image in one of several ways: with ``MixUp`` or ``CutMix``, say.

    Args:
        ops: ``MixUp`` and ``CutMix``, as often as needed.
        p: their probabilities; what is left to 1 leaves images as they are. None for equal ones.
    """

    ops: Sequence[mixing.MixUp | mixing.CutMix]
    p: tuple[float, ...] | None = None

    @property
    def keeps_pixels(self) -> bool:
        """Whether all its operations do."""
        return all(op.keeps_pixels for op in self.ops)

    def check(self) -> None:
        """Raises InvalidArgument for a wrong p."""
        _checked(self, MixOperation)
        _check_weights(self, self.p)
        if self.p is not None and sum(self.p) > 1 + 1e-6:
            raise self.refusal("p", "must not have a sum above 1")

    def draw(self, draws: Draws, size: Size) -> Mix | None:
        """That of one operation."""
        weights = self.p or (1 / len(self.ops),) * len(self.ops)
        number = draws.uniform()
        for op, upper in zip(self.ops, accumulate(weights), strict=True):
            if number < upper:
                return op.draw(draws, size)
        return self.ops[-1].draw(draws, size) if self.p is None else None


def calls_of(operations: Sequence[Operation]) -> Iterator[FunctionCall]:
    """The calls of the user's functions, also those in groups."""
    for one in operations:
        if isinstance(one, FunctionCall):
            yield one
        elif isinstance(one, RandomApply | RandomChoice):
            yield from calls_of(one.ops)


def _checked(group: Any, kind: type[Operation]) -> tuple[Any, ...]:
    """The operations of a group, as a tuple, without Keras's layers, which the client reads."""
    ops = group.ops
    if isinstance(ops, Operation) or not isinstance(ops, list | tuple):
        raise InvalidArgument(f"{type(group).__name__}: `ops` must be a list. Received: {ops!r}")
    for op in ops:
        if not isinstance(op, kind) and not hasattr(op, "get_config"):
            raise InvalidArgument(f"{type(group).__name__}: `ops` cannot hold {op!r}")
    if not ops:
        raise InvalidArgument(f"{type(group).__name__}: `ops` is empty")
    msgspec.structs.force_setattr(group, "ops", tuple(ops))
    return tuple(op for op in ops if isinstance(op, Operation))


def _check_weights(group: Any, weights: tuple[float, ...] | None) -> None:
    if weights is None:
        return
    if len(weights) != len(group.ops) or min(weights) < 0 or sum(weights) <= 0:
        raise group.refusal("p", "must be as many numbers from 0 as there are operations")


def _chosen(ops: Sequence[Any], p: tuple[float, ...] | None, draws: Draws) -> Any:
    if p is None:
        return ops[draws.integer(len(ops))]
    number = draws.uniform(0.0, sum(p))
    for op, upper in zip(ops, accumulate(p), strict=True):
        if number < upper:
            return op
    return ops[-1]


def _of(module: ModuleType, kind: type[Operation]) -> list[Any]:
    """The public operations that a module defines."""
    return [
        one
        for name, one in vars(module).items()
        if isinstance(one, type)
        and issubclass(one, kind)
        and one.__module__ == module.__name__
        and not name.startswith("_")
        and one.__struct_config__.tag is not None
    ]


_FAMILIES = (crops, geometry, color, filters, erasing, auto, function)

if TYPE_CHECKING:
    AnyImageOperation = ImageOperation
    AnyOperation = Operation
else:
    _images = [one for module in _FAMILIES for one in _of(module, ImageOperation)]
    AnyImageOperation = functools.reduce(operator.or_, [*_images, RandomApply, RandomChoice])
    AnyOperation = functools.reduce(
        operator.or_,
        [
            AnyImageOperation,
            *(one for one in _of(values, Operation) if one is not values.ValueOperation),
            *(one for one in _of(mixing, Operation) if one is not mixing.MixOperation),
            RandomMix,
        ],
    )
