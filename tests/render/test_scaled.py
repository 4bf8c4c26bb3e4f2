"""Decoding at a fraction of the size: where it is done, and what it may change."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from loaderd.render.load.decode import Decoder
from loaderd.render.load.resize import FILTERS, PicturePart, Reduced
from loaderd.spec.base import Aspect, ColorMode, Decode, Interpolation
from loaderd.spec.load import Load
from loaderd.spec.spec import Spec
from tests.support.specs import rendering, resizer

Pixels = NDArray[Any]
Pipe = Callable[..., Pixels]
Noisy = Callable[..., Image.Image]

ASPECTS: list[Aspect] = ["stretch", "crop", "pad"]
COLOR_MODES: list[ColorMode] = ["rgb", "rgba", "grayscale"]
DECODES: list[Decode] = ["exact", "scaled"]
SIDES = st.integers(1, 4000)
INTERPOLATIONS: list[Interpolation] = sorted(FILTERS)


def smooth(width: int, height: int) -> Image.Image:
    """Soft spots of colour, with no noise."""
    y, x = np.mgrid[0:height, 0:width]
    x, y = x / width, y / height
    waves = np.stack([np.sin(7 * x + 3 * y), np.cos(9 * y - x), np.sin(11 * x * y)], -1)
    return Image.fromarray((127.5 + 127 * waves).astype(np.uint8))


def ramp(width: int, height: int, along: int) -> Image.Image:
    """Grey levels that tell the place along an axis: 0 the columns, 1 the rows."""
    y, x = np.mgrid[0:height, 0:width]
    grey = (255 * (x / width, y / height)[along]).astype(np.uint8)
    return Image.fromarray(np.repeat(grey[..., np.newaxis], 3, axis=2))


def as_jpeg(image: Image.Image) -> memoryview:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95)
    return memoryview(file.getvalue())


@settings(max_examples=300, deadline=None)
@given(
    size=st.tuples(SIDES, SIDES),
    target=st.tuples(st.integers(1, 500), st.integers(1, 500)),
    interpolation=st.sampled_from(INTERPOLATIONS),
)
def test_the_reduction_is_the_largest_that_leaves_enough_pixels(
    size: tuple[int, int], target: tuple[int, int], interpolation: Interpolation
) -> None:
    fewest = 1 if interpolation == "nearest" else 2
    enough = [
        factor
        for factor in (8, 4, 2)
        if all(
            -(-side // factor) >= fewest * want
            for side, want in zip(size, target[::-1], strict=True)
        )
    ]
    reduction = resizer(target, interpolation, "stretch").reduction(size)
    assert reduction == max(enough, default=1)


def test_what_is_cropped_away_does_not_count() -> None:
    assert resizer((100, 100), "bilinear", "stretch").reduction((1600, 1600)) == 8
    assert resizer((100, 100), "bilinear", "crop").reduction((1600, 800)) == 4
    assert resizer((100, 100), "bilinear", "stretch").reduction((1600, 799)) == 4
    assert resizer((100, 100), "bilinear", "crop").reduction((1600, 790)) == 2


def test_what_is_padded_counts() -> None:
    assert resizer((100, 100), "bilinear", "pad").reduction((1600, 50)) == 8
    assert resizer((100, 100), "bilinear", "stretch").reduction((1600, 50)) == 1


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(5, 90), st.integers(5, 90)),
    factor=st.sampled_from([2, 4, 8]),
    color_mode=st.sampled_from(COLOR_MODES),
)
def test_a_reduced_jpeg_has_its_part_of_the_pixels_rounded_up(
    noisy: Noisy, size: tuple[int, int], factor: int, color_mode: ColorMode
) -> None:
    width, height = size
    pipeline = rendering(target_size=(8, 8), color_mode=color_mode, decode="scaled")
    decoder = Decoder(pipeline.load, part=lambda size: PicturePart(factor))
    reduced = decoder.decode(as_jpeg(noisy(height, width)))
    assert isinstance(reduced, Reduced)
    assert reduced.image.size == (-(-width // factor), -(-height // factor))
    assert reduced.size == size


@pytest.mark.parametrize("aspect", ASPECTS)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("size", [(1600, 1200), (1003, 1501), (901, 333)])
def test_a_smooth_picture_is_nearly_the_exact_one(
    tmp_path: Path, ours: Pipe, size: tuple[int, int], interpolation: Interpolation, aspect: Aspect
) -> None:
    smooth(*size).save(tmp_path / "a.jpg", quality=95)
    exact, scaled = (
        ours(
            tmp_path / "a.jpg",
            rendering(
                target_size=(80, 64), interpolation=interpolation, aspect=aspect, decode=decode
            ),
        )
        for decode in DECODES
    )
    assert (exact != scaled).any()
    assert abs(exact - scaled).mean() < 2


@pytest.mark.parametrize("along", [0, 1])
@pytest.mark.parametrize("aspect", ASPECTS)
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("size", [(331, 331), (337, 643), (643, 323)])
def test_a_reduced_picture_is_framed_as_the_exact_one_within_half_a_pixel(
    tmp_path: Path,
    ours: Pipe,
    size: tuple[int, int],
    interpolation: Interpolation,
    aspect: Aspect,
    along: int,
) -> None:
    ramp(*size, along).save(tmp_path / "a.jpg", quality=98)
    pipeline = rendering(target_size=(40, 40), interpolation=interpolation, aspect=aspect)
    exact = ours(tmp_path / "a.jpg", pipeline)[..., 0]
    scaled = ours(tmp_path / "a.jpg", scaled_as(pipeline))[..., 0]
    levels = np.diff(exact, axis=1 - along)[5:-5, 5:-5]  # of one pixel
    inside = np.s_[14:-14, 14:-14] if aspect == "pad" else np.s_[:, :]
    assert abs(exact - scaled)[inside].max() <= np.median(levels[levels > 0]) / 2 + 2


def scaled_as(pipeline: Spec) -> Spec:
    return rendering(
        target_size=pipeline.load.target_size,
        interpolation=pipeline.load.interpolation,
        aspect=pipeline.load.aspect,
        color_mode=pipeline.load.color_mode,
        decode="scaled",
    )


@pytest.mark.parametrize("aspect", ASPECTS)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("name", ["small.jpg", "large.png"])
def test_what_cannot_be_reduced_is_exact(
    tmp_path: Path,
    noisy: Noisy,
    ours: Pipe,
    name: str,
    interpolation: Interpolation,
    aspect: Aspect,
) -> None:
    noisy(*((70, 61) if name == "small.jpg" else (300, 400))).save(tmp_path / name)
    pipeline = rendering(target_size=(40, 37), interpolation=interpolation, aspect=aspect)
    np.testing.assert_array_equal(
        ours(tmp_path / name, scaled_as(pipeline)), ours(tmp_path / name, pipeline)
    )


@pytest.mark.parametrize("color_mode", COLOR_MODES)
@pytest.mark.parametrize("grey", [False, True])
def test_every_colour_mode_can_be_reduced(
    tmp_path: Path, ours: Pipe, color_mode: ColorMode, grey: bool
) -> None:
    picture = smooth(640, 480)
    (picture.convert("L") if grey else picture).save(tmp_path / "a.jpg")
    pipeline = rendering(target_size=(40, 50), interpolation="bilinear", color_mode=color_mode)
    exact, scaled = (
        ours(tmp_path / "a.jpg", pipeline),
        ours(tmp_path / "a.jpg", scaled_as(pipeline)),
    )
    assert scaled.shape == exact.shape
    assert abs(exact - scaled).mean() < 2


def test_cmyk_is_left_to_pil(tmp_path: Path, ours: Pipe) -> None:
    smooth(640, 480).convert("CMYK").save(tmp_path / "a.jpg")
    pipeline = rendering(target_size=(40, 50), interpolation="bilinear")
    np.testing.assert_array_equal(
        ours(tmp_path / "a.jpg", scaled_as(pipeline)), ours(tmp_path / "a.jpg", pipeline)
    )


def test_a_jpeg_larger_than_the_memory_that_is_kept_has_the_pixels_of_pil() -> None:
    """17 million pixels of four bytes, and a small picture after them."""
    decoder = Decoder(Load(target_size=(8, 8), interpolation="bilinear"))
    for picture in (smooth(64, 64).resize((4200, 4100)), smooth(64, 64)):
        data = as_jpeg(picture)
        pixels = np.asarray(decoder.decode(data))
        assert pixels.shape == (picture.height, picture.width, 4)  # PIL itself would give 3
        np.testing.assert_array_equal(pixels[..., :3], np.asarray(Image.open(io.BytesIO(data))))
