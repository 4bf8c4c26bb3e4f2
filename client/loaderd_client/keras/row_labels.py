"""The labels of the rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loaderd.errors import InvalidArgument
from loaderd_client.keras.sample_table import MAX_CLASSES, Ids


class RowLabels(NamedTuple):
    """Rows that are samples, and their labels.

    Attributes:
        rows: numbers of rows in the table.
        numbers: of their classes, int32, one for each of ``rows``.
        class_names: in the order of numbers.
    """

    rows: Ids
    numbers: NDArray[np.int32]
    class_names: Sequence[str]


def no_labels(rows: Ids) -> RowLabels:
    """All rows, of no classes."""
    return RowLabels(rows, np.zeros(len(rows), np.int32), ())


def labels_of(
    column: Any, rows: Ids, wanted: Sequence[str] | None, known: Sequence[str] | None
) -> RowLabels:
    """The labels of some rows of a table.

    Args:
        column: of the table: pyarrow's chunked array.
        rows: those that are asked for.
        wanted: names of classes that the user has given.
        known: those that the dataset has.

    Raises:
        InvalidArgument: a label is neither a whole number from 0 on nor a name, or ``wanted`` does
            not fit them.
    """
    every = column.to_pylist()
    found = [every[row] for row in rows.tolist()]
    if all(isinstance(one, str) for one in found):
        return _of_names(found, rows, wanted)
    for row, one in zip(rows.tolist(), found, strict=True):
        if not isinstance(one, int) or not 0 <= one < MAX_CLASSES:
            raise InvalidArgument(
                f"row {row} of `dataset` has no label: `label` should name a column of whole "
                f"numbers from 0 to {MAX_CLASSES - 1:,}, or of names of classes, and not "
                f"{one!r:.80}; label=None reads none"
            )
    count = max(found) + 1
    names = list(known or ()) if wanted is None else list(wanted)
    if wanted is not None and len(names) < count:
        raise InvalidArgument(
            f"`class_names` has {len(names)} names, and the labels of `dataset` are up to "
            f"{count - 1}"
        )
    names += map(str, range(len(names), count))
    return RowLabels(rows, np.array(found, np.int32), names)


def _of_names(found: Sequence[str], rows: Ids, wanted: Sequence[str] | None) -> RowLabels:
    """Labels that are names, of which the user may have chosen some."""
    there = sorted(set(found))
    if wanted is not None and not set(wanted).issubset(there):
        raise InvalidArgument(
            f"`class_names` should be some or all of the labels of `dataset`: {there}. Received: "
            f"class_names={list(wanted)}"
        )
    names = there if wanted is None else list(wanted)
    number = {name: place for place, name in enumerate(names)}
    kept = np.array([one in number for one in found], np.bool_)
    labels = [number[one] for one in found if one in number]
    return RowLabels(rows[kept], np.array(labels, np.int32), names)
