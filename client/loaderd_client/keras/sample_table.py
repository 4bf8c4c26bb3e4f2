"""The samples of a dataset with targets, as the client lists them, and their arrays in a bundle."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loaderd.errors import InvalidArgument
from loaderd.ipc import manifest
from loaderd.ipc.annotation_parts import manifest_name
from loaderd.ipc.bundle import Parts
from loaderd.sampling.weights import Weights
from loaderd.spec.output import ClassWeights
from loaderd.spec.source import Archives

Array = NDArray[Any]
Ids = NDArray[np.intp]

MAX_CLASSES = 100_000
"""Of samples whose labels are numbers without names."""


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

    def of(self, samples: Ids) -> Ids:
        """The numbers of the instances of some samples."""
        ends = np.cumsum([0, *self.counts])
        ranges = [np.arange(ends[one], ends[one + 1]) for one in samples.tolist()]
        return np.concatenate([np.empty(0, np.intp), *ranges])

    def taken(self, samples: Ids) -> Instances:
        """Those of some samples."""
        numbers = self.of(samples)
        arrays = (None if one is None else one[numbers] for one in self[1:])
        return Instances([self.counts[one] for one in samples.tolist()], *arrays)


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

    def taken(self, instances: Ids) -> Shapes:
        """Those of some instances."""
        return Shapes(*(_taken(one, instances) for one in self))


class SampleTable(NamedTuple):
    """The samples of a dataset.

    Attributes:
        images: paths of their files; or uint8 (n, height, width, channels), or (n, channels,
            height, width).
        further: paths of further images of each sample.
        masks: paths of their masks; or uint8 (n, height, width); None for none.
        instances: boxes and keypoints; None for none.
        labels: one row for each sample; None for none.
        weights: float32 (n,); None for none.
        class_names: of labels, or of boxes.
        sampling: the weights by which samples are drawn; None for each once.
        class_weights: the same of classes.
        max_boxes: the most boxes, or lists of keypoints, that a sample of the whole dataset has.
        n_classes: classes of the whole dataset; 0 if labels are none.
        shapes: masks of instances, in the place of ``masks``; None for none.
        archives: where images and masks lie that the daemon lists, in the place of ``images`` and
            ``masks``; None for none.
    """

    images: list[str] | Array
    further: tuple[list[str], ...] = ()
    masks: list[str] | Array | None = None
    instances: Instances | None = None
    labels: Array | None = None
    weights: Array | None = None
    class_names: Sequence[str] = ()
    sampling: Weights | None = None
    class_weights: ClassWeights | None = None
    max_boxes: int = 1
    n_classes: int = 0
    shapes: Shapes | None = None
    archives: Archives | None = None

    @property
    def has_masks(self) -> bool:
        """Whether there are masks, of any kind."""
        return self.masks is not None or self.shapes is not None or self.archives is not None

    @property
    def has_targets(self) -> bool:
        """Whether there is anything that moves with the images."""
        return self.has_masks or self.instances is not None or bool(self.further)

    @property
    def classes(self) -> Array | None:
        """The number of each sample's class, int32 (n,), if that is what labels are."""
        labels = self.labels
        if labels is None or labels.ndim != 1 or labels.dtype.kind != "i":
            return None
        return labels if labels.min(initial=0) >= 0 else None

    def measured(self) -> SampleTable:
        """The same with the numbers that a part of it shares with the whole."""
        counts = [] if self.instances is None else self.instances.counts
        classes = self.classes
        most = 0 if classes is None else int(classes.max(initial=-1)) + 1
        return self._replace(
            max_boxes=max(1, *counts) if counts else 1,
            n_classes=max(most, len(self.class_names)) if classes is not None else 0,
        )

    def taken(self, samples: Ids) -> SampleTable:
        """Some of the samples, in this order."""
        instances, shapes = self.instances, self.shapes
        return self._replace(
            images=_taken(self.images, samples),
            further=tuple(_taken(paths, samples) for paths in self.further),
            masks=_taken(self.masks, samples),
            instances=None if instances is None else instances.taken(samples),
            labels=_taken(self.labels, samples),
            weights=_taken(self.weights, samples),
            sampling=_taken(self.sampling, samples),
            shapes=shapes and instances and shapes.taken(instances.of(samples)),
        )

    def with_names(self) -> SampleTable:
        """The same with names for all classes: their numbers, where they have none.

        Raises:
            InvalidArgument: the numbers are too large to be those of classes.
        """
        if self.class_names:
            return self
        if self.n_classes > MAX_CLASSES:
            raise InvalidArgument(
                f"labels are whole numbers up to {self.n_classes - 1}, which would be as many "
                "classes: give names of classes, or floats"
            )
        return self._replace(class_names=[str(number) for number in range(self.n_classes)])

    def parts(self) -> Parts:
        """The arrays of a bundle; see :class:`loaderd.spec.annotations.Annotations`."""
        parts: dict[str, Array] = {}
        if self.archives is None:
            parts["manifest"] = _packed(self.images, self.class_names, self.classes)
        if isinstance(self.images, np.ndarray):
            parts["images"] = self.images
        for number, paths in enumerate(self.further):
            parts[manifest_name(number)] = _packed(paths)
        if isinstance(self.masks, np.ndarray):
            parts["masks"] = self.masks
        elif self.masks is not None:
            parts["mask_manifest"] = _packed(self.masks)
        if self.sampling is not None:
            parts["weights"] = self.sampling
        if self.shapes is not None:
            parts |= self.shapes.parts()
        if self.instances is not None:
            parts |= self.instances.parts()
        return parts


def _taken(values: Any, numbers: Ids) -> Any:
    """Some of the values of a list or an array; a slice, which copies nothing, if possible."""
    if values is None:
        return None
    if not isinstance(values, np.ndarray):
        return [values[one] for one in numbers.tolist()]
    if len(numbers) and (np.diff(numbers) == 1).all():
        return values[numbers[0] : numbers[-1] + 1]
    return values[numbers]


def _packed(
    images: list[str] | Array, names: Sequence[str] = (), classes: Array | None = None
) -> Array:
    """A manifest of files, or of images in an array, which have no names.

    Args:
        images: the files or images.
        names: of the classes.
        classes: the number of each image's class; None for none.
    """
    if isinstance(images, np.ndarray):
        paths = [b""] * len(images)
    else:
        paths = [os.fsencode(os.path.abspath(one)) for one in images]
    if classes is None:
        names, classes = (), np.zeros(len(images), np.int32)
    return np.frombuffer(manifest.pack("", names, paths, classes), np.uint8)
