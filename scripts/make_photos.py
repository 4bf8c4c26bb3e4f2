"""Makes a folder of photo-like JPEG files in classes, to try a loader and a network on.

An image has what makes a photograph slow to decode: noise of all scales (its power falls
with frequency as in nature), shading and colour. Its class shows in the colour, the number
of corners and the stripes of a few objects before a background that says nothing about the
class, so that a small network can learn it whichever way the image is turned.

Every file depends on the seed, its class and its number only. Files are written whole or
not at all; a second run makes only those that are missing.
"""

from __future__ import annotations

import argparse
import colorsys
import json
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from rich.progress import track

Pixels = npt.NDArray[np.float32]

MARKER = ".make-photos.json"  # says that the folder is ours, and what is in it
QUALITY = 90
SLOPE = 0.36  # with this quality, 50 KB for 500x375 pixels
EXAMPLES = """examples:
  scripts/make-photos photos                        4 classes of 400 images each
  scripts/make-photos photos --images 20 --jobs 1   a small set, on one core
  scripts/make-photos photos --classes 10 --size 1000x750 --seed 7
"""


@dataclass(frozen=True)
class Recipe:
    """What decides the bytes of every image, besides its class and its number."""

    classes: int
    size: tuple[int, int]
    seed: int


@dataclass(frozen=True)
class Photo:
    """One image that is still to be made."""

    recipe: Recipe
    label: int
    number: int
    path: Path


# ---- the image ----------------------------------------------------------------------


def image(photo: Photo) -> npt.NDArray[np.uint8]:
    """Paints one image.

    Returns:
        uint8 of shape (height, width, 3), in OpenCV's order blue, green, red.
    """
    rng = np.random.default_rng([photo.recipe.seed, photo.label, photo.number])
    width, height = photo.recipe.size
    scene = _tinted(_any_color(rng), _natural_noise(rng, height, width))
    grain = _natural_noise(rng, height, width)
    for _ in range(rng.integers(2, 5)):
        _add_object(rng, photo, scene, grain)
    scene *= 1 + 0.25 * _slope(rng, height, width)[..., None]
    scene += 2 * rng.standard_normal((height, width, 1), np.float32)  # the sensor's noise
    return np.clip(scene, 0, 255).astype(np.uint8)


def _add_object(rng: np.random.Generator, photo: Photo, scene: Pixels, grain: Pixels) -> None:
    corners = _polygon(rng, photo)
    box = _box(corners, photo.recipe.size)
    mask = _mask(corners, box)
    light = grain[box] + _stripes(rng, photo, *mask.shape)
    body = _tinted(_class_color(rng, photo), light)
    scene[box] += mask[..., None] * (body - scene[box])


def _tinted(color: Pixels, light: Pixels) -> Pixels:
    """A surface of one colour, of shape (height, width, 3), under uneven light."""
    return np.asarray(color * (1 + np.float32(0.25) * light[..., None]), np.float32)


def _natural_noise(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """Noise whose amplitude grows with its scale, as in photographs; deviation 1."""
    noise = np.zeros((height, width), np.float32)
    grain = 1
    while grain < max(height, width):
        grid = rng.standard_normal((height // grain + 2, width // grain + 2), np.float32)
        grid *= np.float32(grain**SLOPE)
        noise += cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)
        grain *= 2
    return np.asarray(noise / np.std(noise), np.float32)


def _any_color(rng: np.random.Generator) -> Pixels:
    return rng.uniform(60, 190, 3).astype(np.float32)


def _class_color(rng: np.random.Generator, photo: Photo) -> Pixels:
    hue = (photo.label + rng.normal(0, 0.12)) / photo.recipe.classes
    red_green_blue = colorsys.hsv_to_rgb(hue % 1, rng.uniform(0.45, 0.9), rng.uniform(0.5, 0.9))
    return np.array(red_green_blue[::-1], np.float32) * 255


def _stripes(rng: np.random.Generator, photo: Photo, height: int, width: int) -> Pixels:
    """Waves from -1 to 1; the class decides their length, chance their direction."""
    length = 0.04 * photo.recipe.size[0] * 1.5 ** (photo.label % 4)
    angle, start = rng.uniform(0, 2 * np.pi, 2)
    phase = _plane(height, width, angle) * np.float32(2 * np.pi / length)
    return np.asarray(np.sin(phase + np.float32(start)), np.float32)


def _slope(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """Light from one side: a plane through about -1 and 1."""
    plane = _plane(height, width, rng.uniform(0, 2 * np.pi))
    return np.asarray((plane - plane.mean()) / (max(height, width) / 2), np.float32)


def _plane(height: int, width: int, angle: float) -> Pixels:
    """The distance of each pixel from a line through the first one."""
    across = np.arange(width, dtype=np.float32) * np.float32(np.cos(angle))
    down = np.arange(height, dtype=np.float32) * np.float32(np.sin(angle))
    return np.asarray(np.add.outer(down, across), np.float32)


def _polygon(rng: np.random.Generator, photo: Photo) -> Pixels:
    """Corners (x, y) of a regular polygon; the class decides how many."""
    corners = 3 + photo.label
    size = np.array(photo.recipe.size)
    radius = rng.uniform(0.2, 0.4) * size.min()
    center = rng.uniform(0.2, 0.8, 2) * size
    angles = rng.uniform(0, 2 * np.pi) + np.arange(corners) * 2 * np.pi / corners
    points = center + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.asarray(points, np.float32)


def _box(corners: Pixels, size: tuple[int, int]) -> tuple[slice, slice]:
    """The rows and columns of the image that a polygon touches."""
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    rows = slice(max(0, int(top)), min(size[1], int(bottom) + 2))
    columns = slice(max(0, int(left)), min(size[0], int(right) + 2))
    return rows, columns


def _mask(corners: Pixels, box: tuple[slice, slice]) -> Pixels:
    """What a polygon covers of its box, from 0 to 1, with soft edges."""
    rows, columns = box
    mask = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.uint8)
    points = np.round((corners - (columns.start, rows.start)) * 16).astype(np.int32)
    cv2.fillPoly(mask, [points], 255, cv2.LINE_AA, shift=4)
    return np.asarray(mask, np.float32) / np.float32(255)


# ---- the files ------------------------------------------------------------------------


def make(photo: Photo) -> None:
    """Paints one image and writes it, whole or not at all."""
    ok, data = cv2.imencode(".jpg", image(photo), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not ok:
        raise OSError(f"OpenCV could not encode {photo.path}")
    unfinished = photo.path.with_suffix(".unfinished")
    unfinished.write_bytes(data.tobytes())
    unfinished.replace(photo.path)


def claim(folder: Path, recipe: Recipe) -> None:
    """Makes the folder ours; ends the program if it holds anything else."""
    marker = folder / MARKER
    text = json.dumps(asdict(recipe))
    if marker.exists() and marker.read_text() != text:
        sys.exit(f"make-photos: {folder} was made with {marker.read_text()}: use another folder")
    if not marker.exists() and folder.exists() and any(folder.iterdir()):
        sys.exit(f"make-photos: {folder} is not empty and not from make-photos: use another folder")
    folder.mkdir(parents=True, exist_ok=True)
    marker.write_text(text)


def missing(folder: Path, recipe: Recipe, images: int) -> Iterator[Photo]:
    """Yields the images that are not there yet, and makes the class folders."""
    for label in range(recipe.classes):
        inside = folder / f"class_{label:02}"
        inside.mkdir(exist_ok=True)
        present = set(os.listdir(inside))
        for number in range(images):
            name = f"{number:04}.jpg"
            if name not in present:
                yield Photo(recipe, label, number, inside / name)


def make_all(photos: list[Photo], jobs: int) -> None:
    """Makes them in so many processes, under a progress bar."""
    with ProcessPoolExecutor(jobs, initializer=_start_worker) as pool:
        try:
            done = pool.map(make, photos, chunksize=4)
            for _ in track(done, "making images", total=len(photos)):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends them
    cv2.setNumThreads(1)


# ---- the command ----------------------------------------------------------------------


def _size(text: str) -> tuple[int, int]:
    try:
        width, height = map(int, text.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT, as 500x375") from None
    if min(width, height) < 16:
        raise argparse.ArgumentTypeError("an image has at least 16x16 pixels")
    return width, height


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        "make-photos",
        description="Makes DIR/class_NN/NNNN.jpg: photo-like images of about 50 KB each at\n"
        "500x375, which a small network can tell apart. Makes only those that are missing.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cores = len(os.sched_getaffinity(0))
    option: Any = parser.add_argument
    option("folder", metavar="DIR", type=Path, help="new, empty, or made by make-photos before")
    option("--classes", type=_count, default=4, metavar="N", help="number of classes (4)")
    option("--images", type=_count, default=400, metavar="N", help="images per class (400)")
    option("--size", type=_size, default=(500, 375), metavar="WxH", help="pixels (500x375)")
    option("--seed", type=_seed, default=0, metavar="N", help="of all randomness (0)")
    option("--jobs", type=_count, default=cores, metavar="N", help=f"processes ({cores})")
    return parser.parse_args(arguments)


def main() -> None:
    """Runs the command."""
    args = parse(sys.argv[1:])
    recipe = Recipe(args.classes, args.size, args.seed)
    try:
        claim(args.folder, recipe)
        photos = list(missing(args.folder, recipe, args.images))
        if photos:
            make_all(photos, args.jobs)
    except KeyboardInterrupt:
        sys.exit("make-photos: interrupted: the same command makes the rest")
    except (OSError, BrokenProcessPool) as error:
        sys.exit(f"make-photos: {error}")
    print(f"{args.folder}: {recipe.classes} classes of {args.images} images")


if __name__ == "__main__":
    main()
