"""Functions of a module, as users give them to ``A.Function``."""

from __future__ import annotations

import os
import random
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

HELD = np.random.default_rng(5)

seen: list[Any] = []


def remember(image: Array) -> Array:
    seen[:] = [image[-1, -1].copy()]
    return image


def invert(image: Array) -> Array:
    return 255 - image


class Inverter:
    """A callable with something to remember."""

    def __init__(self) -> None:
        self.most = 255

    def __call__(self, image: Array) -> Array:
        return self.most - image


def refuse(image: Array) -> Array:
    raise LookupError(f"no idea what to do with {image.shape}")


def add_noise(image: Array, rng: np.random.Generator) -> Array:
    noise = rng.integers(-40, 40, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def draw_from_all(image: Array, rng: np.random.Generator) -> Array:
    """The first pixels show what each generator draws."""
    image[0, :4, 0] = np.random.randint(256), random.randrange(256), HELD.integers(256), 0
    image[0, 3, 0] = rng.integers(256)
    return image


def crash_if_bright(image: Array) -> Array:
    if image.min() == 255:
        os.abort()
    return image


def crop_and_mirror(
    image: Array,
    segmentation_masks: Array,
    bounding_boxes: dict[str, Array],
    keypoints: Array,
    rng: np.random.Generator,
) -> tuple[Array, Array, dict[str, Array], Array]:
    """Cuts a random number of columns off the left, and mirrors the rest."""
    width = image.shape[1]
    left = int(rng.integers(0, 20))
    boxes = bounding_boxes["boxes"]  # xywh
    right = np.clip(boxes[:, 0] + boxes[:, 2], left, width)
    start = np.clip(boxes[:, 0], left, width)
    boxes[:, 0], boxes[:, 2] = width - right, right - start
    keypoints[..., 0] = width - keypoints[..., 0]
    keypoints[..., 2][keypoints[..., 0] > width - left] = 0
    labels = bounding_boxes["labels"] + 10
    return (
        image[:, left:][:, ::-1],
        segmentation_masks[:, left:][:, ::-1],
        {"boxes": boxes, "labels": labels},
        keypoints,
    )
