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
        classes: of all samples, int32 (n,).
        field: of the slot's labels; None without labels.
    """

    def __init__(self, mode: LabelMode, classes: NDArray[np.int32], field: Field | None) -> None:
        self._mode = mode
        self._classes = classes
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
            rows[range(len(ids)), self._classes[ids]] = self._one
        else:
            self._write(self._classes[ids], rows.reshape(-1))
