"""The numbers of the recipes that ImageNet's classifiers are trained with, for all contestants.

``crop``: a random resized crop, a horizontal flip, and ImageNet's mean and standard deviation;
``randaugment``: the same, with RandAugment before the last.
"""

from __future__ import annotations

SCALE = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)
"""Of the crop: its area as a fraction of the picture's, and its width divided by its height."""

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Of red, green and blue from 0 to 1."""

NUM_OPS, MAGNITUDE, BINS = 2, 9, 31
"""Of RandAugment: operations for each image, and their strength, of so many from 0."""

STRENGTH = MAGNITUDE / (BINS - 1)
"""The strength as a fraction of the greatest."""


def in_bytes(numbers: tuple[float, ...]) -> list[float]:
    """Mean or standard deviation of values from 0 to 255."""
    return [255 * number for number in numbers]
