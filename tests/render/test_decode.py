"""Every kind of file gives the pixels that Keras gives, or one clear error."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, features

from loaderd.errors import BadImage
from loaderd.render.load.decode import Decoder
from loaderd.spec.base import ColorMode, Interpolation
from loaderd.spec.load import Load
from loaderd.spec.transform import Transform
from scripts.benchmarks.file_renderer import FileRenderer
from tests.support.specs import rendering

Pixels = NDArray[Any]
Pipe = Callable[..., Pixels]

COLOR_MODES: list[ColorMode] = ["rgb", "rgba", "grayscale"]
SIZE = (37, 53)


def coloured() -> Image.Image:
    rng = np.random.default_rng(1)
    return Image.fromarray(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8))


def translucent() -> Image.Image:
    rng = np.random.default_rng(2)
    return Image.fromarray(rng.integers(0, 256, (*SIZE, 4), dtype=np.uint8))


def deep(dtype: str = "uint16", top: int = 65536) -> Image.Image:
    rng = np.random.default_rng(3)
    return Image.fromarray(rng.integers(0, top, SIZE).astype(dtype))


FILES: dict[str, Callable[[str], None]] = {
    "baseline.jpg": lambda p: coloured().save(p, quality=90),
    "progressive.jpg": lambda p: coloured().save(p, progressive=True),
    "unsubsampled.jpg": lambda p: coloured().save(p, subsampling=0),
    "subsampled-wide.jpg": lambda p: coloured().save(p, subsampling=1),
    "grey.jpg": lambda p: coloured().convert("L").save(p),
    "cmyk.jpg": lambda p: coloured().convert("CMYK").save(p),
    "stored-as-rgb.jpg": lambda p: coloured().save(p, keep_rgb=True),
    "rotated-by-exif.jpg": lambda p: save_rotated(p),
    "rgb.png": lambda p: coloured().save(p),
    "alpha.png": lambda p: translucent().save(p),
    "palette.png": lambda p: coloured().quantize(16).save(p),
    "palette-transparent.png": lambda p: coloured().quantize(16).save(p, transparency=bytes(16)),
    "grey.png": lambda p: coloured().convert("L").save(p),
    "grey-alpha.png": lambda p: translucent().convert("LA").save(p),
    "one-bit.png": lambda p: coloured().convert("1").save(p),
    "deep.png": lambda p: deep().save(p),
    "rgb.bmp": lambda p: coloured().save(p),
    "rgb.ppm": lambda p: coloured().save(p),
    "grey.ppm": lambda p: coloured().convert("L").save(p),
    "rgb.tif": lambda p: coloured().save(p),
    "deep.tiff": lambda p: deep().save(p),
    "deeper.tiff": lambda p: deep("int32", 100000).save(p),
    "float.tiff": lambda p: deep("float32", 255).save(p),
    "palette.gif": lambda p: coloured().quantize(16).save(p),
    "png-called.jpg": lambda p: coloured().save(p, format="PNG"),
    "jpeg-called.png": lambda p: coloured().save(p, format="JPEG"),
}


def save_rotated(path: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    coloured().save(path, exif=exif)


if features.check("libtiff"):  # a pillow-simd built without it has plain TIFF only
    FILES["compressed.tiff"] = lambda p: coloured().save(p, compression="tiff_lzw")


@pytest.mark.filterwarnings("ignore:Palette images")  # from Keras's side
@pytest.mark.parametrize("color_mode", COLOR_MODES)
@pytest.mark.parametrize("name", FILES)
def test_a_file_gives_the_same_pixels_as_in_keras(
    name: str, color_mode: ColorMode, tmp_path: Path, ours: Pipe, keras_pixels: Pipe
) -> None:
    path = tmp_path / name
    FILES[name](str(path))
    filters: list[Interpolation] = ["nearest", "bilinear"]
    for target, interpolation in [(SIZE, "nearest"), *(((20, 31), name) for name in filters)]:
        pipeline = rendering(target_size=target, color_mode=color_mode, interpolation=interpolation)
        try:
            expected = keras_pixels(path, pipeline)
        except ValueError:  # Keras cannot resize it either
            with pytest.raises(BadImage):
                ours(path, pipeline)
            continue
        np.testing.assert_array_equal(ours(path, pipeline), expected)


def test_sixteen_bit_grey_keeps_its_values(tmp_path: Path, ours: Pipe) -> None:
    deep().save(tmp_path / "deep.png")
    pixels = ours(tmp_path / "deep.png", rendering(target_size=SIZE, color_mode="grayscale"))
    np.testing.assert_array_equal(pixels[:, :, 0], np.asarray(deep()))


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 80),
    width=st.integers(1, 80),
    quality=st.integers(1, 100),
    subsampling=st.sampled_from([0, 1, 2]),
    progressive=st.booleans(),
    color_mode=st.sampled_from(COLOR_MODES),
)
def test_a_jpeg_of_any_size_and_quality_gives_the_pixels_of_pil(
    folder: Path,
    noisy: Callable[[int, int], Image.Image],
    ours: Pipe,
    height: int,
    width: int,
    quality: int,
    subsampling: int,
    progressive: bool,
    color_mode: ColorMode,
) -> None:
    path = folder / "any.jpg"
    noisy(height, width).save(
        path, quality=quality, subsampling=subsampling, progressive=progressive
    )
    mode = {"rgb": "RGB", "rgba": "RGBA", "grayscale": "L"}[color_mode]
    expected = np.asarray(Image.open(path).convert(mode)).reshape(height, width, -1)
    pipeline = rendering(target_size=(height, width), color_mode=color_mode)
    np.testing.assert_array_equal(ours(path, pipeline), expected)


def test_a_jpeg_with_garbage_after_its_end_is_read_as_in_keras(
    tmp_path: Path, ours: Pipe, keras_pixels: Pipe
) -> None:
    path = tmp_path / "tail.jpg"
    coloured().save(path)
    path.write_bytes(path.read_bytes() + b"tail" * 100)
    pipeline = rendering(target_size=SIZE)
    np.testing.assert_array_equal(ours(path, pipeline), keras_pixels(path, pipeline))


def test_a_jpeg_with_a_recoverable_fault_is_read_as_in_keras(
    tmp_path: Path, ours: Pipe, keras_pixels: Pipe
) -> None:
    path = tmp_path / "fault.jpg"
    coloured().save(path)
    data = path.read_bytes()
    path.write_bytes(data[:-2] + b"\xff\xfe\xff\xd9")  # junk before the end marker
    pipeline = rendering(target_size=SIZE)
    np.testing.assert_array_equal(ours(path, pipeline), keras_pixels(path, pipeline))


# What goes wrong


def shorten(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def render(path: Path | bytes) -> None:
    pipeline = rendering(target_size=(8, 8))
    name = path if isinstance(path, bytes) else str(path)
    FileRenderer(pipeline).render(name, Transform(), np.empty(pipeline.image_shape, np.float32))


@pytest.mark.parametrize("color_mode", ["rgb", "rgba", "grayscale"])
def test_grey_jpegs_are_decoded_as_coloured_ones_are(
    tmp_path: Path, color_mode: ColorMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By simplejpeg, in half of PIL's time, to the same pixels."""
    coloured().convert("L").save(tmp_path / "a.jpg")
    data = memoryview((tmp_path / "a.jpg").read_bytes())
    load = Load(target_size=(8, 8), color_mode=color_mode)
    by_pil = np.asarray(Decoder(load)._decode_any(data))
    monkeypatch.setattr(Decoder, "_decode_any", None)
    pixels = np.asarray(Decoder(load).decode(data))
    expected = by_pil if color_mode != "rgb" else by_pil[..., :3]
    assert (pixels[..., :3] == expected[..., :3]).all()


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.bmp", "a.ppm", "a.tif", "a.gif"])
def test_a_truncated_file_is_a_bad_image(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    coloured().save(path)
    shorten(path)
    with pytest.raises(BadImage, match=name):
        render(path)


def test_a_missing_file_is_a_bad_image(tmp_path: Path) -> None:
    with pytest.raises(BadImage, match=r"gone\.jpg: No such file or directory"):
        render(tmp_path / "gone.jpg")


def test_a_directory_is_a_bad_image(tmp_path: Path) -> None:
    with pytest.raises(BadImage, match="not a regular file"):
        render(tmp_path)


def test_a_pipe_is_a_bad_image_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(BadImage, match="not a regular file"):
        render(tmp_path / "pipe.jpg")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_a_bad_image(tmp_path: Path) -> None:
    coloured().save(tmp_path / "secret.png")
    (tmp_path / "secret.png").chmod(0)
    with pytest.raises(BadImage, match="Permission denied"):
        render(tmp_path / "secret.png")


def test_a_path_with_a_zero_byte_is_a_bad_image() -> None:
    with pytest.raises(BadImage, match="null"):
        render(b"a\0b.jpg")


@pytest.mark.parametrize("content", [b"", b"x", b"\xff\xd8\xff", b"not a picture" * 100])
def test_a_file_that_is_no_image_is_a_bad_image(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_bytes(content)
    with pytest.raises(BadImage, match=r"text\.jpg: (not an image|an empty file)"):
        render(tmp_path / "text.jpg")


@settings(max_examples=150, deadline=None)
@given(data=st.data(), name=st.sampled_from(["a.jpg", "a.png", "a.bmp", "a.tif", "a.gif"]))
def test_a_damaged_file_renders_or_is_a_bad_image(
    folder: Path, data: st.DataObject, name: str
) -> None:
    path = folder / name
    coloured().save(path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(0, min(600, len(content) - 1)))
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        render(path)
    except BadImage as error:
        assert str(error).isprintable()


def test_an_error_cannot_write_control_characters_to_a_terminal(tmp_path: Path) -> None:
    with pytest.raises(BadImage) as caught:
        render(os.fsencode(tmp_path) + b"/\x1b[31m\n\xff.jpg")
    assert str(caught.value).isprintable()
    assert r"\x1b[31m\n\udcff.jpg" in str(caught.value)


def test_pil_prints_no_warnings(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    coloured().quantize(16).save(tmp_path / "odd.png", transparency=bytes(16))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        render(tmp_path / "odd.png")
    assert not caught
    assert capfd.readouterr() == ("", "")


def test_small_files_after_large_ones_are_read_whole_and_alone(
    tmp_path: Path, keras_pixels: Pipe
) -> None:
    large = Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 900, 3), np.uint8))
    large.save(tmp_path / "large.jpg", quality=100)
    coloured().save(tmp_path / "small.jpg")
    pipeline = rendering(target_size=SIZE)
    renderer, row = FileRenderer(pipeline), np.empty((*SIZE, 3), np.float32)
    for name in ("small.jpg", "large.jpg", "small.jpg"):
        renderer.render(str(tmp_path / name), Transform(), row)
        np.testing.assert_array_equal(row, keras_pixels(tmp_path / name, pipeline))
