"""Operations on the values of finished images: the last of a list."""

from __future__ import annotations

from math import isfinite, sqrt
from typing import Any, Literal

from loaderd.augment.operation import Operation

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of red, green and blue from 0 to 1: those of torchvision's and Keras's models."""

_SMALLEST = 1e-7
"""The smallest standard deviation to divide by: Keras's default ``epsilon()``."""

Step = tuple[Literal["multiply", "divide", "subtract"], tuple[float, ...]]
"""An operation on all pixels, with one number for all channels, or one for each."""


class ValueOperation(Operation, frozen=True):
    """An operation on the values of finished images."""

    def steps(self) -> list[Step]:
        """The arithmetic, in float32."""
        raise NotImplementedError

    @property
    def channels(self) -> int | None:
        """The number of channels that it needs; None for any."""
        return None


class Rescaling(ValueOperation, frozen=True):
    """Multiplies all values, and adds to them; as ``keras.layers.Rescaling``.

    Args:
        scale: the factor.
        offset: what is added.
    """

    scale: float
    offset: float = 0.0

    def check(self) -> None:
        """Raises InvalidArgument for numbers that are not finite."""
        for name in ("scale", "offset"):
            if not isfinite(getattr(self, name)):
                raise self.refusal(name, "must be finite")

    def steps(self) -> list[Step]:
        """Multiplication, then addition."""
        steps: list[Step] = [("multiply", (self.scale,))]
        return steps if not self.offset else [*steps, ("subtract", (-self.offset,))]


class Normalization(ValueOperation, frozen=True):
    """Subtracts a mean, and divides by a standard deviation; as ``keras.layers.Normalization``.

    Args:
        mean: one number, or one for each channel; or ``"imagenet"``: values from 0 to 255 are
            divided by 255, then the mean of ImageNet is subtracted, and its standard deviation
            divides, as in torchvision's recipes.
        variance: as ``mean``: the square of the standard deviation.
    """

    mean: Literal["imagenet"] | float | tuple[float, ...] = "imagenet"
    variance: float | tuple[float, ...] | None = None

    def check(self) -> None:
        """Raises InvalidArgument for a variance that is missing, or not positive."""
        if self.mean == "imagenet":
            if self.variance is not None:
                raise self.refusal("variance", 'is that of ImageNet for mean="imagenet"')
            return
        if self.variance is None:
            raise self.refusal("variance", "is needed: one number, or one for each channel")
        for name in ("mean", "variance"):
            numbers = _numbers(getattr(self, name))
            if not numbers or not all(map(isfinite, numbers)):
                raise self.refusal(name, "must be a finite number, or one for each channel")
        if min(_numbers(self.variance)) <= 0:
            raise self.refusal("variance", "must be positive")
        counts = {len(_numbers(each)) for each in (self.mean, self.variance)} - {1}
        if len(counts) > 1:
            raise self.refusal("variance", "must have as many numbers as `mean`")

    @property
    def channels(self) -> int | None:
        """The number of channels that it needs; None for any."""
        if self.mean == "imagenet":
            return 3
        counts = [len(_numbers(each)) for each in (self.mean, self.variance)]
        return max(counts) if max(counts) > 1 else None

    def steps(self) -> list[Step]:
        """Subtraction, then division."""
        if self.mean == "imagenet":
            return [("divide", (255.0,)), ("subtract", IMAGENET_MEAN), ("divide", IMAGENET_STD)]
        deviation = tuple(max(sqrt(one), _SMALLEST) for one in _numbers(self.variance))
        return [("subtract", _numbers(self.mean)), ("divide", deviation)]


def _numbers(value: Any) -> tuple[float, ...]:
    return value if isinstance(value, tuple) else (value,)
