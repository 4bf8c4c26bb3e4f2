"""A picture of samples exactly as training gets them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from math import ceil, sqrt
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loaderd.augment.boxes import to_corners
from loaderd.augment.pipeline import divide
from loaderd.errors import InvalidArgument
from loaderd.spec.spec import Spec
from loaderd_client.core import arguments
from loaderd_client.core.batch import Batch
from loaderd_client.keras.samples import Samples

if TYPE_CHECKING:
    from PIL.Image import Image

Array = NDArray[Any]

_LEAST = 96
"""Pixels that a cell has at least, so that its caption can be read."""
_CAPTION = 14
_GAP = 4
_MARGIN = 1e-3
_LISTED = 3
_COLORS = np.array(
    [
        (0, 0, 0), (230, 60, 60), (60, 180, 75), (65, 105, 225), (245, 190, 50),
        (150, 70, 190), (70, 200, 210), (240, 130, 50), (190, 240, 90),
    ],
    np.uint16,
)  # fmt: skip
"""Of classes, from 1."""


class Overlay(NamedTuple):
    """What is drawn on an image.

    Attributes:
        mask: numbers of classes, (height, width); None for none.
        boxes: (n, 4): left, top, right, bottom, in pixels.
        classes: a number for each box, which decides its colour as that of a mask.
        names: one for each box.
        keypoints: (m, 2): x, y.
    """

    mask: Array | None = None
    boxes: Array = np.empty((0, 4))
    classes: Sequence[int] = ()
    names: Sequence[str] = ()
    keypoints: Array = np.empty((0, 2))


class Preview(Samples):
    """The samples of a sequence that can be looked at."""

    def preview(self, n: int = 16, path: str | os.PathLike[str] | None = None) -> Image:
        """A picture of the first samples of the epoch, exactly as training gets them.

        They do not count as read. Class names are below the images, with their shares where labels
        are mixed; masks, boxes and keypoints are drawn on them; ``Rescaling`` and ``Normalization``
        of an ``augment`` list are undone.

        Args:
            n: how many; at most an epoch's.
            path: where to save the picture too; its extension decides the format.

        Returns:
            A PIL image, which a notebook shows.

        Raises:
            InvalidArgument: ``n`` is not positive.
            BadImage: a file cannot be read.
        """
        batches = map(self._look, range(len(self)))
        picture = picture_of(batches, arguments.whole("n", n), self.spec, self._described)
        if path is not None:
            picture.save(path)
        return picture

    def _described(self, batch: Batch, row: int) -> tuple[str, Overlay]:
        return self._caption(batch, row), self._overlay(batch, row)

    def _caption(self, batch: Batch, row: int) -> str:
        if batch.labels is None:
            return str(os.path.basename(self.filenames[batch.ids[row]]))
        return caption(batch.labels[row], self.spec.batch.label_mode, self.class_names)

    def _overlay(self, batch: Batch, row: int) -> Overlay:
        """What is drawn on one image; nothing by default."""
        return Overlay()

    def _look(self, index: int) -> Batch:
        """A batch of the present epoch; does not count as read."""
        raise NotImplementedError


def overlay_of(batch: Batch, row: int, spec: Spec, class_names: list[str] | None) -> Overlay:
    """What the annotations of a batch's row are drawn as."""
    given, wanted = batch.annotations, spec.annotations
    overlay = Overlay(mask=given["masks"][row, :, :, 0] if "masks" in given else None)
    if "boxes" in given and wanted is not None:
        labels = given["box_labels"][row]
        boxes = to_corners(given["boxes"][row], wanted.box_format, spec.image_size)
        seen = labels[labels >= 0].tolist()
        names = [caption(one, "int", class_names) for one in seen]
        overlay = overlay._replace(boxes=boxes[labels >= 0], classes=seen, names=names)
    if "keypoints" in given:
        points = given["keypoints"][row].reshape(-1, 3)
        overlay = overlay._replace(keypoints=points[points[:, 2] > 0, :2])
    return overlay


Describe = Callable[[Batch, int], tuple[str, Overlay]]
"""Gives the caption of a batch's row, and what is drawn on its image."""


def picture_of(batches: Iterable[Batch], count: int, spec: Spec, describe: Describe) -> Image:
    """The first samples of batches in a grid, with a caption below each.

    Args:
        batches: in their order.
        count: of samples.
        spec: of the stream.
        describe: what stands at them.

    Returns:
        A PIL image of mode RGB.

    Raises:
        InvalidArgument: ``count`` is not positive.
    """
    if count < 1:
        raise InvalidArgument(f"`n` should be at least 1. Received: {count}")
    cells: list[Array] = []
    captions: list[str] = []
    for batch in batches:
        for row, image in enumerate(_as_bytes(batch.images, spec)):
            caption, overlay = describe(batch, row)
            cells.append(_cell(image, overlay))
            captions.append(caption)
        if len(cells) >= count:
            break
    return _grid(cells[:count], captions[:count])


def _grid(cells: list[Array], captions: list[str]) -> Image:
    # Here, so that a trainer that shows nothing loads no decoder.
    from PIL import Image, ImageDraw

    height, width = cells[0].shape[:2]
    columns = ceil(sqrt(len(cells)))
    across, down = width + _GAP, height + _CAPTION + _GAP
    size = (columns * across, ceil(len(cells) / columns) * down)
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    for number, (cell, caption) in enumerate(zip(cells, captions, strict=True)):
        x, y = number % columns * across, number // columns * down
        picture.paste(Image.fromarray(cell), (x, y))
        draw.text((x + 1, y + height + 1), _fitting(caption, width), fill="black")
    return picture


def _cell(image: Array, overlay: Overlay) -> Array:
    """An image, enlarged if it is small, with what belongs to it in the colours of its classes."""
    from PIL import Image, ImageDraw

    times = ceil(_LEAST / min(image.shape[:2]))
    cell = image.repeat(times, axis=0).repeat(times, axis=1)
    if overlay.mask is not None:
        mask = overlay.mask.repeat(times, axis=0).repeat(times, axis=1)
        tinted = (cell.astype(np.uint16) + _COLORS[mask % len(_COLORS)]) // 2
        cell = np.where(mask[..., np.newaxis] > 0, tinted, cell).astype(np.uint8)
    picture = Image.fromarray(np.ascontiguousarray(cell))
    draw = ImageDraw.Draw(picture)
    for box, number, name in zip(overlay.boxes, overlay.classes, overlay.names, strict=True):
        color = tuple(_COLORS[1 + number % (len(_COLORS) - 1)].tolist())
        draw.rectangle((box * times).tolist(), outline=color)
        draw.text((box[0] * times + 2, box[1] * times), name, fill=color)
    for x, y in overlay.keypoints * times:
        draw.ellipse((x - 2, y - 2, x + 2, y + 2), outline="white", fill="red")
    return np.asarray(picture)


def caption(label: Any, label_mode: str, class_names: list[str] | None) -> str:
    """The names of a sample's classes; with their shares, where there are several."""
    names = class_names or []

    def name(number: int) -> str:
        return str(names[number] if number < len(names) else number)

    if label_mode in ("categorical", "given") and np.ndim(label) == 1:
        first = np.argsort(label)[::-1][:_LISTED].tolist()
        shares = [(name(one), float(label[one])) for one in first if label[one] > _MARGIN]
        if len(shares) == 1:
            return shares[0][0]
        return ", ".join(f"{share:.2f} {one}" for one, share in shares)
    if label_mode in ("int", "sparse", "binary") and np.size(label) == 1:
        return name(round(float(np.reshape(label, -1)[0])))
    if label_mode == "given" and np.size(label) == 1:
        return f"{float(np.reshape(label, -1)[0]):g}"
    return ""


def _as_bytes(images: Array, spec: Spec) -> Array:
    """uint8 (n, height, width, 3) of images in any form that a stream has.

    What ``Rescaling`` and ``Normalization`` of an ``augment`` list did is undone. Other values are
    shown as they are if they are from 0 to 255 or from 0 to 1, and else stretched to that.
    """
    if spec.output.data_format == "channels_first":
        images = images.transpose(0, 2, 3, 1)
    if spec.output.dtype == "bfloat16":
        images = (images.astype(np.uint32) << 16).view(np.float32)
    values = images.astype(np.float32)
    pipeline = divide(spec.augment)
    for one in reversed(pipeline.values):
        for name, numbers in reversed(one.steps()):
            values = _UNDO[name](values, np.array(numbers, np.float32))
    if not pipeline.values and images.dtype != np.uint8:
        values = _stretched(values)
    found = np.clip(np.round(values), 0, 255).astype(np.uint8)
    return np.repeat(found, 3, axis=3) if found.shape[3] == 1 else found[..., :3]


_UNDO = {
    "multiply": lambda values, numbers: values / numbers,
    "divide": lambda values, numbers: values * numbers,
    "subtract": lambda values, numbers: values + numbers,
}


def _stretched(values: Array) -> Array:
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 1 + _MARGIN:
        return values * 255
    if low >= 0 and high <= 255 + _MARGIN:
        return values
    return (values - low) * (255 / max(high - low, _MARGIN))


def _fitting(text: str, width: int) -> str:
    return text[: max(1, width // 6)]  # PIL's own font has characters of 6 pixels
