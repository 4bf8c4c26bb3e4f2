"""The samples of a dataset with targets, as the client lists them, and their arrays in a bundle."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loaderd.ipc import manifest
from loaderd.ipc.bundle import Parts
from loaderd.sampling.weights import Weights

Array = NDArray[Any]


class Instances(NamedTuple):
    """The boxes and keypoints of all samples.

    Attributes:
        counts: how many each sample has.
        boxes: float32 (total, 4): left, top, right, bottom in pixels; None for none.
        labels: int32 (total,), of the boxes; None for none.
        keypoints: float32 (total, k, 3): x, y, visible; None for none.
    """

    counts: list[int]
    boxes: Array | None = None
    labels: Array | None = None
    keypoints: Array | None = None

    def parts(self) -> dict[str, Array]:
        """The arrays of a bundle."""
        arrays = {
            "instances": np.cumsum([0, *self.counts], dtype=np.int64),
            "boxes": self.boxes,
            "box_labels": self.labels,
            "keypoints": self.keypoints,
        }
        return {name: array for name, array in arrays.items() if array is not None}


class Shapes(NamedTuple):
    """Masks of instances, to be drawn; see :class:`loaderd.spec.annotations.Annotations`.

    Attributes:
        values: of each instance's pixels.
        rings: polygons of each instance, float32 (n, 2) each.
        runs: run lengths of each instance; empty for none.
    """

    values: list[int]
    rings: list[list[Array]]
    runs: list[list[int]]

    def parts(self) -> dict[str, Array]:
        """The arrays of a bundle."""
        flat = [ring for rings in self.rings for ring in rings]
        none = np.empty((0, 2), np.float32)
        return {
            "mask_values": np.array(self.values, np.uint8),
            "rings": np.cumsum([0, *map(len, self.rings)], dtype=np.int64),
            "ring_points": np.cumsum([0, *map(len, flat)], dtype=np.int64),
            "points": np.concatenate([none, *flat]).astype(np.float32),
            "runs": np.cumsum([0, *map(len, self.runs)], dtype=np.int64),
            "run_lengths": np.array([one for runs in self.runs for one in runs], np.int64),
        }


class SampleTable(NamedTuple):
    """The samples of a dataset.

    Attributes:
        images: paths of their files.
        masks: paths of their masks; None for none.
        instances: boxes and keypoints; None for none.
        labels: one row for each sample; None for none.
        weights: float32 (n,); None for none.
        class_names: of labels, or of boxes.
        sampling: the weights by which samples are drawn; None for each once.
        shapes: masks of instances, in the place of ``masks``; None for none.
    """

    images: list[str]
    masks: list[str] | None = None
    instances: Instances | None = None
    labels: Array | None = None
    weights: Array | None = None
    class_names: Sequence[str] = ()
    sampling: Weights | None = None
    shapes: Shapes | None = None

    @property
    def has_masks(self) -> bool:
        """Whether there are masks, in files or to be drawn."""
        return self.masks is not None or self.shapes is not None

    def parts(self) -> Parts:
        """The arrays of a bundle; see :class:`loaderd.spec.annotations.Annotations`."""
        parts = {"manifest": _packed(self.images, self.class_names)}
        if self.masks is not None:
            parts["mask_manifest"] = _packed(self.masks, ())
        if self.sampling is not None:
            parts["weights"] = self.sampling
        if self.shapes is not None:
            parts |= self.shapes.parts()
        if self.instances is not None:
            parts |= self.instances.parts()
        return parts


def _packed(paths: list[str], class_names: Sequence[str]) -> Array:
    labels = np.zeros(len(paths), np.int32)
    table = manifest.pack(
        "", class_names, [os.fsencode(os.path.abspath(one)) for one in paths], labels
    )
    return np.frombuffer(table, np.uint8)
