"""Decodes some pixels of random JPEGs, whole and damaged ones; also a program.

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
from PIL import Image

from tests.render.native.extension import load, try_examples

Array = NDArray[Any]

MODULE = "loaderd.render.native._jpeg"


class Example(NamedTuple):
    """The arguments of ``pick``."""

    data: Array
    rows: Array
    columns: Array
    is_usual: bool

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
    width, height = draw(st.integers(1, 90)), draw(st.integers(1, 90))
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
    )


def _places(length: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, length - 1), min_size=1, max_size=12)


def _damaged(data: bytes, draw: st.DrawFn) -> bytes:
    damaged = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        damaged[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(damaged[: draw(st.integers(1, len(data)))] if draw(st.booleans()) else damaged)


def check(pick: Any, example: Example) -> None:
    """Fails unless the picked pixels are simplejpeg's.

    Args:
        pick: the function.
        example: its arguments.
    """
    out = example.out
    is_done = pick(example.data, example.rows, example.columns, out)
    assert is_done or not example.is_usual, "an intact file is refused"
    if is_done:
        whole = simplejpeg.decode_jpeg(example.data, "RGB")
        wanted = whole[example.rows[:, np.newaxis], example.columns]
        assert out.tobytes() == wanted.tobytes(), "other pixels than those of the whole picture"


def main(count: int, path: str) -> None:
    """Runs so many examples with the extension of a file."""
    module = load(MODULE, path)
    try_examples(count, examples(), lambda example: check(module.pick, example))
    print(f"{count} examples: what is picked is what simplejpeg decodes")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
