"""The images of a stream with their annotations: masks, boxes, keypoints.

Masks lie in files, all else in the bundle; see :class:`loaderd.spec.annotations.Annotations`.
"""

from __future__ import annotations

import os
from itertools import pairwise
from time import perf_counter_ns
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loaderd.augment.boxes import from_corners
from loaderd.augment.pixels import size_of
from loaderd.augment.targets import Targets
from loaderd.errors import BadImage
from loaderd.ipc.bundle import Parts
from loaderd.ipc.manifest import Manifest
from loaderd.ipc.slot_layout import SlotArrays
from loaderd.ipc.text import printable
from loaderd.render.load.masks import MaskDecoder
from loaderd.render.load.pixel_limits import PixelLimit
from loaderd.render.load.shapes import draw_polygons, draw_runs
from loaderd.render.renderer import Loaded, Prepared, Renderer
from loaderd.sources.files import FileLimit, FileReader
from loaderd.sources.source import Source
from loaderd.spec.annotations import Annotations
from loaderd.spec.spec import Spec
from loaderd.worker.images import DecodedImages

Floats = NDArray[np.floating[Any]]

_ROUNDED = 1.0
"""Pixels by which a box may be outside of its image."""


class Annotated(NamedTuple):
    """What a sample has beside its image, in pixels of the picture.

    Attributes:
        targets: masks, boxes and keypoints.
        labels: int32 (n,), of the boxes.
    """

    targets: Targets
    labels: NDArray[np.int32]


class AnnotationReader:
    """Reads the annotations of samples.

    Args:
        spec: which there are.
        parts: the bundle.
        limit: of a mask's pixels.
    """

    def __init__(self, spec: Spec, parts: Parts, limit: PixelLimit) -> None:
        wanted = spec.annotations
        assert wanted is not None, "it is for streams with annotations"
        self._wanted = wanted
        self._parts = parts
        self._masks: Manifest | None = None
        if wanted.masks and not wanted.drawn:
            self._masks = Manifest.view(parts["mask_manifest"].data.cast("B"))
            self._files = FileReader(FileLimit(limit.file_bytes, limit.file_reason))
            self._decoder = MaskDecoder(spec.load, limit)

    def read(self, sample: int, picture: Loaded, name: str) -> Annotated:
        """The annotations of a sample.

        Args:
            sample: its number.
            picture: the loaded image, whose size a mask must have.
            name: of its file, for errors.

        Raises:
            BadImage: its mask cannot be read, or has another size; or a box is outside of it.
        """
        masks: tuple[NDArray[np.uint8], ...] = ()
        if self._masks is not None:
            masks = (self._mask(self._masks, sample, picture, name),)
        elif self._wanted.drawn:
            masks = (self._drawn(sample, size_of(picture), name),)
        boxes: Floats = np.empty((0, 4))
        keypoints: Floats = np.empty((0, 0, 3))
        labels = np.empty(0, np.int32)
        if self._wanted.max_boxes:
            first, last = self._parts["instances"][sample : sample + 2].tolist()
            if self._wanted.boxes:
                boxes = self._parts["boxes"][first:last].astype(np.float64)
                labels = self._parts["box_labels"][first:last]
                boxes = _within(boxes, size_of(picture), name)
            if self._wanted.keypoints:
                keypoints = _within_or_invisible(
                    self._parts["keypoints"][first:last].astype(np.float64), size_of(picture)
                )
        return Annotated(Targets(masks, boxes, keypoints), labels)

    def _drawn(self, sample: int, size: tuple[int, int], name: str) -> NDArray[np.uint8]:
        """The instances of a sample, one after the other."""
        parts, mask = self._parts, np.zeros(size, np.uint8)
        for one in range(*parts["instances"][sample : sample + 2].tolist()):
            value = int(parts["mask_values"][one])
            first, last = parts["rings"][one : one + 2].tolist()
            bounds = parts["ring_points"][first : last + 1].tolist()
            rings = [parts["points"][start:stop] for start, stop in pairwise(bounds)]
            draw_polygons(mask, rings, value)
            start, stop = parts["runs"][one : one + 2].tolist()
            try:
                draw_runs(mask, parts["run_lengths"][start:stop], value)
            except ValueError as error:
                raise BadImage(
                    f"{printable(name)}: {error} in the mask of instance {one}, and the image has "
                    f"{size[1]}x{size[0]}"
                ) from None
        return mask

    def _mask(self, masks: Manifest, sample: int, picture: Loaded, name: str) -> NDArray[np.uint8]:
        path = os.fsdecode(masks.path(sample))
        mask = self._decoder.decode(self._files.read(path), path)
        if mask.shape != size_of(picture):
            (height, width), (rows, columns) = size_of(picture), mask.shape
            raise BadImage(
                f"{printable(path)}: a mask of {columns}x{rows} pixels, and its image "
                f"{printable(name)} has {width}x{height}"
            )
        return mask


class AnnotatedImages(DecodedImages):
    """Images that are read and decoded each time, with their annotations.

    Args:
        source: of the files.
        renderer: decodes and finishes them.
        spec: of the stream.
        parts: the bundle.
        limit: of a mask's pixels.
    """

    def __init__(
        self, source: Source, renderer: Renderer, spec: Spec, parts: Parts, limit: PixelLimit
    ) -> None:
        super().__init__(source, renderer)
        assert spec.annotations is not None, "it is for streams with annotations"
        self._reader = AnnotationReader(spec, parts, limit)
        self._write = AnnotationWriter(spec.annotations, spec.image_size)
        self._loaded = Annotated(Targets(), np.empty(0, np.int32))

    def load(self, sample: int) -> Loaded:
        """One image, valid until the next call; its annotations wait for ``finish``.

        Raises:
            BadImage: its file, or that of its mask, cannot be read or decoded.
        """
        picture = super().load(sample)
        start = perf_counter_ns()
        self._loaded = self._reader.read(sample, picture, self.source.name(sample))
        self._renderer.times.decode += perf_counter_ns() - start
        return picture

    def finish(
        self, picture: Loaded, prepared: Prepared, at: int, slot: SlotArrays, row: int
    ) -> None:
        """Finishes the image that was loaded last, and writes it and its annotations to a row.

        Raises:
            RenderError: an operation refuses the image.
        """
        targets, labels = self._loaded
        moved = self._renderer.finish_annotated(picture, targets, prepared, at, slot.images[row])
        self._write(slot, row, moved, labels)


class AnnotationWriter:
    """Writes the moved annotations of samples to a slot.

    Args:
        wanted: which there are, and how.
        size: (height, width) of the images.
    """

    def __init__(self, wanted: Annotations, size: tuple[int, int]) -> None:
        self._wanted = wanted
        self._size = size

    def __call__(self, slot: SlotArrays, row: int, moved: Targets, labels: NDArray[Any]) -> None:
        """Writes those of one sample to a row."""
        if slot.masks is not None:
            slot.masks[row, :, :, 0] = moved.masks[0]
        kept: Any = slice(self._wanted.max_boxes)
        if slot.boxes is not None and slot.box_labels is not None:
            kept = self._kept(moved)
            boxes = from_corners(moved.boxes[kept], self._wanted.box_format, self._size)
            slot.boxes[row], slot.box_labels[row] = -1, -1
            slot.boxes[row, : len(boxes)] = boxes
            slot.box_labels[row, : len(boxes)] = labels[kept]
        if slot.keypoints is not None:
            points = moved.keypoints[kept]
            slot.keypoints[row] = 0
            slot.keypoints[row, : len(points)] = points

    def _kept(self, moved: Targets) -> NDArray[np.intp]:
        """The boxes of which enough is seen: as many as fit, in their order."""
        left, top, right, bottom = moved.boxes.T
        area = (right - left) * (bottom - top)
        seen = (area > 0) & (area >= self._wanted.min_area)
        seen &= moved.visibility >= self._wanted.min_visibility
        return np.flatnonzero(seen)[: self._wanted.max_boxes]


def _within_or_invisible(keypoints: Floats, size: tuple[int, int]) -> Floats:
    """The keypoints, all 0 where they are invisible or outside of the image."""
    inside = ((keypoints[..., :2] >= 0) & (keypoints[..., :2] <= size[::-1])).all(axis=-1)
    seen = inside & (keypoints[..., 2] > 0)
    return np.where(seen[..., np.newaxis], keypoints, 0.0)


def _within(boxes: Floats, size: tuple[int, int], name: str) -> Floats:
    """The boxes, clipped by up to a pixel, as of rounded numbers.

    Raises:
        BadImage: one is further outside.
    """
    height, width = size
    clipped = np.clip(boxes, 0, (width, height, width, height))
    for number in np.flatnonzero(np.abs(clipped - boxes).max(axis=1) > _ROUNDED):
        raise BadImage(
            f"{printable(name)}: box {number} from {tuple(boxes[number, :2].tolist())} to "
            f"{tuple(boxes[number, 2:].tolist())} is outside of the image of {width}x{height} "
            "pixels"
        )
    return clipped
