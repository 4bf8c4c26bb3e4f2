"""Pictures from files and to files, and between pictures and arrays."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from tests.keras.surface.module import image, only_on
from tests.keras.surface.samples import Pixels, said_without

HEIGHT, WIDTH = 100, 90
SMALL = (25, 30)


class Kind(NamedTuple):
    """A kind of picture and how it is stored and asked for."""

    channels: int
    dtype: str
    suffix: str
    color_mode: str


KINDS = {
    "rgb": Kind(3, "uint8", "png", "rgb"),
    "rgba": Kind(4, "uint8", "png", "rgba"),
    "grey_of_8_bits": Kind(1, "uint8", "png", "grayscale"),
    "grey_of_16_bits": Kind(1, "int16", "tiff", "grayscale"),
    "grey_of_32_bits": Kind(1, "int32", "tiff", "grayscale"),
}
WIDE = ["grey_of_16_bits", "grey_of_32_bits"]


class Stored(NamedTuple):
    """A picture on disk, its pixels, and its kind."""

    path: Path
    pixels: Pixels
    kind: Kind

    def load(self, **options: Any) -> Pixels:
        picture = image.load_img(self.path, color_mode=self.kind.color_mode, **options)
        loaded: Pixels = image.img_to_array(picture, dtype=self.kind.dtype)
        return loaded


def store(name: str, folder: Path) -> Stored:
    kind = KINDS[name]
    limits = np.iinfo(kind.dtype)
    rng = np.random.default_rng(limits.bits + kind.channels)
    shape = (HEIGHT, WIDTH, kind.channels)
    pixels = rng.integers(limits.min, limits.max, shape, dtype=kind.dtype)
    path = folder / f"{name}.{kind.suffix}"
    image.array_to_img(pixels, scale=False, dtype=kind.dtype).save(path)
    return Stored(path, pixels, kind)


@pytest.fixture(params=KINDS)
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Stored:
    return store(request.param, tmp_path)


@pytest.fixture(params=WIDE)
def wide(request: pytest.FixtureRequest, tmp_path: Path) -> Stored:
    return store(request.param, tmp_path)


def test_what_is_loaded_is_what_was_stored(stored: Stored) -> None:
    np.testing.assert_array_equal(stored.load(), stored.pixels)


def test_its_own_size_leaves_a_picture_as_it_is(stored: Stored) -> None:
    np.testing.assert_array_equal(stored.load(target_size=(HEIGHT, WIDTH)), stored.pixels)


def test_wide_greys_survive_as_floats(wide: Stored) -> None:
    floats = image.img_to_array(image.load_img(wide.path, color_mode="grayscale"))
    assert floats.dtype == np.float32
    np.testing.assert_allclose(floats, wide.pixels)


@pytest.mark.parametrize("options", [{}, {"interpolation": "bilinear"}, {"interpolation": "box"}])
def test_a_picture_is_resized_to_height_and_width(stored: Stored, options: dict[str, str]) -> None:
    loaded = stored.load(target_size=SMALL, **options)
    assert loaded.shape == (*SMALL, stored.kind.channels)


@pytest.mark.parametrize("name", ["rgb", "rgba"])
def test_the_nearest_pixel_is_not_the_mean_of_pixels(name: str, tmp_path: Path) -> None:
    stored = store(name, tmp_path)
    nearest = stored.load(target_size=SMALL, interpolation="nearest")
    np.testing.assert_array_equal(nearest, stored.load(target_size=SMALL))
    assert (nearest != stored.load(target_size=SMALL, interpolation="bilinear")).any()


@pytest.mark.parametrize("size", [None, (HEIGHT, WIDTH), SMALL])
def test_colour_asked_for_as_grey_has_one_channel(
    size: tuple[int, int] | None, tmp_path: Path
) -> None:
    path = store("rgb", tmp_path).path
    grey = image.img_to_array(image.load_img(path, color_mode="grayscale", target_size=size))
    assert grey.shape == (*(size or (HEIGHT, WIDTH)), 1)


@pytest.mark.parametrize(
    "spelled",
    [lambda path: io.BytesIO(path.read_bytes()), str, lambda path: str(path).encode(), Path],
    ids=["bytes_in_memory", "str", "bytes", "path"],
)
def test_a_picture_is_found_by_any_spelling_of_its_path(
    spelled: Callable[[Path], Any], tmp_path: Path
) -> None:
    path, pixels, kind = store("grey_of_32_bits", tmp_path)
    picture = image.load_img(spelled(path), color_mode="grayscale")
    np.testing.assert_array_equal(image.img_to_array(picture, dtype=kind.dtype), pixels)


def test_an_unknown_interpolation_matters_where_something_is_resized(tmp_path: Path) -> None:
    path = store("rgb", tmp_path).path
    assert image.load_img(path, interpolation="wishful").size == (WIDTH, HEIGHT)
    words = "Invalid interpolation method wishful specified. Supported methods are nearest, "
    with pytest.raises(ValueError, match=words):
        image.load_img(path, target_size=SMALL, interpolation="wishful")


def test_an_unknown_colour_mode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='color_mode must be "grayscale", "rgb", or "rgba"'):
        image.load_img(store("rgb", tmp_path).path, color_mode="cmyk")


def test_a_square_stays_square_where_the_aspect_is_kept(tmp_path: Path) -> None:
    banner = np.zeros((50, 100, 3), np.uint8)
    banner[20:30, 45:55, 0] = 255
    path = tmp_path / "banner.png"
    image.save_img(path, banner, scale=False)
    picture = image.load_img(path, target_size=(25, 25), keep_aspect_ratio=True)
    loaded = image.img_to_array(picture)
    assert loaded.shape == (25, 25, 3)
    rows, columns = np.nonzero(loaded[..., 0])
    assert np.ptp(rows) == np.ptp(columns) > 0
    assert len(rows) == (np.ptp(rows) + 1) ** 2


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize(
    ("channels", "dtype"),
    [(3, "float64"), (4, "float64"), (1, "float64"), (1, "int16"), (1, "int32")],
)
def test_arrays_become_pictures_and_arrays_again(
    channels: int, dtype: str, data_format: str
) -> None:
    first = data_format == "channels_first"
    shape = (channels, 10, 8) if first else (10, 8, channels)
    values = np.random.default_rng(7).uniform(-30_000, 30_000, shape).astype(dtype)
    picture = image.array_to_img(values, data_format=data_format)
    assert picture.size == (8, 10)
    assert image.img_to_array(picture, data_format=data_format).shape == shape


def test_an_array_without_channels_is_no_picture() -> None:
    words = "Expected image array to have rank 3 (single image). Got array with shape: (10, 8)"
    with pytest.raises(ValueError, match=re.escape(words)):
        image.array_to_img(np.ones((10, 8)), data_format="channels_first")


def test_five_channels_are_no_colour() -> None:
    with pytest.raises(ValueError, match="Unsupported channel number: 5"):
        image.array_to_img(np.ones((10, 8, 5)), data_format="channels_last")


def test_four_axes_are_no_picture() -> None:
    with pytest.raises(ValueError, match=re.escape("Unsupported image shape: (10, 8, 5, 3)")):
        image.img_to_array(np.ones((10, 8, 5, 3)), data_format="channels_last")


@pytest.mark.parametrize("name", ["array_to_img", "img_to_array"])
def test_the_channels_come_first_or_last(name: str) -> None:
    with pytest.raises(ValueError, match="`data_format` argument must be one of"):
        getattr(image, name)(np.ones((10, 8, 3)), data_format="channels")


def test_a_loaded_picture_holds_no_file_open(tmp_path: Path) -> None:
    path = store("rgb", tmp_path).path
    pictures = [image.load_img(path) for _ in range(3)]
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert path not in [link.readlink() for link in links if link.exists()]
    assert len(pictures) == 3


def test_what_is_loaded_is_a_picture_of_pillow(tmp_path: Path) -> None:
    path = tmp_path / "speck.png"
    image.save_img(path, image.array_to_img(np.random.default_rng(1).random((1, 1, 3))))
    assert isinstance(image.load_img(path), Image.Image)


@only_on(keras=False)
def test_a_picture_needs_pillow(tmp_path: Path) -> None:
    path = str(store("rgb", tmp_path).path)
    load = f"try: image.load_img({path!r})\nexcept ImportError: print('missing')"
    assert said_without("PIL", load) == "missing"
