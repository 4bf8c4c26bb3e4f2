"""The random parameters of one sample, under the names of Keras's dictionary.

The source of names and units is ``ImageDataGenerator.get_random_transform`` in
``keras/src/legacy/preprocessing/image.py``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Transforms = NDArray[np.float64]
"""A :class:`Transform` in each row, with NaN for None."""

AFFINE, FLIPS = slice(0, 6), slice(6, 8)
"""Columns of :data:`Transforms`."""


class Affine(NamedTuple):
    """The parameters of one warp; see :class:`Transform`."""

    theta: float = 0.0
    tx: float = 0.0
    ty: float = 0.0
    shear: float = 0.0
    zx: float = 1.0
    zy: float = 1.0


class Transform(NamedTuple):
    """The random parameters of one sample; the defaults change nothing.

    Attributes:
        theta: rotation in degrees.
        tx: Keras's first shift, in pixels (drawn from ``height_shift_range``).
        ty: Keras's second shift, in pixels (drawn from ``width_shift_range``).
        shear: shear angle in degrees.
        zx: Keras's first zoom factor.
        zy: Keras's second zoom factor.
        flip_horizontal: mirror left and right, after the warp.
        flip_vertical: mirror top and bottom, after the warp.
        channel_shift_intensity: grey levels to add; None adds nothing.
        brightness: a factor; None changes nothing.
    """

    theta: float = 0.0
    tx: float = 0.0
    ty: float = 0.0
    shear: float = 0.0
    zx: float = 1.0
    zy: float = 1.0
    flip_horizontal: bool = False
    flip_vertical: bool = False
    channel_shift_intensity: float | None = None
    brightness: float | None = None

    @property
    def affine(self) -> Affine:
        """The parameters of the warp."""
        return Affine._make(self[:6])
