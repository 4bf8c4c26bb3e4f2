"""The part of a spec for what belongs to images: further images, masks, boxes, keypoints."""

from __future__ import annotations

from typing import Literal

from loaderd.augment.boxes import BoxFormat
from loaderd.augment.function import TargetName
from loaderd.errors import InvalidArgument
from loaderd.spec.base import ColorMode, Frozen

MaskSource = Literal["files", "members", "arrays", "shapes"]


class Annotations(Frozen, frozen=True):
    """What the samples have beside images and classes; the values are in the bundle.

    The bundle's parts, where *total* is the number of all instances:

    - ``instances``, int64 (samples + 1,): sample i has the instances from instances[i] up to
      instances[i + 1]; only with boxes, keypoints or masks of shapes;
    - ``boxes``, float32 (total, 4): left, top, right, bottom in pixels of the picture;
    - ``box_labels``, int32 (total,);
    - ``keypoints``, float32 (total, k, 3): x, y, visible;
    - ``mask_manifest``: the packed paths of the masks' files, one for each sample;
    - ``masks``, uint8 (samples, height, width): masks of arrays;
    - ``image_manifest_1``, and so on: as ``mask_manifest``, of further images;
    - for masks of shapes: ``mask_values``, uint8 (total,), the value of an instance's pixels;
      ``rings``, int64 (total + 1,), and ``ring_points``, int64 (rings + 1,), the bounds of the
      polygons of an instance, and of the points of a polygon, in ``points``, float32 (n, 2): x, y;
      ``runs``, int64 (total + 1,), the bounds of an instance's ``run_lengths``, int64: pixels
      outside and inside in turn, column by column.

    Attributes:
        masks: where each sample's mask comes from: a file, a member of an archive, which the
            manifest has, an array, or polygons and runs, from which it is drawn; None for no
            masks.
        further: the color mode of each further image of a sample, of the first one's size.
        max_boxes: boxes of a sample in a batch, and rows of keypoints; 0 for neither.
        boxes: whether there are boxes.
        keypoints: points of an instance; 0 for none.
        box_format: of a batch's boxes.
        min_area: pixels of the result; boxes with less are left out.
        min_visibility: fraction of a box's area that must still be in the image.
    """

    masks: MaskSource | None = None
    further: tuple[ColorMode, ...] = ()
    max_boxes: int = 0
    boxes: bool = False
    keypoints: int = 0
    box_format: BoxFormat = "xyxy"
    min_area: float = 0.0
    min_visibility: float = 0.0

    @property
    def targets(self) -> tuple[TargetName, ...]:
        """What moves with the images, by the names in a batch."""
        there: dict[TargetName, bool] = {
            "segmentation_masks": self.masks is not None,
            "bounding_boxes": self.boxes,
            "keypoints": self.keypoints > 0,
        }
        return tuple(name for name, is_there in there.items() if is_there)

    def __post_init__(self) -> None:
        """Raises InvalidArgument for numbers out of their range."""
        if min(self.max_boxes, self.keypoints, self.min_area, self.min_visibility) < 0:
            raise InvalidArgument("max_boxes, keypoints, min_area, min_visibility must be from 0")
        if (self.boxes or self.keypoints) and not self.max_boxes:
            raise InvalidArgument("max_boxes must be at least 1")
        if self.min_visibility > 1:
            raise InvalidArgument("min_visibility must be from 0 to 1")

    @property
    def can_mix(self) -> bool:
        """Whether there are masks alone, which ``CutMix`` can mix as it mixes images."""
        return not (self.max_boxes or self.further)

    @property
    def has_instances(self) -> bool:
        """Whether samples have boxes, keypoints or shapes."""
        return self.max_boxes > 0 or self.masks == "shapes"
