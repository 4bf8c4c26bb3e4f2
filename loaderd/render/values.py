"""Writes computed values to the memory of a slot.

NumPy has no bfloat16: rows of it are uint16, the upper halves of float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loaderd.render.native.kernels import to_bfloat16

Array = NDArray[Any]

Write = Callable[[Array, Array], None]
"""Writes values, which are converted and broadcast, to a C-contiguous array of a slot."""


def writer(dtype: str) -> Write:
    """What writes values to arrays of a dtype of batches."""
    return _shorten if dtype == "bfloat16" else _assign


def _assign(values: Array, row: Array) -> None:
    row[...] = values


def _shorten(values: Array, row: Array) -> None:
    floats = np.broadcast_to(np.asarray(values, np.float32), row.shape)
    to_bfloat16(np.ascontiguousarray(floats), row)


def readable(row: Array, dtype: str) -> Array:
    """The values of a row that was written; a copy if NumPy lacks its dtype."""
    if dtype != "bfloat16":
        return row
    return (row.astype(np.uint32) << 16).view(np.float32)
