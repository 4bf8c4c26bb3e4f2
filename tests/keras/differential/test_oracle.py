"""The oracle knows Keras: where it reads, and what the boxes must and must not hold.

That Keras's own rows lie in their boxes, each comparison checks, too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from tests.keras.differential.comparison import Diary
from tests.keras.differential.corpus import pattern
from tests.keras.differential.oracle import STILL, Parameters, allowed, is_exact, sources
from tests.keras.differential.surface import keras_image

pytestmark = pytest.mark.filterwarnings("ignore")

PARAMETERS = st.fixed_dictionaries(
    {
        "theta": st.floats(-180, 180),
        "tx": st.floats(-9, 9),
        "ty": st.floats(-9, 9),
        "shear": st.floats(-45, 45),
        "zx": st.floats(0.5, 1.5),
        "zy": st.floats(0.5, 1.5),
    }
)


@settings(deadline=None, derandomize=True, database=None)
@given(parameters=PARAMETERS, size=st.tuples(st.integers(1, 15), st.integers(1, 15)))
def test_it_knows_where_keras_reads(parameters: Parameters, size: tuple[int, int]) -> None:
    image = pattern(*size, 1, 0).astype(np.float64)
    keras = keras_image.apply_affine_transform(
        image, **parameters, row_axis=0, col_axis=1, channel_axis=2, fill_mode="reflect"
    )
    places = np.stack(sources(parameters, size))
    read = ndimage.map_coordinates(image[:, :, 0], places, order=1, mode="reflect")
    np.testing.assert_allclose(keras[:, :, 0], read, atol=1e-6)


def first_step(**options: Any) -> tuple[Diary, Any]:
    diary = Diary(**options)
    next(diary.flow(pattern(12, 12, 3, 1)[None], seed=3))
    return diary, diary.take_steps()[0]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"horizontal_flip": True, "brightness_range": (0.5, 1.5), "rescale": 1 / 255},
        {"rotation_range": 30, "interpolation_order": 3},
        {"zoom_range": [1, 1], "samplewise_std_normalization": True},
    ],
    ids=str,
)
def test_most_rows_must_be_exact(options: Any) -> None:
    assert is_exact(*first_step(**options))


@pytest.mark.parametrize(
    ("options", "width"),
    [
        ({"rotation_range": 30}, 0.062),
        ({"rotation_range": 30, "rescale": 1 / 255}, 0.062 / 255),
        ({"rotation_range": 30, "samplewise_center": True}, 0.13),
        ({"rotation_range": 30, "samplewise_std_normalization": True}, 0.01),
        ({"rotation_range": 30, "channel_shift_range": 9.0}, 0.062),
    ],
    ids=str,
)
def test_boxes_are_small(options: Any, width: float) -> None:
    diary, step = first_step(**options)
    assert not is_exact(diary, step)
    low, high = allowed(diary, step)
    assert 0 < (high - low).max() < width


@pytest.mark.parametrize("fill_mode", ["constant", "wrap"])
def test_most_pixels_of_a_shifted_image_are_sure(fill_mode: str) -> None:
    diary, step = first_step(fill_mode=fill_mode, height_shift_range=[2.5])
    low, high = allowed(diary, step)
    # A column, and the first and the last row, which lie on the border itself.
    assert (high - low > 1).mean() < 0.35


def test_few_values_may_fall_to_another_grey_level() -> None:
    diary, step = first_step(rotation_range=30, brightness_range=(0.5, 1.5))
    low, high = allowed(diary, step)
    assert ((high - low) > 0.5).mean() < 0.1
    assert (high - low).max() < 3


def test_still_is_what_keras_calls_still() -> None:
    image = pattern(9, 7, 3, 2)
    keras = keras_image.ImageDataGenerator().apply_transform(image, STILL)
    np.testing.assert_array_equal(keras, image)
