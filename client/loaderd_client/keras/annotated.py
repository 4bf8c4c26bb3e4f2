"""Datasets of images with what belongs to them: masks, boxes, keypoints, labels of any kind."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from inspect import signature
from typing import Any, NamedTuple, TypedDict, get_args

import numpy as np
from numpy.typing import NDArray

from loaderd.augment.pipeline import divide
from loaderd.errors import EmptyDataset, InvalidArgument, InvalidType
from loaderd.ipc import manifest
from loaderd.ipc.bundle import Parts
from loaderd.sampling.weights import Weights
from loaderd.spec.annotations import Annotations, BoxFormat
from loaderd.spec.base import ColorMode, DataFormat, OnError
from loaderd.spec.load import Load
from loaderd.spec.output import Batching, Order, Output
from loaderd.spec.source import Files
from loaderd.spec.spec import Spec
from loaderd_client.core import arguments
from loaderd_client.core.batch import Batch
from loaderd_client.keras import adapter
from loaderd_client.keras.augment_list import augmented
from loaderd_client.keras.pil_settings import pils_switches
from loaderd_client.keras.preview import Overlay, caption
from loaderd_client.keras.sequence import LoaderSequence

Array = NDArray[Any]

NAMES = ("labels", "segmentation_masks", "bounding_boxes", "keypoints")
"""Keras's names of what a batch may have beside its images."""


@dataclass(frozen=True, kw_only=True)
class DatasetOptions:
    """The options of all datasets with targets.

    Args:
        image_size: (height, width) of the images, in pixels.
        batch_size: samples in a batch; the last batch of an epoch may have fewer.
        shuffle: whether every epoch has a new order.
        seed: decides order and augmentation; None picks one from NumPy's global generator.
        color_mode: ``rgb``, ``rgba`` or ``grayscale``.
        augment: operations of :mod:`loaderd_client.augment`, or Keras layers; masks, boxes and
            keypoints move with the pixels. For a list that does not resize, images are resized to
            ``image_size`` before the first. ``MixUp`` and ``CutMix`` are refused.
        targets: which of ``labels``, ``segmentation_masks``, ``bounding_boxes`` and ``keypoints`` a
            batch ``(images, targets)`` has: one as it is, several as a tuple. None for Keras's
            dictionary of all.
        bounding_box_format: of boxes, in Keras's names: ``xyxy``, ``yxyx``, ``xywh``,
            ``center_xywh``, and these with ``rel_``.
        max_boxes: boxes of an image in a batch; None for the most that an image has.
        min_area: pixels; boxes of which less is seen are left out.
        min_visibility: the fraction of a box that must be seen; else it is left out.
        data_format: ``channels_last`` or ``channels_first``, of images; None is Keras's setting.
        on_error: what happens to a sample that cannot be read: ``raise`` or ``skip``.
        max_queue_size: batches that the daemon keeps ready.
        verbose: whether to print how many samples there are.
    """

    image_size: tuple[int, int] = (256, 256)
    batch_size: int = 32
    shuffle: bool = True
    seed: int | None = None
    color_mode: ColorMode = "rgb"
    augment: Sequence[Any] | None = None
    targets: Sequence[str] | None = None
    bounding_box_format: BoxFormat = "xyxy"
    max_boxes: int | None = None
    min_area: float = 0.0
    min_visibility: float = 0.0
    data_format: DataFormat | None = None
    on_error: OnError = "raise"
    max_queue_size: int = 10
    verbose: bool = True


class DatasetArguments(TypedDict, total=False):
    """The keyword arguments of :class:`DatasetOptions`, which describes them.

    Functions that take them declare these, so that editors complete them and type checkers know
    their types.
    """

    image_size: tuple[int, int]
    batch_size: int
    shuffle: bool
    seed: int | None
    color_mode: ColorMode
    augment: Sequence[Any] | None
    targets: Sequence[str] | None
    bounding_box_format: BoxFormat
    max_boxes: int | None
    min_area: float
    min_visibility: float
    data_format: DataFormat | None
    on_error: OnError
    max_queue_size: int
    verbose: bool


def options_of(function: Callable[..., Any], arguments: DatasetArguments) -> DatasetOptions:
    """The options that a function was called with.

    Args:
        function: for the error.
        arguments: its further keyword arguments.

    Raises:
        InvalidType: one is not known; says which may have been meant.
    """
    known = [field.name for field in fields(DatasetOptions)]
    for name in arguments:
        if name not in known:
            near = get_close_matches(name, [*signature(function).parameters, *known], 1)
            raise InvalidType(
                f"{function.__name__}() got an unexpected keyword argument {name!r}"
                + (f": did you mean {near[0]}?" if near else "")
            )
    return DatasetOptions(**arguments)


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


class AnnotatedSequence(LoaderSequence):
    """Batches of images with what belongs to them; see :class:`LoaderSequence`.

    A batch is Keras's dictionary: ``images``; ``labels``; ``segmentation_masks``, uint8 (rows,
    height, width, 1); ``bounding_boxes`` with ``boxes``, float32 (rows, max_boxes, 4), and
    ``labels``, int32 (rows, max_boxes), both -1 where there is none; ``keypoints``, float32 (rows,
    max_boxes, points, 3): x, y, and whether it is visible, 0 where there is none. With ``targets``
    it is (images, targets), and with weights (images, targets, weights).
    """

    def __init__(self, listing: SampleTable, options: DatasetOptions) -> None:
        spec, parts = _compiled(listing, options)
        # Not the listing, whose paths and boxes would stay in the trainer's memory.
        self._labels, self._weights = listing.labels, listing.weights
        self._names = _names(options.targets, listing)
        super().__init__(spec, max_queue_size=options.max_queue_size, parts=parts)
        self.class_names = list(listing.class_names) or None

    def _assembled(self, batch: Batch) -> Any:
        found = self._targets_of(batch)
        weights = self._weights
        if self._names is None:
            more = {} if weights is None else {"sample_weights": weights[batch.ids]}
            return {"images": batch.images, **found, **more}
        chosen = tuple(found[name] for name in self._names)
        targets = chosen[0] if len(chosen) == 1 else chosen
        if weights is None:
            return batch.images, targets
        return batch.images, targets, weights[batch.ids]

    def _caption(self, batch: Batch, row: int) -> str:
        labels = self._labels
        if labels is None:
            return super()._caption(batch, row)
        mode = "int" if labels.ndim == 1 and labels.dtype.kind == "i" else "categorical"
        return caption(labels[batch.ids[row]], mode, self.class_names)

    def _overlay(self, batch: Batch, row: int) -> Overlay:
        given, wanted = batch.annotations, self.spec.annotations
        overlay = Overlay(mask=given["masks"][row, :, :, 0] if "masks" in given else None)
        if "boxes" in given and wanted is not None:
            labels = given["box_labels"][row]
            boxes = as_corners(given["boxes"][row], wanted.box_format, self.spec.image_size)
            seen = labels[labels >= 0].tolist()
            names = [caption(one, "int", self.class_names) for one in seen]
            overlay = overlay._replace(boxes=boxes[labels >= 0], classes=seen, names=names)
        if "keypoints" in given:
            points = given["keypoints"][row].reshape(-1, 3)
            overlay = overlay._replace(keypoints=points[points[:, 2] > 0, :2])
        return overlay

    def _targets_of(self, batch: Batch) -> dict[str, Any]:
        given = batch.annotations
        found: dict[str, Any] = {}
        if self._labels is not None:
            found["labels"] = self._labels[batch.ids]
        if "masks" in given:
            found["segmentation_masks"] = given["masks"]
        if "boxes" in given:
            found["bounding_boxes"] = {"boxes": given["boxes"], "labels": given["box_labels"]}
        if "keypoints" in given:
            found["keypoints"] = given["keypoints"]
        return found


def as_corners(boxes: Array, form: BoxFormat, size: tuple[int, int]) -> Array:
    """Boxes (n, 4) of a format as left, top, right, bottom in pixels.

    Args:
        boxes: in that format.
        form: one of Keras's.
        size: (height, width) of the image.
    """
    first, second, third, fourth = boxes.T
    match form.removeprefix("rel_"):
        case "xyxy":
            columns = [first, second, third, fourth]
        case "yxyx":
            columns = [second, first, fourth, third]
        case "xywh":
            columns = [first, second, first + third, second + fourth]
        case _:
            half_x, half_y = third / 2, fourth / 2
            columns = [first - half_x, second - half_y, first + half_x, second + half_y]
    scale = [size[1], size[0], size[1], size[0]] if form.startswith("rel_") else [1] * 4
    found: Array = np.stack(columns, axis=1) * np.array(scale, np.float32)
    return found


def dataset_of(listing: SampleTable, options: DatasetOptions) -> AnnotatedSequence:
    """The sequence of a listing.

    Raises:
        EmptyDataset: it has no samples.
        InvalidArgument: an option is not allowed, or does not fit the samples.
    """
    if not listing.images:
        raise EmptyDataset("the dataset has no images")
    sequence = AnnotatedSequence(listing, options)
    if options.verbose:
        print(f"Found {sequence.n} images.")
    return sequence


def _names(targets: Sequence[str] | None, listing: SampleTable) -> tuple[str, ...] | None:
    """The targets that were asked for, checked."""
    if targets is None:
        return None
    there = {
        "labels": listing.labels is not None,
        "segmentation_masks": listing.has_masks,
        "bounding_boxes": listing.instances is not None and listing.instances.boxes is not None,
        "keypoints": listing.instances is not None and listing.instances.keypoints is not None,
    }
    known = [name for name, is_there in there.items() if is_there]
    names = (targets,) if isinstance(targets, str) else tuple(targets)
    if not names or not set(names) <= {*known}:
        raise InvalidArgument(
            f"`targets` should be some of {', '.join(known) or 'none'}, which this dataset has. "
            f"Received: {targets!r}"
        )
    return names


def _compiled(listing: SampleTable, options: DatasetOptions) -> tuple[Spec, Parts]:
    """The spec, and the arrays that it refers to."""
    arguments.one_of("on_error", options.on_error, ("raise", "skip"))
    arguments.one_of("color_mode", options.color_mode, get_args(ColorMode))
    arguments.one_of("bounding_box_format", options.bounding_box_format, get_args(BoxFormat))
    load = Load(
        target_size=arguments.size(options.image_size),
        color_mode=options.color_mode,
        interpolation="bilinear",
        pil=pils_switches(),
        reading="decode_image",
    )
    data_format = options.data_format or adapter.image_data_format()
    output = Output(data_format=arguments.one_of("data_format", data_format, get_args(DataFormat)))
    batch = Batching(arguments.whole("batch_size", options.batch_size), "none")
    parts = augmented(options.augment, load, output, batch, has_targets=True)
    if divide(parts.operations).mixes:
        raise InvalidArgument(
            "`augment`: MixUp and CutMix mix images with class labels, and masks, boxes and "
            "keypoints have no meaning then: leave them out"
        )
    spec = Spec(
        source=Files(os.path.commonpath([os.path.dirname(path) for path in listing.images])),
        load=parts.load,
        transforms=(),
        output=parts.output,
        batch=parts.batch,
        order=Order(
            shuffle=arguments.flag("shuffle", options.shuffle),
            seed=arguments.seed(options.seed),
            weighted=listing.sampling is not None,
            repeats=parts.repeats,
        ),
        on_error=options.on_error,
        augment=parts.operations,
        annotations=_annotations(listing, options),
    )
    return spec, _parts(listing)


def _annotations(listing: SampleTable, options: DatasetOptions) -> Annotations:
    instances = listing.instances
    if instances is None:
        return Annotations(masks=listing.has_masks)
    most = max(1, *instances.counts) if options.max_boxes is None else options.max_boxes
    return Annotations(
        masks=listing.has_masks,
        drawn=listing.shapes is not None,
        max_boxes=arguments.whole("max_boxes", most),
        boxes=instances.boxes is not None,
        keypoints=0 if instances.keypoints is None else instances.keypoints.shape[1],
        box_format=options.bounding_box_format,
        min_area=arguments.number("min_area", options.min_area),
        min_visibility=arguments.number("min_visibility", options.min_visibility),
    )


def _parts(listing: SampleTable) -> Parts:
    parts = {"manifest": _packed(listing.images, listing.class_names)}
    if listing.masks is not None:
        parts["mask_manifest"] = _packed(listing.masks, ())
    if listing.sampling is not None:
        parts["weights"] = listing.sampling
    if listing.shapes is not None:
        parts |= listing.shapes.parts()
    instances = listing.instances
    if instances is None:
        return parts
    parts["instances"] = np.cumsum([0, *instances.counts], dtype=np.int64)
    arrays = {
        "boxes": instances.boxes,
        "box_labels": instances.labels,
        "keypoints": instances.keypoints,
    }
    return parts | {name: array for name, array in arrays.items() if array is not None}


def _packed(paths: list[str], class_names: Sequence[str]) -> Array:
    labels = np.zeros(len(paths), np.int32)
    table = manifest.pack(
        "", class_names, [os.fsencode(os.path.abspath(one)) for one in paths], labels
    )
    return np.frombuffer(table, np.uint8)
