"""The recipe ``crop`` for one picture, by PIL and NumPy, for loaders without transforms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from PIL import Image

from scripts.benchmarks.peers import recipe

_TRIES = 10
"""As torchvision's ``RandomResizedCrop``, which takes the middle after so many."""


def cropped(path: str, size: tuple[int, int], rng: np.random.Generator) -> Any:
    """A finished picture, float32 (height, width, 3)."""
    with open(path, "rb") as file:
        picture = Image.open(file).convert("RGB")
    height, width = size
    picture = picture.resize((width, height), Image.Resampling.BILINEAR, box=_box(picture, rng))
    if rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    values = np.asarray(picture).astype(np.float32)
    values -= np.array(recipe.in_bytes(recipe.MEAN), np.float32)
    values /= np.array(recipe.in_bytes(recipe.STD), np.float32)
    return values


def _box(picture: Image.Image, rng: np.random.Generator) -> tuple[float, float, float, float]:
    low, high = map(math.log, recipe.RATIO)
    for _ in range(_TRIES):
        area = picture.width * picture.height * rng.uniform(*recipe.SCALE)
        ratio = math.exp(rng.uniform(low, high))
        width, height = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if width <= picture.width and height <= picture.height:
            left = rng.uniform(0, picture.width - width)
            top = rng.uniform(0, picture.height - height)
            return left, top, left + width, top + height
    return 0.0, 0.0, float(picture.width), float(picture.height)
