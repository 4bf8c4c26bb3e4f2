"""Decodes some pixels, and regions, of random JPEGs, whole and damaged ones; also a program.

::

    python -m tests.render.native.fuzz_jpeg [EXAMPLES] [PATH OF AN EXTENSION]

Every array ends with its allocation, so that a sanitizer finds a byte that is read or written
beyond it; what is decoded must be what simplejpeg decodes.
"""

from __future__ import annotations

import io
import sys
from typing import Any, NamedTuple

import numpy as np
import simplejpeg
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFile

from tests.render.native.extension import load, try_examples

Array = NDArray[Any]

ImageFile.MAXBLOCK = 1 << 20  # Pillow cannot write noise of high quality otherwise

MODULE = "loaderd.render.native._jpeg"
WIDE = 32
"""Columns from which regions are decoded."""


class Region(NamedTuple):
    """A part of a picture at 1/reduction of its size."""

    reduction: int
    left: int
    top: int
    width: int
    height: int
    channels: int


class Example(NamedTuple):
    """The arguments of ``pick``, and of ``crop``."""

    data: Array
    rows: Array
    columns: Array
    is_usual: bool
    region: Region

    @property
    def out(self) -> Array:
        """Where the pixels go."""
        return np.full((len(self.rows), len(self.columns), 3), 77, np.uint8)


def jpeg(size: tuple[int, int], mode: str, seed: int, **options: Any) -> bytes:
    """A picture of a size (width, height) with detail and edges."""
    rng = np.random.default_rng(seed)
    channels = len(Image.new(mode, (1, 1)).getbands())
    blocks = rng.integers(0, 256, (size[1] // 5 + 1, size[0] // 5 + 1, channels))
    pixels = blocks.repeat(5, axis=0).repeat(5, axis=1)[: size[1], : size[0]]
    noisy = np.clip(pixels + rng.normal(0, 12, pixels.shape), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy.squeeze(2) if channels == 1 else noisy, mode).save(
        file, "JPEG", **options
    )
    return file.getvalue()


@st.composite
def examples(draw: st.DrawFn) -> Example:
    """Small JPEGs of all samplings, some of them damaged, and places in them."""
    most = draw(st.sampled_from([90, 90, 400]))
    width, height = draw(st.integers(1, most)), draw(st.integers(1, most))
    mode, subsampling = draw(st.sampled_from(["RGB", "L"])), draw(st.integers(0, 2))
    data = jpeg(
        (width, height),
        mode,
        draw(st.integers(0, 99)),
        quality=draw(st.integers(5, 100)),
        subsampling=subsampling,
        optimize=draw(st.booleans()),
        restart_marker_blocks=draw(st.sampled_from([0, 0, 1, 7])),
    )
    # libjpeg does not interpolate chroma that is narrower.
    is_usual = width > 4 if mode == "RGB" else subsampling == 0
    if draw(st.booleans()):
        is_usual, data = False, _damaged(data, draw)
    return Example(
        np.frombuffer(data, np.uint8).copy(),
        np.array(draw(_places(height)), np.int32),
        np.array(draw(_places(width)), np.int32),
        is_usual,
        draw(_regions((width, height), mode)),
    )


@st.composite
def _regions(draw: st.DrawFn, size: tuple[int, int], mode: str) -> Region:
    reduction = draw(st.sampled_from([1, 2, 4, 8]))
    columns, rows = (-(-length // reduction) for length in size)
    left, top = draw(st.integers(0, columns - 1)), draw(st.integers(0, rows - 1))
    width, height = draw(st.integers(1, columns - left)), draw(st.integers(1, rows - top))
    return Region(reduction, left, top, width, height, 1 if mode == "L" else 4)


def _places(length: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, length - 1), min_size=1, max_size=12)


def _damaged(data: bytes, draw: st.DrawFn) -> bytes:
    damaged = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        damaged[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(damaged[: draw(st.integers(1, len(data)))] if draw(st.booleans()) else damaged)


def check(module: Any, example: Example) -> None:
    """Fails unless what is decoded is simplejpeg's.

    Args:
        module: has the functions.
        example: their arguments.
    """
    _check_places(module.pick, example)
    _check_region(module.crop, example)


def _check_places(pick: Any, example: Example) -> None:
    out = example.out
    is_done = pick(example.data, example.rows, example.columns, out)
    assert is_done or not example.is_usual, "an intact file is refused"
    if is_done:
        whole = simplejpeg.decode_jpeg(example.data, "RGB")
        wanted = whole[example.rows[:, np.newaxis], example.columns]
        assert out.tobytes() == wanted.tobytes(), "other pixels than those of the whole picture"


def _check_region(crop: Any, example: Example) -> None:
    reduction, left, top, width, height, channels = example.region
    out = np.full((height, width, channels), 77, np.uint8)
    is_done = crop(example.data, reduction, left, top, out)
    assert is_done or not example.is_usual or width < WIDE, "an intact file is refused"
    if not is_done:
        return
    try:
        whole = scaled(example.data, reduction, "GRAY" if channels == 1 else "RGB")
    except ValueError:
        assert not example.is_usual  # it is damaged below the region
        return
    wanted = whole[top : top + height, left : left + width]
    if example.is_usual:
        assert (out[..., :3] == wanted).all(), "other pixels than those of the whole picture"


def scaled(data: Any, reduction: int, colors: str) -> Array:
    """The whole picture at 1/reduction of its size, by simplejpeg."""
    height, width, *_ = simplejpeg.decode_jpeg_header(data)
    least = {"min_height": -(-height // reduction), "min_width": -(-width // reduction)}
    pixels: Array = simplejpeg.decode_jpeg(data, colors, **least if reduction > 1 else {})
    assert pixels.shape[:2] == (least["min_height"], least["min_width"])
    return pixels


def main(count: int, path: str) -> None:
    """Runs so many examples with the extension of a file."""
    module = load(MODULE, path)
    try_examples(count, examples(), lambda example: check(module, example))
    print(f"{count} examples: what is decoded is what simplejpeg decodes")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
