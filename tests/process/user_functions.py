"""Functions of a module, as users give them to ``preprocessing_function``."""

from __future__ import annotations

import os
import random
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def halve(image: Array) -> Array:
    return image / 2


def refuse(image: Array) -> Array:
    raise LookupError(f"no idea what to do with {image.shape}")


class Unknown(LookupError):
    """An exception of the user's own."""


def crop(image: Array) -> Array:
    return image[:5, :7]


def leave(image: Array) -> Array:
    raise SystemExit(3)


def crash(image: Array) -> Array:
    os.abort()


def add_noise(image: Array) -> Array:
    return image + np.random.normal(0, 9, image.shape) + random.random()


def name_of_the_process(image: Array) -> Array:
    """Every pixel tells in which process it was made."""
    return np.full_like(image, os.getpid())


class Brighter:
    """A callable with something to remember."""

    def __init__(self, by: float) -> None:
        self.by = by

    def __call__(self, image: Array) -> Array:
        return image + self.by

    def method(self, image: Array) -> Array:
        return image - self.by


def interrupt(image: Array) -> Array:
    raise KeyboardInterrupt


def complain_in_bytes(image: Array) -> Array:
    raise ValueError("\udcff")


def complain_at_length(image: Array) -> Array:
    raise ValueError("beginning" + "x" * 100_000 + "end")


def complain_twice(image: Array) -> Array:
    try:
        image[1000]
    except IndexError as error:
        raise ValueError("no such row") from error
    return image


RNG = np.random.default_rng(42)


def jitter(image: Array) -> Array:
    return np.full_like(image, RNG.random())


class Augmenter:
    """As augmentation libraries are made: parts that hold generators of their own."""

    def __init__(self) -> None:
        self.parts: list[dict[str, Any]] = [
            {"old": np.random.RandomState(1)},
            {"python": random.Random(2)},
        ]
        self.own = np.random.default_rng()

    def __call__(self, image: Array) -> Array:
        image[0], image[1] = self.parts[0]["old"].rand(), self.parts[1]["python"].random()
        image[2] = self.own.random()
        return image
