"""The last step for a list of augmenting operations: drawn and applied one after the other.

::

    picture ──► canvas ──operations──► bytes ──kernels: flips, table, values, dtype, layout──► row
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np

from loaderd.augment.canvas import Canvas, ColorChange, Kernels
from loaderd.augment.crops import Box, CenterCrop, RandomCrop, RandomResizedCrop
from loaderd.augment.draws import Draws, Key
from loaderd.augment.pipeline import divide
from loaderd.augment.pixels import Pixels, Window, moved
from loaderd.augment.targets import Targets
from loaderd.augment.values import ValueOperation
from loaderd.augment.warps import Filter
from loaderd.errors import RenderError
from loaderd.render.fast import Step
from loaderd.render.function_calls import FunctionCalls
from loaderd.render.load.resize import REDUCTIONS, PicturePart, Reduced, Size
from loaderd.render.native.kernels import Finish, change_colors, look_up
from loaderd.render.transforms.operation import Array
from loaderd.render.transforms.user_function import UserFunctions
from loaderd.spec.base import CHANNELS
from loaderd.spec.spec import Spec

_ANTIALIASED = 2
"""Pixels per target pixel, each way, that a reduced picture must have left."""
_REACHES: dict[Filter, int] = {
    "nearest": 0,
    "box": 1,
    "bilinear": 1,
    "hamming": 1,
    "bicubic": 2,
    "lanczos": 3,
}
"""Target pixels beyond the edge, at most, that PIL's filters see."""


class AugmentFinish:
    """Draws and applies the operations of ``spec.augment``. Owns buffers: one for each thread.

    Args:
        spec: what to do.
        functions: those that it calls.
    """

    copies = False

    def __init__(self, spec: Spec, functions: UserFunctions | None) -> None:
        pipeline = divide(spec.augment)
        self._steps = [(number, one.draw, one.apply) for number, one in pipeline.images]
        first = pipeline.images[0][1] if pipeline.images else None
        self._crop = first if isinstance(first, RandomResizedCrop) else None
        self._draws = Draws(spec.order.seed or 0)
        caller = None
        if spec.code is not None and functions is not None:
            caller = FunctionCalls(spec.code, functions, spec.annotations)
        self._canvas = Canvas(KERNELS, caller)
        self._flips = np.zeros(1, np.uint8)
        height, width = self._size = spec.image_size
        self._resizes = pipeline.size is None
        channels = CHANNELS[spec.load.color_mode]
        self._kernel = Finish(
            (height, width, channels),
            steps=steps_of(pipeline.values, channels),
            dtype=spec.output.dtype,
            planar=spec.output.data_format == "channels_first",
        )

    def prepare(self, keys: Sequence[Key]) -> Sequence[Key]:
        """The keys of the rows of a chunk, as they are."""
        return keys

    def part(self, size: Size, key: Key) -> PicturePart:
        """What is needed of a picture, and by how much it may be reduced.

        Args:
            size: (width, height) of the picture.
            key: of the sample.
        """
        if self._crop is None:
            return PicturePart()
        box = self._drawn_crop(self._crop, size, key)
        rows = (box.bottom - box.top) / self._crop.height
        columns = (box.right - box.left) / self._crop.width
        fits = (one for one in REDUCTIONS if min(rows, columns) >= _ANTIALIASED * one)
        reduction = next(fits, 1)
        # The filter sees nothing beyond edges that are whole pixels; others it reads across.
        reach = 0 if reduction == 1 else _REACHES[self._crop.interpolation]
        across, down = ceil(reach * columns), ceil(reach * rows)
        left, top = max(int(box.left) - across, 0), max(int(box.top) - down, 0)
        right = min(int(box.right) + across, size[0])
        return PicturePart(reduction, (left, top, right, min(int(box.bottom) + down, size[1])))

    def _drawn_crop(self, crop: RandomResizedCrop, size: Size, key: Key) -> Box:
        epoch, sample, occurrence = key
        self._draws.begin(epoch, sample, 0, occurrence)
        return crop.draw(self._draws, (size[1], size[0]))

    def _crop_reduced(self, picture: Reduced, key: Key, targets: Targets | None) -> None:
        """Begins with the part of a reduced picture; its edges may be fractional there."""
        assert self._crop is not None, "pictures are reduced for it alone"
        box = self._drawn_crop(self._crop, picture.size, key)
        (x, y), by = picture.skip, picture.reduction
        edges = (
            (box.left + x) / by,
            (box.top + y) / by,
            (box.right + x) / by,
            (box.bottom + y) / by,
        )
        self._canvas.begin(picture.image)
        self._canvas.resize(self._crop.sets_size, edges, self._crop.interpolation)
        if targets is not None:  # which are in pixels of the true picture
            cropped = moved(targets, Window((*box,), self._crop.sets_size))
            self._canvas.begin(self._canvas.picture, cropped)

    @property
    def targets(self) -> Targets:
        """Those of the last picture, moved as its pixels were."""
        return self._canvas.targets

    def __call__(
        self, picture: Any, prepared: Any, at: int, row: Array, targets: Targets | None = None
    ) -> None:
        """See ``Renderer.finish``; the picture must be of bytes.

        Raises:
            RenderError: an operation refuses the image, or it has not the size that it must have.
        """
        canvas, draws, steps = self._canvas, self._draws, self._steps
        epoch, sample, occurrence = prepared[at]
        if isinstance(picture, Reduced):
            self._crop_reduced(picture, prepared[at], targets)
            steps = steps[1:]
        else:
            canvas.begin(picture, targets)
            if self._resizes:
                canvas.resize(self._size)
        for number, draw, apply in steps:
            draws.begin(epoch, sample, number, occurrence)
            apply(canvas, draw(draws, canvas.size))
        if canvas.size != self._size:  # which functions of the user's may change
            (height, width), (rows, columns) = self._size, canvas.size
            raise RenderError(
                f"`augment` made an image of {columns}x{rows} pixels, and `image_size` is {width}x"
                f"{height}: put Resize({height}, {width}) after the operation that changes it"
            )
        pixels, (across, down), table = canvas.finish()
        self._flips[0] = across + 2 * down
        self._kernel.one(pixels, None, self._flips, 0, row, table)


def begins_with_crop(spec: Spec) -> bool:
    """Whether the first operation takes a part as it is, which of an array is only a view."""
    return bool(spec.augment) and isinstance(spec.augment[0], CenterCrop | RandomCrop)


def _looked_up(pixels: Pixels, table: Pixels) -> Pixels:
    result = np.empty(pixels.shape, np.uint8)
    look_up(np.ascontiguousarray(pixels), table, result)
    return result


def _colors_changed(pixels: Pixels, change: ColorChange) -> Pixels:
    result = np.empty(pixels.shape, np.uint8)
    change_colors(np.ascontiguousarray(pixels), result, change)
    return result


KERNELS = Kernels(_looked_up, _colors_changed)


def steps_of(values: Sequence[ValueOperation], channels: int) -> list[Step]:
    """The arithmetic of operations on values, as the kernels take it."""
    return [
        (name, np.broadcast_to(np.array(numbers, np.float32), channels).copy())
        for operation in values
        for name, numbers in operation.steps()
    ]
