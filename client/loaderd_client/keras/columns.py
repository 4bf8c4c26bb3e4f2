"""What a dataset's columns hold: checked, and as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loaderd.augment.boxes import BoxFormat, to_corners
from loaderd.errors import InvalidArgument
from loaderd.spec.output import ClassWeights
from loaderd_client.keras.class_weights import class_weights as checked_weights
from loaderd_client.keras.class_weights import column_weights
from loaderd_client.keras.sample_table import Instances, SampleTable

Array = NDArray[Any]

_SHOWN = 80
"""Characters of a value in an error."""


class _Cell(NamedTuple):
    """A value of a table.

    Attributes:
        row: its number.
        column: the name.
        value: what is there.
        should: what should be there, as a sentence for errors.
    """

    row: int
    column: str
    value: Any
    should: str

    def refused(self) -> InvalidArgument:
        """The error, in one line."""
        return InvalidArgument(
            f"row {self.row}: {self.should} in {self.column!r}. Received: {_shown(self.value)}"
        )

    def numbers(self, kinds: str = "biuf") -> Array:
        """Its numbers, of NumPy's kinds, in any shape."""
        try:
            found = np.asarray(self.value)
        except (TypeError, ValueError):  # lists of several lengths
            raise self.refused() from None
        if found.size and found.dtype.kind not in kinds:
            raise self.refused()
        return found

    def floats(self, *shape: int) -> Array:
        """Finite float32 of a shape, in which -1 is any length; an empty list is of length 0."""
        found = self.numbers()
        if shape and found.ndim and not len(found):
            found = np.empty([max(length, 0) for length in shape])
        if found.ndim != len(shape):
            raise self.refused()
        if any(wanted not in (-1, own) for own, wanted in zip(found.shape, shape, strict=True)):
            raise self.refused()
        with np.errstate(over="ignore"):
            found = found.astype(np.float32)
        if not np.isfinite(found).all():
            raise self.refused()
        return found


def _shown(value: Any) -> str:
    """A value in one line: arrays have several."""
    text = " ".join(repr(value).split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


class Columns(NamedTuple):
    """What samples have beside images, in columns of one length.

    Attributes:
        names: of the columns in errors, by what they hold: ``label``, ``boxes``, ``box_labels``,
            ``keypoints``, ``weight``, ``sampling_weight``.
        values: the columns, by the same.
        form: of the boxes.
    """

    names: Mapping[str, str]
    values: Mapping[str, Sequence[Any]]
    form: BoxFormat

    def added_to(self, listing: SampleTable, class_weights: object) -> SampleTable:
        """A listing with these columns.

        Args:
            listing: with images and masks.
            class_weights: the argument of that name.

        Raises:
            InvalidArgument: a value is not allowed, or does not fit the others; names its row.
        """
        if "label" in self.values:
            labels, names = self._labels()
            listing = listing._replace(labels=labels, class_names=names)
        if "weight" in self.values:
            should = "weights should be finite numbers"
            weights = [cell.floats() for cell in self._cells("weight", should)]
            listing = listing._replace(weights=np.array(weights, np.float32))
        listing = listing._replace(instances=self._instances())
        return self._sampled(listing, checked_weights(class_weights))

    def _cells(self, what: str, should: str) -> list[_Cell]:
        name = self.names[what]
        return [_Cell(row, name, value, should) for row, value in enumerate(self.values[what])]

    def _sampled(self, listing: SampleTable, weights: ClassWeights | None) -> SampleTable:
        """A listing with the weights by which its samples are drawn."""
        values = self.values.get("sampling_weight")
        if values is not None and weights is not None:
            raise InvalidArgument("give either `class_weights` or `sampling_weight`")
        if values is not None:
            found = column_weights(self.names["sampling_weight"], list(values))
            return listing._replace(sampling=found)
        if weights is None:
            return listing
        if listing.classes is None:
            raise InvalidArgument("`class_weights` needs labels: names or numbers of classes")
        return listing.measured().with_names()._replace(class_weights=weights)

    def _labels(self) -> tuple[Array, Sequence[str]]:
        """The labels as an array, and the names of their classes, where they are names."""
        should = "labels should be names, numbers or lists, the same in all rows,"
        cells = self._cells("label", should)
        if isinstance(cells[0].value, str):
            return _named(cells)
        each = [cell.numbers() for cell in cells]
        for cell, one in zip(cells, each, strict=True):
            if one.shape != each[0].shape:
                raise cell.refused()
        found = np.array(each)
        whole = found.ndim == 1 and found.dtype.kind in "biu"
        with np.errstate(over="ignore"):
            kept = found.astype(np.int32 if whole else np.float32)
        fits = kept == found if whole else np.isfinite(kept)
        should = "labels should be finite, and fit in 32 bits,"
        for row in np.flatnonzero(~fits.reshape(len(found), -1).all(axis=1)):
            raise cells[row]._replace(should=should).refused()
        return kept, ()

    def _instances(self) -> Instances | None:
        names, values = self.names, self.values
        if "boxes" not in values and "keypoints" not in values:
            return None
        if ("boxes" in values) != ("box_labels" in values):
            raise InvalidArgument("`boxes` and `box_labels` should be given together")
        if "boxes" not in values:
            points = self._points(boxed=False)
            return Instances([len(one) for one in points], keypoints=np.concatenate(points))
        boxes, labels = self._boxes(), self._box_labels()
        counts = [len(one) for one in boxes]
        _require_counts(counts, labels, f"labels in {names['box_labels']!r}")
        found = Instances(counts, np.concatenate(boxes), np.concatenate(labels))
        if "keypoints" not in values:
            return found
        points = self._points(boxed=True)
        _require_counts(counts, points, f"lists of keypoints in {names['keypoints']!r}")
        return found._replace(keypoints=np.concatenate(points))

    def _boxes(self) -> list[Array]:
        """float32 (n, 4) for each row: left, top, right, bottom."""
        if self.form.startswith("rel_"):
            raise InvalidArgument(
                f'`bounding_box_format="{self.form}"`: boxes of a table are in pixels: use one of '
                "xyxy, yxyx, xywh and center_xywh"
            )
        found = []
        for cell in self._cells(
            "boxes", "boxes should be a list of four numbers each, all finite,"
        ):
            corners = to_corners(cell.floats(-1, 4), self.form, (1, 1))
            if (corners[:, 2:] < corners[:, :2]).any():
                raise InvalidArgument(
                    f"row {cell.row}: a box has a negative size in {cell.column!r}: "
                    f"{_shown(cell.value)}"
                )
            found.append(corners)
        return found

    def _box_labels(self) -> list[Array]:
        """int32 (n,) for each row."""
        found = []
        for cell in self._cells(
            "box_labels", "box labels should be a list of whole numbers from 0"
        ):
            labels = cell.numbers("iuf")
            with np.errstate(invalid="ignore"):
                kept = labels.astype(np.int32)
            if labels.ndim != 1 or (kept < 0).any() or (kept != labels).any():
                raise cell.refused()
            found.append(kept)
        return found

    def _points(self, boxed: bool) -> list[Array]:
        """float32 (instances, k, 3) for each row: with boxes an instance each, else up to one."""
        should = "keypoints should be lists of finite (x, y, visible)"
        cells = self._cells("keypoints", f"{should} for each box" if boxed else should)
        if boxed:
            found = [cell.floats(-1, -1, 3) for cell in cells]
        else:
            found = [one[np.newaxis][: len(one)] for one in (cell.floats(-1, 3) for cell in cells)]
        counts = [one.shape[1] for one in found if len(one)]
        if not counts or not counts[0]:
            raise InvalidArgument(
                f"no row has keypoints in {self.names['keypoints']!r}: it is not known how many "
                "there should be"
            )
        for cell, one in zip(cells, found, strict=True):
            if len(one) and one.shape[1] != counts[0]:
                should = f"keypoints should be as many for all, {counts[0]} as in the first,"
                raise cell._replace(should=should).refused()
        return [one if len(one) else np.empty((0, counts[0], 3), np.float32) for one in found]


def _named(cells: Sequence[_Cell]) -> tuple[Array, Sequence[str]]:
    for cell in cells:
        if not isinstance(cell.value, str):
            raise cell.refused()
    names = sorted({str(cell.value) for cell in cells})
    place = {name: number for number, name in enumerate(names)}
    return np.array([place[str(cell.value)] for cell in cells], np.int32), names


def _require_counts(counts: list[int], arrays: Sequence[Array], what: str) -> None:
    for row, (count, array) in enumerate(zip(counts, arrays, strict=True)):
        if len(array) != count:
            raise InvalidArgument(f"row {row}: {count} boxes, but {len(array)} {what}")
