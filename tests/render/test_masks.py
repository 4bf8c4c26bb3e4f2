"""Masks keep their integers, whatever the file's depth; and nothing else is taken for a mask."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from loaderd.errors import BadImage
from loaderd.render.load.masks import MaskDecoder
from loaderd.render.load.pixel_limits import DEFAULT, PixelLimit
from loaderd.render.load.shapes import draw_polygons, draw_runs
from loaderd.spec.load import Load

NUMBERS = np.arange(24, dtype=np.uint8).reshape(4, 6)
GREY, PALETTE = 0, 3


def decoded(data: bytes, limit: PixelLimit = DEFAULT) -> Any:
    return MaskDecoder(Load(target_size=(8, 8)), limit).decode(memoryview(data), "m.png")


def chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def png(numbers: Any, depth: int, kind: int) -> bytes:
    """PIL writes no grey PNG of few bits."""
    height, width = numbers.shape
    rows = b""
    for row in numbers.tolist():
        bits = "".join(format(number, f"0{depth}b") for number in row)
        bits += "0" * (-len(bits) % 8)
        rows += b"\0" + bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8))
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    palette = chunk(b"PLTE", bytes(range(3 * 2**depth))) if kind == PALETTE else b""
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + palette
    return start + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def saved(picture: Image.Image, form: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("depth", "kind"), [(1, 0), (2, 0), (4, 0), (8, 0), (1, 3), (2, 3), (4, 3)]
)
def test_numbers_of_few_bits_are_kept(depth: int, kind: int) -> None:
    numbers = NUMBERS & (2**depth - 1)
    np.testing.assert_array_equal(decoded(png(numbers, depth, kind)), numbers)


@pytest.mark.parametrize("form", ["PNG", "BMP", "GIF", "TIFF"])
def test_formats_without_loss_are_taken(form: str) -> None:
    picture = Image.fromarray(NUMBERS)
    np.testing.assert_array_equal(decoded(saved(picture, form)), NUMBERS)
    picture.putpalette([255 - number for number in range(256) for _ in range(3)])
    np.testing.assert_array_equal(decoded(saved(picture, form)), NUMBERS)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (saved(Image.fromarray(NUMBERS), "JPEG"), "a mask must be a PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "a mask must be a PNG"),
        (saved(Image.new("RGB", (3, 3)), "PNG"), "one number from 0 to 255"),
        (saved(Image.new("LA", (3, 3)), "PNG"), "one number from 0 to 255"),
        (saved(Image.fromarray(NUMBERS.astype(np.uint16)), "PNG"), "one number from 0 to 255"),
        (saved(Image.fromarray(NUMBERS.astype(np.float32)), "TIFF"), "one number from 0 to 255"),
        (b"", "a mask must be a PNG"),
    ],
)
def test_anything_else_is_a_bad_image(data: bytes, says: str) -> None:
    with pytest.raises(BadImage, match=says) as caught:
        decoded(data)
    assert str(caught.value).startswith("m.png: ")


def test_switches_that_another_stream_has_left_change_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = saved(Image.fromarray(np.resize(NUMBERS, (200, 200))), "PNG")
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)
    assert decoded(data).shape == (200, 200)
    with pytest.raises(BadImage):
        decoded(data[: len(data) // 2])
    with pytest.raises(BadImage, match="200x200 pixels"):
        decoded(data, PixelLimit(39_999, "--max-pixels"))


def test_polygons_and_runs_are_drawn() -> None:
    mask = np.zeros((6, 8), np.uint8)
    draw_polygons(mask, [np.array([[1, 1], [5, 1], [5, 4], [1, 4]], np.float32)], 3)
    assert (mask[1:4, 1:5] == 3).all()
    assert not mask[5:].any()
    assert not mask[:, 6:].any()
    draw_runs(mask, np.array([6, 2, 40]), 7)  # the first two of the second column
    assert mask[:2, 1].tolist() == [7, 7]
    assert (mask == 7).sum() == 2
    draw_polygons(mask, [np.array([[-1e30, 0], [np.float32(1e30), 0], [3, 1e9]], np.float32)], 1)
    for lengths in ([6, 2], [49], [-1, 49], [2**62, 2**62]):
        with pytest.raises(ValueError, match="runs of"):
            draw_runs(mask, np.array(lengths), 1)
