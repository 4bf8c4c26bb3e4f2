"""Calls of the user's functions in a list of operations, and the checks of what they return."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from loaderd.augment.boxes import clipped_to, from_corners, to_corners
from loaderd.augment.function import DrawnCall, FunctionCall
from loaderd.augment.pixels import Pixels
from loaderd.augment.targets import Targets, with_places
from loaderd.augment.warps import Size
from loaderd.errors import RenderError
from loaderd.render.transforms.operation import Array
from loaderd.render.transforms.user_function import UserFunctions, explain
from loaderd.spec.annotations import Annotations
from loaderd.spec.operations import UserCode


class FunctionCalls:
    """Calls the functions of a list, and checks what they return.

    Args:
        code: what the spec says of them.
        loaded: the functions.
        annotations: of the dataset; None without.
    """

    def __init__(
        self, code: UserCode, loaded: UserFunctions, annotations: Annotations | None
    ) -> None:
        self._code = code
        self._loaded = loaded
        self._annotations = Annotations() if annotations is None else annotations

    def __call__(self, drawn: DrawnCall, image: Pixels, targets: Targets) -> tuple[Pixels, Targets]:
        """See ``canvas.Caller``; to be called within ``import_scope``.

        Raises:
            RenderError: the function raised, or returned something else.
        """
        call, (height, width, channels) = drawn.call, image.shape
        size, seen = (height, width), _with_area(targets) if call.targets else targets
        returned = self._returned(drawn, image, self._given(call, seen, size))
        try:
            parts = _parts(returned, call)
            changed = _image(parts.pop("image"), channels)
            self._check_size(call, size, changed.shape[:2])
            for name, part in parts.items():
                seen = self._replaced(seen, name, part, changed.shape[:2])
        except _WrongResult as wrong:
            name = self._code.functions[call.number].name
            raise RenderError(f"{self._code.given_as} {name} returned {wrong}") from None
        return changed, seen

    def _returned(self, drawn: DrawnCall, image: Pixels, given: dict[str, Any]) -> Any:
        call, seeds = drawn
        if call.takes_rng:
            given["rng"] = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seeds)))
        self._loaded.seed_call(seeds)
        try:
            return self._loaded.functions[call.number](image, **given)
        except BaseException as error:  # the user's function may raise anything
            raise RenderError.of(error, explain(error)) from error

    def _given(self, call: FunctionCall, targets: Targets, size: Size) -> dict[str, Any]:
        """The targets that it takes, as in a batch; it may change them."""
        given: dict[str, Any] = {}
        if "segmentation_masks" in call.targets:
            given["segmentation_masks"] = targets.masks[0][..., np.newaxis].copy()
        if "bounding_boxes" in call.targets:
            boxes = from_corners(targets.boxes, self._annotations.box_format, size)
            given["bounding_boxes"] = {
                "boxes": boxes.astype(np.float32),
                "labels": targets.labels.copy(),
            }
        if "keypoints" in call.targets:
            given["keypoints"] = targets.keypoints.astype(np.float32)
        return given

    def _check_size(self, call: FunctionCall, before: Size, after: Size) -> None:
        if before == after:
            return
        lacking = [name for name in self._annotations.targets if name not in call.targets]
        if lacking:
            names = ", ".join(lacking)
            why = f"{names} would not fit it: take and return {names} as well, or keep the size"
        elif call.in_group:
            why = "within RandomApply and RandomChoice it must keep the size"
        else:
            return
        raise _WrongResult(f"an image of {_shown(after)} for one of {_shown(before)}, and {why}")

    def _replaced(self, targets: Targets, name: str, part: Any, size: Size) -> Targets:
        """The targets with one that was returned; ``size`` is that of the returned image."""
        match name:
            case "segmentation_masks":
                return targets._replace(masks=(_mask(part, size),))
            case "bounding_boxes":
                if not isinstance(part, dict) or part.keys() != {"boxes", "labels"}:
                    raise _WrongResult(
                        "no dictionary of `boxes` and `labels` in the place of bounding_boxes"
                    )
                boxes = _numbers(part["boxes"], targets.boxes.shape, "boxes")
                boxes = to_corners(boxes, self._annotations.box_format, size)
                labels = _labels(part["labels"], len(boxes))
                return targets._replace(boxes=_within(boxes, size), labels=labels)
        points = _numbers(part, targets.keypoints.shape, "keypoints")
        return targets._replace(keypoints=with_places(points, points[..., :2], size))


class _WrongResult(Exception):
    """What a function must not return."""


def _with_area(targets: Targets) -> Targets:
    """The targets without the instances whose boxes are gone."""
    if not len(targets.boxes):
        return targets
    left, top, right, bottom = targets.boxes.T
    seen = (right > left) & (bottom > top)
    points = targets.keypoints
    return targets._replace(
        boxes=targets.boxes[seen],
        visibility=targets.visibility[seen],
        labels=targets.labels[seen],
        keypoints=points[seen] if len(points) else points,
    )


def _parts(returned: Any, call: FunctionCall) -> dict[str, Any]:
    """What was returned, by name."""
    names = ("image", *call.targets)
    if not call.targets:
        return {"image": returned}
    if not isinstance(returned, tuple | list) or len(returned) != len(names):
        kind = type(returned).__name__
        raise _WrongResult(f"{kind} in the place of a tuple of {', '.join(names)}")
    return dict(zip(names, returned, strict=True))


def _array(value: Any, what: str) -> Array:
    try:
        array = np.asarray(value)
    except Exception:  # objects of the user's may raise anything
        array = None
    if array is None or array.dtype.hasobject:
        raise _WrongResult(f"{type(value).__name__} in the place of {what}")
    return array


def _image(value: Any, channels: int) -> Pixels:
    image = _array(value, "an image")
    if image.dtype != np.uint8:
        raise _WrongResult(
            f"an image of {image.dtype}, not uint8: round and clip its values to 0 to 255, and "
            "leave scales to Rescaling or Normalization"
        )
    if image.ndim != 3 or image.shape[2] != channels or not image.size:
        raise _WrongResult(
            f"an image of shape {image.shape}, not (height, width, {channels}), as it got"
        )
    return np.ascontiguousarray(image)


def _mask(value: Any, size: Size) -> Array:
    mask = _array(value, "segmentation_masks")
    if mask.dtype != np.uint8 or mask.shape not in (size, (*size, 1)):
        raise _WrongResult(
            f"segmentation_masks of {mask.dtype} and shape {mask.shape}, not uint8 and "
            f"{(*size, 1)}, as its image has"
        )
    return np.ascontiguousarray(mask.reshape(size))


def _numbers(value: Any, shape: tuple[int, ...], what: str) -> Array:
    array = _array(value, what)
    if not array.size and not prod(shape):
        return np.empty(shape)  # a list of nothing has another shape
    if array.dtype.kind not in "iuf" or array.shape != shape:
        raise _WrongResult(f"{what} of {array.dtype} and shape {array.shape}, not {shape}")
    if not np.isfinite(array).all():
        raise _WrongResult(f"{what} that are not finite")
    return array.astype(np.float64)


def _labels(value: Any, count: int) -> Array:
    labels = _array(value, "labels")
    if not labels.size and not count:
        return np.empty(0, np.int32)
    if labels.dtype.kind not in "iu" or labels.shape != (count,):
        raise _WrongResult(
            f"labels of {labels.dtype} and shape {labels.shape}, not int32 and {(count,)}"
        )
    if not 0 <= labels.min() <= labels.max() < 2**31:
        raise _WrongResult("labels that are not from 0 to 2**31 - 1")
    return labels.astype(np.int32)


def _within(boxes: Array, size: Size) -> Array:
    """The boxes, clipped by up to a pixel, as of rounded numbers."""
    height, width = size
    clipped, wrong = clipped_to(boxes, size)
    for number in wrong:
        raise _WrongResult(
            f"box {number} from {tuple(boxes[number, :2].tolist())} to "
            f"{tuple(boxes[number, 2:].tolist())}, which is not within its image of {width}x"
            f"{height} pixels: clip it; a box without area is left out"
        )
    return clipped


def _shown(size: Size) -> str:
    return f"{size[1]}x{size[0]} pixels"
