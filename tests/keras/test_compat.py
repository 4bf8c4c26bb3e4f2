"""What ``compat="fixed"`` mends: Keras against its own words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from loaderd_client import ImageDataGenerator, Session
from tests.support.daemons import Serve


@pytest.fixture(autouse=True)
def session(serve: Serve) -> Iterator[Session]:
    with serve(), Session("auto") as session:
        yield session


def a_cross(size: tuple[int, int]) -> Any:
    """A bright centre on black."""
    image = np.zeros((1, *size, 1), np.float32)
    height, width = size
    image[0, height // 2 - 1 : height // 2 + 1, width // 2 - 1 : width // 2 + 1] = 100
    return image


def center_of(image: Any) -> tuple[float, float]:
    """(row, column) of the brightness."""
    weights = image[..., 0] / max(image.sum(), 1)  # it may have gone
    rows, columns = np.indices(weights.shape)
    return float((rows * weights).sum()), float((columns * weights).sum())


ORDERS = pytest.mark.parametrize("order", [1, 3], ids=["fast", "spline"])


@ORDERS
@pytest.mark.parametrize("compat", ["keras", "fixed"])
def test_a_width_shift_moves_columns(compat: Any, order: int) -> None:
    x = a_cross((20, 30))
    generator = ImageDataGenerator(
        width_shift_range=[3, 3], compat=compat, interpolation_order=order, fill_mode="constant"
    )
    moved = center_of(next(generator.flow(x))[0])
    away = np.abs(np.subtract(moved, (9.5, 14.5)))
    np.testing.assert_allclose(away, (0, 3) if compat == "fixed" else (3, 0), atol=0.05)


@ORDERS
@pytest.mark.parametrize("compat", ["keras", "fixed"])
def test_images_that_are_not_square_turn_about_their_centre(compat: Any, order: int) -> None:
    x = a_cross((20, 60))
    generator = ImageDataGenerator(
        rotation_range=90, compat=compat, interpolation_order=order, fill_mode="constant"
    )
    train = generator.flow(np.repeat(x, 8, 0), seed=1)
    away = [np.abs(np.subtract(center_of(image), (9.5, 29.5))).max() for image in next(train)]
    assert (max(away) < 0.1) == (compat == "fixed")


@pytest.mark.parametrize("compat", ["keras", "fixed"])
def test_the_validation_subset_is_left_as_it_is(compat: Any, photos: Path) -> None:
    def batch(subset: str, **options: Any) -> Any:
        generator = ImageDataGenerator(validation_split=0.3, compat=compat, **options)
        flow = generator.flow_from_directory(
            photos, target_size=(20, 30), shuffle=False, subset=subset, seed=1
        )
        return np.array(next(flow)[0])

    random = {"vertical_flip": True, "channel_shift_range": 50.0, "rescale": 0.5}
    for subset in ("validation", "training"):
        same = np.array_equal(batch(subset, **random), batch(subset, rescale=0.5))
        assert same == (compat == "fixed" and subset == "validation")


@pytest.mark.parametrize("compat", ["keras", "fixed"])
def test_grey_pictures_of_16_bits_keep_their_shades(compat: Any, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    shades = np.arange(0, 2**16, 2**16 // 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(shades).save(tmp_path / "deep" / "a.png")
    for color_mode in ("rgb", "rgba", "grayscale"):
        flow = ImageDataGenerator(compat=compat).flow_from_directory(
            tmp_path,
            target_size=(8, 8),
            color_mode=color_mode,
        )
        grey = next(flow)[0][0, ..., 0]
        if compat == "fixed":
            np.testing.assert_array_equal(grey, shades >> 8)
        elif color_mode != "grayscale":
            assert np.count_nonzero(grey == 255) >= 63


@pytest.mark.parametrize("compat", ["keras", "fixed"])
def test_weights_belong_to_their_images(compat: Any) -> None:
    numbers = np.arange(10)
    x = np.zeros((10, 4, 4, 1)) + numbers[:, None, None, None]
    generator = ImageDataGenerator(validation_split=0.3, compat=compat)
    for subset in ("training", "validation"):
        flow = generator.flow(
            x, numbers, sample_weight=numbers, subset=subset, ignore_class_split=True, seed=2
        )
        images, labels, weights = next(flow)
        np.testing.assert_array_equal(images[:, 0, 0, 0], labels)
        belong = np.array_equal(labels, weights)
        assert belong == (compat == "fixed" or subset == "validation")
