"""Writes the labels of a chunk."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from loaderd.ipc.slot_layout import Field, SlotArrays
from loaderd.render.values import writer
from loaderd.sampling.order import Ids
from loaderd.spec.base import LabelMode


class LabelWriter:
    """Writes labels in one of the forms of ``Batching.label_mode``.

    Args:
        mode: the form.
        values: of all samples: their classes, int32 (n,), or, if they are given, float32 rows.
        field: of the slot's labels; None without labels.
    """

    def __init__(self, mode: LabelMode, values: NDArray[Any], field: Field | None) -> None:
        self._mode = mode
        self._values = values
        if field is not None:
            self._write = writer(field.dtype)
            self._one: NDArray[Any] = np.empty(1, field.stored)
            self._write(np.ones(1), self._one)

    def __call__(self, slot: SlotArrays, first: int, ids: Ids) -> None:
        """Writes the labels of the samples in the rows from ``first`` on."""
        if slot.labels is None:
            return
        part = slice(first, first + len(ids))
        rows = slot.labels[part]
        if self._mode == "input":
            rows[...] = slot.images[part]
        elif self._mode == "categorical":
            rows[...] = 0
            rows[range(len(ids)), self._values[ids]] = self._one
        elif self._mode == "given":
            rows[...] = self._values[ids]
        else:
            self._write(self._values[ids], rows.reshape(-1))
