"""Datasets of images with what belongs to them: masks, boxes, keypoints, labels of any kind."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, get_args

from loaderd.augment.boxes import BoxFormat, to_corners
from loaderd.augment.pipeline import divide
from loaderd.errors import EmptyDataset, InvalidArgument
from loaderd.ipc.bundle import Parts
from loaderd.ipc.text import printable
from loaderd.spec.annotations import Annotations
from loaderd.spec.base import ColorMode, DataFormat
from loaderd.spec.load import Load
from loaderd.spec.output import Batching, Order, Output
from loaderd.spec.source import Files
from loaderd.spec.spec import Spec
from loaderd_client.core import arguments
from loaderd_client.core.batch import Batch
from loaderd_client.keras import adapter
from loaderd_client.keras.augment_list import augmented
from loaderd_client.keras.dataset_options import DatasetOptions
from loaderd_client.keras.pil_settings import pils_switches
from loaderd_client.keras.preview import Overlay, caption
from loaderd_client.keras.sample_table import SampleTable
from loaderd_client.keras.sequence import LoaderSequence


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

    @property
    def classes(self) -> Any:
        """The labels of all samples, one row each; None without ``labels``."""
        return self._labels

    def _origin(self) -> str:
        classes = f", {len(self.class_names)} classes" if self.class_names else ""
        return f"{classes}, of {printable(self.spec.source.directory)}"

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
            boxes = to_corners(given["boxes"][row], wanted.box_format, self.spec.image_size)
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
    return spec, listing.parts()


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
