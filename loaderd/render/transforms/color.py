"""Random changes of an image's colours, with Keras's exact values."""

from __future__ import annotations

from collections.abc import Sequence

from loaderd.render.transforms import augment
from loaderd.render.transforms.operation import Array
from loaderd.spec.base import DType
from loaderd.spec.operations import RandomBrightness, RandomChannelShift


class ChannelShiftOperation:
    """Adds a random number of grey levels, clipped to the image's own range."""

    def __init__(self, spec: RandomChannelShift) -> None:
        self._range = spec.channel_shift_range

    def draw(self, uniforms: Sequence[float]) -> float:
        """Draws from uniform number 10, counted from 0."""
        return (2 * uniforms[10] - 1) * self._range

    def image(self, x: Array, parameters: float) -> Array:
        """The image with ``parameters`` grey levels added."""
        return augment.shift_channels(x, parameters, 2)


class BrightnessOperation:
    """Multiplies the brightness by a random factor, by way of a picture of 8 bits.

    Args:
        spec: the range of the factor.
        floatx: the dtype that Keras computes in.
    """

    def __init__(self, spec: RandomBrightness, floatx: DType) -> None:
        self._low, self._high = spec.brightness_range
        self._floatx = floatx

    def draw(self, uniforms: Sequence[float]) -> float:
        """Draws from uniform number 11, counted from 0."""
        return self._low + uniforms[11] * (self._high - self._low)

    def image(self, x: Array, parameters: float) -> Array:
        """The image with its brightness multiplied by ``parameters``."""
        return augment.shift_brightness(x, parameters, False, self._floatx)
