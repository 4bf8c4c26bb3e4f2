"""The interfaces of the operations of a spec.

A random operation draws its parameters from uniform numbers, and applies them to an image
(masks, boxes and keypoints would each add a method beside ``image``). Any other operation is
a function of the values alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from loaderd.spec.transform import Transform

Array = NDArray[Any]

Parts = Mapping[str, Array]
"""The arrays of a bundle, by name."""

ValueOperation = Callable[[Array], Array]
"""Takes an image in the output's data format, which it may overwrite, and returns the result."""

UNIFORMS = 12
"""Uniform numbers of a sample. Each parameter has its own, so that whether one parameter is
random never changes another's draw."""


class RandomOperation(Protocol):
    """An operation with parameters that are drawn for each sample."""

    def draw(self, uniforms: Array) -> Mapping[str, Array]:
        """Draws parameters: the fields of ``Transform`` that it uses, (samples,) each.

        Args:
            uniforms: (``UNIFORMS``, samples): numbers from 0 to 1, of which it uses fixed ones.
        """

    def image(self, x: Array, drawn: Transform) -> Array:
        """Applies the operation.

        Args:
            x: (height, width, channels); may be overwritten.
            drawn: the parameters, of which it uses its own.

        Returns:
            The result, of the same shape.
        """
