"""Values of float32 as the bytes that they were made of, while they cross the link.

Images that a pipeline only converts, or multiplies by one factor, are bytes in disguise. Whether
they are is not derived from the spec but seen in the values: what is packed is unpacked at once,
and must be the same bits. So nothing depends on how the pipeline computes, and what is packed is
a quarter as large.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loaderd.spec.operations import GeneratorRescaling, ImagenetPreprocessing
from loaderd.spec.spec import Spec

Array = NDArray[Any]

MAX_FAILURES = 8
"""Arrays in a row that are no such bytes: after them no more are looked at."""


class Packer:
    """Packs the arrays of one stream.

    Args:
        asked: its spec.
    """

    def __init__(self, asked: Spec) -> None:
        self._factors = tuple(factors(asked)) if asked.output.dtype == "float32" else ()
        self._failures = 0

    def pack(self, rows: Array) -> tuple[Array, float | None]:
        """Bytes and the factor that makes the rows of them; or the rows themselves, and None."""
        if rows.dtype != np.float32 or rows.ndim < 2 or self._failures >= MAX_FAILURES:
            return rows, None
        for factor in self._factors:
            packed = _packed(rows, np.float32(factor))
            if packed is not None:
                self._failures = 0
                return packed, factor
        self._failures += 1
        return rows, None


def unpack(packed: Array, factor: float | None, to: Array) -> None:
    """Writes packed rows to where they belong.

    Raises:
        ValueError: they are not of this shape.
    """
    dtype = to.dtype if factor is None else np.dtype(np.uint8)
    if packed.shape != to.shape or packed.dtype != dtype:
        raise ValueError(f"rows of {packed.dtype}{packed.shape}, not {to.dtype}{to.shape}")
    if factor is None:
        np.copyto(to, packed)
    else:
        _made(packed, np.float32(factor), to)


def factors(asked: Spec) -> Iterable[float]:
    """By which bytes may have been multiplied, the likeliest first."""
    if asked.first(ImagenetPreprocessing) is not None:
        return
    rescaling = asked.first(GeneratorRescaling)
    yield 1.0 if rescaling is None else rescaling.scale
    if asked.augments:
        yield 1 / 255


def _made(packed: Array, factor: np.float32, to: Array) -> None:
    if factor == 1:
        np.copyto(to, packed, casting="unsafe")
    else:
        np.multiply(packed, factor, out=to, dtype=np.float32)


def _packed(rows: Array, factor: np.float32) -> Array | None:
    """The bytes, row by row, as each fits into a CPU's cache; None if they are none."""
    packed = np.empty(rows.shape, np.uint8)
    again = np.empty(rows.shape[1:], np.float32)
    for row, to in zip(rows, packed, strict=True):
        values = row if factor == 1 else np.rint(row / factor)
        with np.errstate(invalid="ignore"):
            np.copyto(to, values, casting="unsafe")
        _made(to, factor, again)
        if not np.array_equal(again.view(np.uint32), row.view(np.uint32)):
            return None
    return packed
