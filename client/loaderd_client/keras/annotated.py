"""Datasets of images with what belongs to them: masks, boxes, keypoints, labels of any kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from loaderd.errors import EmptyDataset, InvalidArgument
from loaderd.ipc.slot_layout import further_name
from loaderd.ipc.text import printable
from loaderd.spec.source import Archives
from loaderd_client.core.batch import Batch
from loaderd_client.core.shared_supply import Sharing
from loaderd_client.keras.compile_annotated import compiled, part_of, part_of_archives
from loaderd_client.keras.dataset_options import DatasetOptions
from loaderd_client.keras.preview import Overlay, caption, overlay_of
from loaderd_client.keras.sample_table import SampleTable
from loaderd_client.keras.sequence import LoaderSequence


class AnnotatedSequence(LoaderSequence):
    """Batches of images with what belongs to them; see :class:`LoaderSequence`.

    A batch is Keras's dictionary: ``images``; ``labels``; ``segmentation_masks``, uint8 (rows,
    height, width, 1); ``bounding_boxes`` with ``boxes``, float32 (rows, max_boxes, 4), and
    ``labels``, int32 (rows, max_boxes), both -1 where there is none; ``keypoints``, float32 (rows,
    max_boxes, points, 3): x, y, and whether it is visible, 0 where there is none. With ``targets``
    it is (images, targets), and with weights (images, targets, weights). Where a sample has several
    images, they are a tuple of arrays.
    """

    def __init__(self, listing: SampleTable, options: DatasetOptions) -> None:
        spec, parts, functions = compiled(listing, options)
        # Not the listing, whose paths and boxes would stay in the trainer's memory.
        self._labels, self._weights = listing.labels, listing.weights
        self._names = _names(options.targets, listing)
        super().__init__(
            spec,
            max_queue_size=options.max_queue_size,
            parts=parts,
            functions=functions,
            sharing=Sharing.of(
                options.share, options.join, options.seed, options.subset, spec.order.shard
            ),
        )
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
        images, weights = self._images_of(batch), self._weights
        if self._names is None:
            more = {} if weights is None else {"sample_weights": weights[batch.ids]}
            return {"images": images, **found, **more}
        chosen = tuple(found[name] for name in self._names)
        targets = chosen[0] if len(chosen) == 1 else chosen
        if weights is None:
            return images, targets
        return images, targets, weights[batch.ids]

    def _images_of(self, batch: Batch) -> Any:
        wanted = self.spec.annotations
        if wanted is None or not wanted.further:
            return batch.images
        names = map(further_name, range(len(wanted.further)))
        return (batch.images, *(batch.annotations[name] for name in names))

    def _caption(self, batch: Batch, row: int) -> str:
        labels = self._labels
        if labels is None or batch.labels is not None:
            return super()._caption(batch, row)
        mode = "int" if labels.ndim == 1 and labels.dtype.kind == "i" else "categorical"
        return caption(labels[batch.ids[row]], mode, self.class_names)

    def _overlay(self, batch: Batch, row: int) -> Overlay:
        return overlay_of(batch, row, self.spec, self.class_names)

    def _targets_of(self, batch: Batch) -> dict[str, Any]:
        given = batch.annotations
        found: dict[str, Any] = {}
        if self._labels is not None:
            mixed = batch.labels
            found["labels"] = self._labels[batch.ids] if mixed is None else mixed
        if "masks" in given:
            found["segmentation_masks"] = given["masks"]
        if "boxes" in given:
            found["bounding_boxes"] = {"boxes": given["boxes"], "labels": given["box_labels"]}
        if "keypoints" in given:
            found["keypoints"] = given["keypoints"]
        return found


def dataset_of(listing: SampleTable, options: DatasetOptions) -> AnnotatedSequence:
    """The sequence of a listing, or of the part of it that the options ask for.

    Raises:
        EmptyDataset: it has no samples.
        InvalidArgument: an option is not allowed, or does not fit the samples.
    """
    total, listing = len(listing.images), listing.measured()
    samples = part_of(options, total)
    if samples is not None:
        listing = listing.taken(samples)
    if not len(listing.images):
        part = "" if samples is None else f", as the part for {options.subset} of {total} has none"
        raise EmptyDataset(f"the dataset has no images{part}")
    sequence = AnnotatedSequence(listing, options)
    if options.verbose:
        whole = f"Found {total} images."
        print(whole if samples is None else f"{whole}\nUsing {sequence.n} for {options.subset}.")
    return sequence


def dataset_of_archives(archives: Archives, options: DatasetOptions) -> AnnotatedSequence:
    """The sequence of images and masks in archives, or of the part that the options ask for.

    Raises:
        DatasetError: they cannot be listed, or hold no image.
        InvalidArgument: an option is not allowed.
    """
    listing = SampleTable([], archives=part_of_archives(archives, options))
    sequence = AnnotatedSequence(listing, options)
    if options.verbose:
        part = "" if options.subset is None else f" for {options.subset}"
        print(f"{'Using' if part else 'Found'} {sequence.n} images{part}.")
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
