"""Small pictures of every kind, and the options that the tests share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[Any]

CHANNELS = {"rgb": 3, "rgba": 4, "grayscale": 1}
SIDE = 20

EVERYTHING: dict[str, Any] = {
    "featurewise_center": True,
    "samplewise_center": True,
    "featurewise_std_normalization": True,
    "samplewise_std_normalization": True,
    "zca_whitening": True,
    "rotation_range": 90.0,
    "width_shift_range": 0.1,
    "height_shift_range": 0.1,
    "shear_range": 0.5,
    "zoom_range": 0.2,
    "channel_shift_range": 0.0,
    "brightness_range": (1, 5),
    "fill_mode": "nearest",
    "cval": 0.5,
    "horizontal_flip": True,
    "vertical_flip": True,
    "interpolation_order": 1,
}
"""Every option of a generator at once."""


class Shelf(NamedTuple):
    """A folder of pictures, with their names as seen from it."""

    root: Path
    names: list[str]


def grains(color_mode: str, count: int = 8, seed: int = 0) -> Pixels:
    """Pictures of grain; each has a brightness and a contrast of its own in every pixel."""
    rng = np.random.default_rng(seed)
    floor = rng.uniform(0, 64, (count, SIDE, SIDE, 1))
    reach = rng.uniform(0, 255 - 64, (count, SIDE, SIDE, 1))
    noise = rng.random((count, SIDE, SIDE, CHANNELS[color_mode]))
    return (noise * reach + floor).astype(np.uint8)


def deep_greys(dtype: str, count: int = 8) -> Pixels:
    """Grey pictures with more than 8 bits to the pixel."""
    limits = np.iinfo(dtype)
    rng = np.random.default_rng(limits.bits)
    return rng.integers(limits.min, limits.max, (count, SIDE, SIDE), dtype=dtype)


def every_kind() -> list[Pixels]:
    """40 pictures: colour, colour with alpha, and grey of 8, 16 and 32 bits."""
    kinds = [grains("rgb"), grains("rgba"), grains("grayscale")]
    return [one for kind in [*kinds, deep_greys("uint16"), deep_greys("int32")] for one in kind]


def write(path: Path, pixels: Pixels) -> None:
    Image.fromarray(pixels.squeeze()).save(path)


def blackout(pixels: Pixels) -> Pixels:
    """A preprocessing function that takes nothing but a NumPy array of 26 x 26 in colour."""
    assert type(pixels) is np.ndarray
    assert pixels.shape == (26, 26, 3)
    return np.zeros_like(pixels)


def said_without(package: str, program: str) -> str:
    """What a program prints that uses our module where the package is not installed."""
    words = f"import sys; sys.modules['{package}'] = None; from loaderd_client import image"
    done = subprocess.run(
        [sys.executable, "-c", f"{words}\n{program}"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
