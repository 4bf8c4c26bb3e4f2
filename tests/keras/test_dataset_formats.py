"""``image_dataset_from_directory`` shows deep and odd pictures as TensorFlow decodes them."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from loaderd_client import Session, image_dataset_from_directory
from tests.corpus import pictures
from tests.support.daemons import Serve

SIDE = 32
random = np.random.default_rng(7)
COLOUR = random.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
ALPHA = random.integers(0, 256, (SIDE, SIDE), np.uint8)
DEEP = random.integers(0, 65536, (SIDE, SIDE, 4)).astype(np.uint16)
RGBA = np.dstack([COLOUR, ALPHA])
PALETTE = Image.fromarray(COLOUR).quantize(16)
Make = Callable[[], bytes]


def saved(image: Image.Image, form: str, **choices: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **choices)
    return file.getvalue()


def png(pixels: NDArray[Any], colour: int, *chunks: tuple[bytes, bytes]) -> bytes:
    data = pictures.png(pixels, colour)
    return data[:33] + b"".join(pictures._chunk(*chunk) for chunk in chunks) + data[33:]


ALL = ("rgb", "rgba", "grayscale")
FILES: dict[str, tuple[Make, tuple[str, ...]]] = {
    "grey16.png": (lambda: png(DEEP[..., :1], 0), ALL),
    "grey16-alpha.png": (lambda: png(DEEP[..., :2], 4), ALL),
    "grey16-interlaced.png": (lambda: pictures.png(DEEP[..., :1], 0, interlaced=True), ALL),
    "grey16-key.png": (lambda: png(DEEP[..., :1], 0, (b"tRNS", b"\0\x10")), ALL),
    "grey12.png": (lambda: png(DEEP[..., :1] >> 4, 0, (b"sBIT", b"\x0c")), ALL),
    "rgb16.png": (lambda: png(DEEP[..., :3], 2), ALL),
    "rgba16.png": (lambda: png(DEEP, 6), ALL),
    "grey.png": (lambda: png(COLOUR[..., :1], 0), ALL),
    "grey-key.png": (lambda: png(COLOUR[..., :1], 0, (b"tRNS", b"\0\x10")), ALL),
    "rgb.png": (lambda: png(COLOUR, 2), ALL),
    "rgba.png": (lambda: png(RGBA, 6), ALL),
    "gamma.png": (lambda: png(COLOUR, 2, (b"gAMA", struct.pack(">I", 45455))), ("rgb", "rgba")),
    "palette.png": (lambda: saved(PALETTE, "PNG"), ("rgb", "grayscale")),
    "palette-alpha.png": (lambda: saved(PALETTE, "PNG", transparency=bytes(range(16))), ALL),
    "two-bit.png": (lambda: saved(PALETTE.quantize(4), "PNG", bits=2), ("rgb", "grayscale")),
    "one-bit.png": (lambda: saved(Image.fromarray(ALPHA).convert("1"), "PNG"), ("rgb",)),
    "rgb.bmp": (lambda: saved(Image.fromarray(COLOUR), "BMP"), ("rgb", "rgba")),
    "rgba.bmp": (lambda: saved(Image.fromarray(RGBA), "BMP"), ("rgb", "rgba")),
    "grey.bmp": (lambda: saved(Image.fromarray(ALPHA), "BMP"), ("rgb", "rgba")),
    "palette.gif": (lambda: saved(PALETTE, "GIF"), ("rgb",)),
    "transparent.gif": (lambda: saved(PALETTE, "GIF", transparency=3), ("rgb",)),
    "frames.gif": (
        lambda: saved(PALETTE, "GIF", save_all=True, append_images=[PALETTE.rotate(90)]),
        ("rgb",),
    ),
    "webp-called.jpg": (lambda: saved(Image.fromarray(COLOUR), "WEBP", lossless=True), ("rgb",)),
}


@pytest.fixture
def session(serve: Serve) -> Iterator[Session]:
    with serve(workers=1) as daemon, Session(daemon.path) as session:
        yield session


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize("color_mode", ALL)
def test_deep_and_odd_pictures_are_kerass_with_and_without_a_cache(
    tmp_path: Path, color_mode: Any
) -> None:
    import keras

    (tmp_path / "a").mkdir()
    for name, (make, modes) in FILES.items():
        if color_mode in modes:
            (tmp_path / "a" / name).write_bytes(make())
    options: dict[str, Any] = {
        "color_mode": color_mode, "image_size": (SIDE, SIDE), "shuffle": False, "verbose": False,
        "label_mode": None,
    }  # fmt: skip
    theirs = keras.utils.image_dataset_from_directory(tmp_path, **options)
    names = [Path(path).name for path in theirs.file_paths]
    expected = next(iter(theirs)).numpy()
    for cache in ("none", "memory", "memory"):
        flow = image_dataset_from_directory(tmp_path, cache=cache, **options)
        worst = np.abs(np.asarray(flow[0]) - expected).max((1, 2, 3))
        assert {name: off for name, off in zip(names, worst, strict=True) if off > 1} == {}


@pytest.mark.usefixtures("session")
def test_the_generator_keeps_pils_way(tmp_path: Path) -> None:
    from loaderd_client import ImageDataGenerator

    (tmp_path / "a").mkdir()
    (tmp_path / "a/grey16.png").write_bytes(png(DEEP[..., :1], 0))
    flow = ImageDataGenerator().flow_from_directory(
        tmp_path, target_size=(SIDE, SIDE), class_mode=None, color_mode="grayscale"
    )
    np.testing.assert_array_equal(np.asarray(flow[0])[0], DEEP[..., :1])
