"""Thirteen small pictures of three classes, in every format and mode that matters."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[Any]

CLASSES = ("cat", "dog", "emu")

Save = Callable[[Image.Image, Path], None]


def _as(mode: str, **options: Any) -> Save:
    return lambda image, path: image.convert(mode).save(path, **options)


def _with_alpha(image: Image.Image, path: Path) -> None:
    width, height = image.size
    image.putalpha(Image.fromarray(pattern(height, width, 1, seed=99)[:, :, 0]))
    image.save(path)


def _sixteen_bits(image: Image.Image, path: Path) -> None:
    grey = np.asarray(image.convert("L")).astype(np.uint16)
    Image.fromarray(grey * 257 - grey % 7).save(path)


FILES: dict[str, tuple[tuple[int, int], Save]] = {  # (width, height)
    "cat/a.jpg": ((40, 30), _as("RGB", quality=85)),
    "cat/b.jpeg": ((21, 33), _as("RGB", progressive=True)),
    "cat/c.png": ((17, 23), _as("P")),
    "cat/d.png": ((25, 14), _with_alpha),
    "cat/inside/e.bmp": ((12, 9), _as("RGB")),
    "dog/a.JPG": ((31, 22), _as("CMYK")),
    "dog/b.png": ((20, 20), _sixteen_bits),
    "dog/c.png": ((15, 27), _as("L")),
    "dog/d.tif": ((19, 13), _as("RGB")),
    "emu/a.jpg": ((28, 18), _as("L")),
    "emu/b.png": ((24, 16), _as("1")),
    "emu/c.ppm": ((10, 35), _as("RGB")),
    "emu/d.tiff": ((5, 5), _as("RGB")),
}


def pattern(height: int, width: int, channels: int, seed: int) -> Pixels:
    """Bytes with slopes, grain, and some pure black and white."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    slopes = rng.normal(0, 8, (2, channels))
    light = rows[..., None] * slopes[0] + columns[..., None] * slopes[1]
    light = light + rng.integers(40, 216, channels) + rng.normal(0, 25, (height, width, channels))
    pixels: Pixels = np.clip(light, 0, 255).astype(np.uint8)
    return pixels


def write_corpus(root: Path) -> Path:
    """Writes the pictures below ``root/pictures``, and a linked folder beside it."""
    pictures = root / "pictures"
    for number, (name, ((width, height), save)) in enumerate(FILES.items()):
        path = pictures / name
        path.parent.mkdir(parents=True, exist_ok=True)
        save(Image.fromarray(pattern(height, width, 3, number)), path)
    (pictures / "dog" / "notes.txt").write_text("no picture")
    (root / "elsewhere").mkdir()
    Image.fromarray(pattern(11, 8, 3, 50)).save(root / "elsewhere" / "linked.png")
    (pictures / "emu" / "more").symlink_to(root / "elsewhere")
    return pictures


def table(pictures: Path) -> Any:
    """A DataFrame with a row for each picture, and two rows that name none."""
    names = [*FILES, "dog/notes.txt", "dog/missing.png"]
    count = len(names)
    classes = [name.partition("/")[0] for name in names]
    rng = np.random.default_rng(7)
    data = {
        "file": names,
        "path": [str(pictures / name) for name in names],
        "class": classes,
        "tags": [_tags(index, name) for index, name in enumerate(classes)],
        "weight": rng.random(count),
        "stars": rng.integers(1, 6, count),
        "score": rng.random(count).astype(np.float32),
        "place": [[float(index), 0.5 * index] for index in range(count)],
    }
    return importlib.import_module("pandas").DataFrame(data)


def _tags(index: int, name: str) -> str | list[str] | tuple[str, ...]:
    tags: list[str | list[str] | tuple[str, ...]] = [name, [name, "wild"], ("tame", name)]
    return tags[index % 3]
