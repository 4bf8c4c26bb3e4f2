"""Pictures are turned as PIL's ``exif_transpose`` turns them, if that is asked for."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from loaderd.cache import images
from loaderd.errors import NoRoom
from loaderd.render.load import decode
from loaderd.render.load.decode import Decoder
from loaderd.render.load.resize import PicturePart, Reduced
from loaderd.spec.base import Aspect, ColorMode, Interpolation
from loaderd.spec.load import Load
from tests.corpus import pictures
from tests.support.specs import rendering

Pixels = NDArray[Any]
Pipe = Callable[..., Pixels]
Noisy = Callable[..., Image.Image]

TURNS = range(1, 9)
COLOR_MODES: dict[ColorMode, str] = {"rgb": "RGB", "rgba": "RGBA", "grayscale": "L"}
ASPECTS: list[Aspect] = ["stretch", "crop", "pad"]
SIDEWAYS = (5, 6, 7, 8)


def tagged(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def ramps(width: int, height: int) -> Image.Image:
    """Red tells the column, green the row."""
    y, x = np.mgrid[0:height, 0:width]
    layers = [255 * x / width, 255 * y / height, np.zeros_like(x)]
    return Image.fromarray(np.stack(layers, -1).astype(np.uint8))


@pytest.mark.parametrize("color_mode", COLOR_MODES)
@pytest.mark.parametrize("name", ["a.jpg", "cmyk.jpg", "grey.jpg", "a.png", "palette.png", "a.tif"])
@pytest.mark.parametrize("orientation", TURNS)
def test_a_picture_is_turned_as_pil_does(
    tmp_path: Path, ours: Pipe, orientation: int, name: str, color_mode: ColorMode
) -> None:
    image = pictures.photo((60, 45))
    if name.startswith(("cmyk", "grey")):
        image = image.convert("CMYK" if name == "cmyk.jpg" else "L")
    image = image.quantize(16) if name == "palette.png" else image
    image.save(tmp_path / name, exif=tagged(orientation))
    with Image.open(tmp_path / name) as saved:
        upright = ImageOps.exif_transpose(saved).convert(COLOR_MODES[color_mode])
    assert upright.size == ((45, 60) if orientation in SIDEWAYS else (60, 45))
    for interpolation in ("nearest", "bilinear"):
        pixels = np.asarray(upright.resize((20, 31), Image.Resampling[interpolation.upper()]))
        pipeline = rendering(
            target_size=(31, 20), color_mode=color_mode, interpolation=interpolation, exif=True
        )
        rendered = ours(tmp_path / name, pipeline)
        np.testing.assert_array_equal(rendered, pixels.reshape(rendered.shape))


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
@pytest.mark.parametrize("orientation", TURNS)
def test_nothing_is_turned_that_keras_does_not_turn(
    tmp_path: Path, ours: Pipe, keras_pixels: Pipe, orientation: int, name: str
) -> None:
    """Keras has TIFFs turned by PIL, which does so by itself."""
    pictures.photo((60, 45)).save(tmp_path / name, exif=tagged(orientation))
    pipeline = rendering(target_size=(45, 60))
    rendered = ours(tmp_path / name, pipeline)
    np.testing.assert_array_equal(rendered, keras_pixels(tmp_path / name, pipeline))


def test_sixteen_bits_are_turned(tmp_path: Path, ours: Pipe) -> None:
    pixels = np.arange(6, dtype=np.uint16).reshape(2, 3) * 9999
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=tagged(6))
    pipeline = rendering(target_size=(3, 2), color_mode="grayscale", exif=True)
    np.testing.assert_array_equal(ours(tmp_path / "a.png", pipeline)[:, :, 0], np.rot90(pixels, -1))


@pytest.mark.parametrize("orientation", TURNS)
def test_the_orientation_may_stand_in_xmp(tmp_path: Path, ours: Pipe, orientation: int) -> None:
    (tmp_path / "a.jpg").write_bytes(pictures.with_xmp(orientation))
    with Image.open(tmp_path / "a.jpg") as image:
        upright = ImageOps.exif_transpose(image)
    pipeline = rendering(target_size=upright.size[::-1], exif=True)
    np.testing.assert_array_equal(ours(tmp_path / "a.jpg", pipeline), np.asarray(upright))


# Reduced pictures


@pytest.mark.parametrize("orientation", TURNS)
def test_the_reduction_is_chosen_for_the_turned_size(orientation: int) -> None:
    sizes: list[tuple[int, int]] = []

    def part(size: tuple[int, int]) -> PicturePart:
        sizes.append(size)
        return PicturePart(4)

    decoder = Decoder(Load(target_size=(8, 8), exif=True, decode="scaled"), part=part)
    reduced = decoder.decode(memoryview(pictures.turned("jpeg", orientation)))
    assert isinstance(reduced, Reduced)
    upright = (45, 60) if orientation in SIDEWAYS else (60, 45)
    assert sizes == [upright]
    assert reduced.size == upright
    assert reduced.image.size == (-(-upright[0] // 4), -(-upright[1] // 4))


@pytest.mark.parametrize("aspect", ASPECTS)
@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("size", [(331, 337), (323, 643), (641, 321)])
def test_a_reduced_picture_is_framed_as_the_exact_one_when_it_is_turned(
    tmp_path: Path,
    ours: Pipe,
    size: tuple[int, int],
    interpolation: Interpolation,
    orientation: int,
    aspect: Aspect,
) -> None:
    """Within half a pixel of the target's; what was cut off at the end may come first."""
    ramps(*size).save(tmp_path / "a.jpg", quality=98, subsampling=0, exif=tagged(orientation))
    exact, scaled = (
        ours(
            tmp_path / "a.jpg",
            rendering(
                target_size=(40, 40),
                interpolation=interpolation,
                aspect=aspect,
                exif=True,
                decode=decode,
            ),
        )
        for decode in ("exact", "scaled")
    )
    inside = np.s_[14:-14, 14:-14] if aspect == "pad" else np.s_[:, :]
    level = 255 / 40 if aspect != "crop" else 255 / 40 * min(size) / max(size)
    if aspect == "pad":
        level *= max(size) / min(size)
    assert abs(exact - scaled)[inside].max() <= level / 2 + 3


def test_too_little_memory_does_not_leave_a_picture_unturned(
    tmp_path: Path, ours: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Image.Image) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "getexif", fails)
    (tmp_path / "a.jpg").write_bytes(pictures.turned("jpeg", 6))
    with pytest.raises(NoRoom):
        ours(tmp_path / "a.jpg", rendering(target_size=(8, 8), exif=True))


def test_pils_own_limit_does_not_leave_a_picture_unturned(
    tmp_path: Path, ours: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jpg").write_bytes(pictures.turned("jpeg", 6))
    pipeline = rendering(target_size=(60, 45), exif=True)
    turned = ours(tmp_path / "a.jpg", pipeline)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    np.testing.assert_array_equal(ours(tmp_path / "a.jpg", pipeline), turned)


# What it costs, and what it decides


def test_nobody_looks_for_an_orientation_that_is_not_asked_for(
    tmp_path: Path, ours: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: object) -> None:
        raise AssertionError

    for name in ("may_be_turned", "_turn_of"):
        monkeypatch.setattr(decode, name, never)
    for form, suffix in (("jpeg", "jpg"), ("png", "png")):
        (tmp_path / f"a.{suffix}").write_bytes(pictures.turned(form, 6))
        ours(tmp_path / f"a.{suffix}", rendering(target_size=(8, 8)))


def test_pil_does_not_see_jpegs_that_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = Decoder(Load(target_size=(8, 8), exif=True))
    file = io.BytesIO()
    pictures.photo().save(file, "JPEG")
    monkeypatch.setattr(Image, "open", lambda *args, **choices: pytest.fail("PIL was asked"))
    decoder.decode(memoryview(file.getvalue()))


def test_turned_pictures_have_a_cache_of_their_own() -> None:
    keys = {
        images.keys(Load(target_size=(8, 8), exif=exif), "/data", "1")[0] for exif in (False, True)
    }
    assert len(keys) == 2
