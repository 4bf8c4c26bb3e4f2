"""What belongs to the images of a stream: further images, masks, boxes, keypoints.

Images and masks lie in files, or as members of archives, all else in the bundle; see
:class:`loaderd.spec.annotations.Annotations`.
"""

from __future__ import annotations

from itertools import pairwise
from time import perf_counter_ns
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from loaderd.augment.boxes import clipped_to, from_corners
from loaderd.augment.pixels import Window, moved
from loaderd.augment.policies import calls_of
from loaderd.augment.targets import Targets
from loaderd.augment.warps import Size
from loaderd.errors import BadImage, ProtocolError
from loaderd.ipc.annotation_parts import manifest_name
from loaderd.ipc.bundle import Parts
from loaderd.ipc.manifest import Manifest
from loaderd.ipc.slot_layout import SlotArrays
from loaderd.ipc.text import printable
from loaderd.render.load.masks import MaskDecoder
from loaderd.render.load.pixel_limits import PixelLimit
from loaderd.render.load.resize import frame
from loaderd.render.load.shapes import draw_polygons, draw_runs
from loaderd.render.renderer import Loaded, Prepared, Renderer
from loaderd.sources.files import FileLimit, FileSource
from loaderd.sources.members import MemberSource
from loaderd.spec.annotations import Annotations
from loaderd.spec.spec import Spec
from loaderd.worker.images import DecodedImages

Floats = NDArray[np.floating[Any]]


class AnnotationReader:
    """Reads the annotations of samples.

    Args:
        spec: which there are.
        parts: the bundle.
        limit: of a mask's pixels.
        members: the masks, if they lie in archives.
    """

    def __init__(
        self, spec: Spec, parts: Parts, limit: PixelLimit, members: MemberSource | None = None
    ) -> None:
        wanted = spec.annotations
        assert wanted is not None, "it is for streams with annotations"
        self._wanted = wanted
        self._parts = parts
        self._masks: FileSource | MemberSource | None = members
        self._decoder = MaskDecoder(spec.load, limit)
        if wanted.masks == "files":
            listed = Manifest.view(parts["mask_manifest"].data.cast("B"))
            self._masks = FileSource(listed, FileLimit(limit.file_bytes, limit.file_reason))
        if wanted.masks == "members" and members is None:
            raise ProtocolError("the manifest has no masks")

    def read(self, sample: int, size: Size, name: str) -> Targets:
        """The annotations of a sample, in pixels of the picture.

        Args:
            sample: its number.
            size: (height, width) of its picture, which a mask must have.
            name: of the picture's file, for errors.

        Raises:
            BadImage: its mask cannot be read, or has another size; or a box is outside of it.
        """
        masks: tuple[NDArray[np.uint8], ...] = ()
        if self._masks is not None:
            masks = (self._mask(self._masks, sample, size, name),)
        elif self._wanted.masks == "arrays":
            masks = (self._parts["masks"][sample],)
        elif self._wanted.masks == "shapes":
            masks = (self._drawn(sample, size, name),)
        boxes: Floats = np.empty((0, 4))
        keypoints: Floats = np.empty((0, 0, 3))
        labels = np.empty(0, np.int32)
        if self._wanted.max_boxes:
            first, last = self._parts["instances"][sample : sample + 2].tolist()
            if self._wanted.boxes:
                boxes = self._parts["boxes"][first:last].astype(np.float64)
                labels = self._parts["box_labels"][first:last]
                boxes = _within(boxes, size, name)
            if self._wanted.keypoints:
                keypoints = _within_or_invisible(
                    self._parts["keypoints"][first:last].astype(np.float64), size
                )
        return Targets(masks, boxes, keypoints, np.ones(len(boxes)), labels)

    def _drawn(self, sample: int, size: Size, name: str) -> NDArray[np.uint8]:
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

    def _mask(
        self, masks: FileSource | MemberSource, sample: int, size: Size, name: str
    ) -> NDArray[np.uint8]:
        path = masks.name(sample)
        mask = self._decoder.decode(masks.read(sample), path)
        if mask.shape != size:
            (height, width), (rows, columns) = size, mask.shape
            raise BadImage(
                f"{printable(path)}: a mask of {columns}x{rows} pixels, and its image "
                f"{printable(name)} has {width}x{height}"
            )
        return mask


class _FurtherImages:
    """Further images of each sample, rendered with the draws of the first.

    Args:
        spec: of the stream.
        parts: the bundle.
        limit: of a picture's pixels.
        first: renders the first; theirs share its functions, and add to its times.
    """

    def __init__(self, spec: Spec, parts: Parts, limit: PixelLimit, first: Renderer) -> None:
        assert spec.annotations is not None, "it is for streams with annotations"
        self._images: list[tuple[DecodedImages, Renderer]] = []
        for number, mode in enumerate(spec.annotations.further):
            load = msgspec.structs.replace(spec.load, color_mode=mode)
            own = msgspec.structs.replace(spec, load=load)
            renderer = Renderer(own, first.times, limit=limit, functions=first.functions)
            listed = Manifest.view(parts[manifest_name(number)].data.cast("B"))
            files = FileSource(listed, FileLimit(limit.file_bytes, limit.file_reason))
            self._images.append((DecodedImages(files, renderer), renderer))
        self._loaded: list[Loaded] = []
        self._take_targets = any(call.targets for call in calls_of(spec.augment))

    def begin(self, prepared: Prepared, at: int) -> None:
        """See ``Renderer.begin``."""
        for _, renderer in self._images:
            renderer.begin(prepared, at)

    def load(self, sample: int, size: Size, name: str) -> None:
        """Loads those of a sample.

        Args:
            sample: its number.
            size: (height, width) of the first one's picture, which theirs must have.
            name: of the first one's file, for errors.

        Raises:
            BadImage: one cannot be read or decoded, or has another size.
        """
        self._loaded = []
        for images, _ in self._images:
            picture = images.load(sample)
            if images.size != size:
                (height, width), (rows, columns) = size, images.size
                raise BadImage(
                    f"{printable(images.source.name(sample))}: an image of {columns}x{rows}, "
                    f"and {printable(name)}, to which it belongs, has {width}x{height}"
                )
            self._loaded.append(picture)

    def finish(
        self, targets: Targets, prepared: Prepared, at: int, slot: SlotArrays, row: int
    ) -> None:
        """Finishes those that were loaded last, and writes them to a row.

        Functions that take targets get them with each image; those of the first are kept.
        """
        for (_, renderer), picture, rows in zip(
            self._images, self._loaded, slot.further, strict=True
        ):
            if self._take_targets:
                renderer.finish_annotated(picture, targets, prepared, at, rows[row])
            else:
                renderer.finish(picture, prepared, at, rows[row])


class AnnotatedSample:
    """What belongs to the image of the sample in hand.

    Args:
        spec: of the stream.
        parts: the bundle.
        renderer: finishes the image.
        limit: of a picture's pixels.
        members: the masks, if they lie in archives.
    """

    def __init__(
        self,
        spec: Spec,
        parts: Parts,
        renderer: Renderer,
        limit: PixelLimit,
        members: MemberSource | None = None,
    ) -> None:
        assert spec.annotations is not None, "it is for streams with annotations"
        self._renderer = renderer
        self._load = spec.load
        self._reader = AnnotationReader(spec, parts, limit, members)
        self._further = _FurtherImages(spec, parts, limit, renderer)
        self._write = AnnotationWriter(spec.annotations, spec.image_size)
        self._loaded = Targets()

    def begin(self, prepared: Prepared, at: int) -> None:
        """See ``Renderer.begin``."""
        self._further.begin(prepared, at)

    def load(self, sample: int, size: Size, name: str) -> None:
        """Reads it for an image that was loaded.

        Args:
            sample: its number.
            size: (height, width) of the image's picture.
            name: of its file, for errors.

        Raises:
            BadImage: a file cannot be read or decoded, or does not fit the image.
        """
        self._further.load(sample, size, name)
        start = perf_counter_ns()
        found = self._reader.read(sample, size, name)
        if self._load.sized and size != self._load.target_size:
            resized = Window(frame(self._load, size), self._load.target_size)
            found = moved(found, resized)
        self._loaded = found
        self._renderer.times.decode += perf_counter_ns() - start

    def finish(
        self, picture: Loaded, prepared: Prepared, at: int, slot: SlotArrays, row: int
    ) -> None:
        """Finishes the image for which it was loaded, and writes all to a row.

        Raises:
            RenderError: an operation refuses the image.
        """
        targets = self._loaded
        moved = self._renderer.finish_annotated(picture, targets, prepared, at, slot.images[row])
        self._further.finish(targets, prepared, at, slot, row)
        self._write(slot, row, moved)


class AnnotationWriter:
    """Writes the moved annotations of samples to a slot.

    Args:
        wanted: which there are, and how.
        size: (height, width) of the images.
    """

    def __init__(self, wanted: Annotations, size: tuple[int, int]) -> None:
        self._wanted = wanted
        self._size = size

    def __call__(self, slot: SlotArrays, row: int, moved: Targets) -> None:
        """Writes those of one sample to a row."""
        if slot.masks is not None:
            slot.masks[row, :, :, 0] = moved.masks[0]
        kept: Any = slice(self._wanted.max_boxes)
        if slot.boxes is not None and slot.box_labels is not None:
            kept = self._kept(moved)
            boxes = from_corners(moved.boxes[kept], self._wanted.box_format, self._size)
            slot.boxes[row], slot.box_labels[row] = -1, -1
            slot.boxes[row, : len(boxes)] = boxes
            slot.box_labels[row, : len(boxes)] = moved.labels[kept]
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
    clipped, wrong = clipped_to(boxes, size)
    for number in wrong:
        raise BadImage(
            f"{printable(name)}: box {number} from {tuple(boxes[number, :2].tolist())} to "
            f"{tuple(boxes[number, 2:].tolist())} is outside of the image of {width}x{height} "
            "pixels"
        )
    return clipped
