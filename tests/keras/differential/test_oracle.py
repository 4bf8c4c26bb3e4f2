"""The oracle knows Keras: which rows are exact, and how far others may be off.

That Keras's own rows lie in their boxes, each comparison checks, too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.keras.differential.comparison import Diary
from tests.keras.differential.corpus import pattern
from tests.keras.differential.oracle import STILL, allowed, is_exact
from tests.keras.differential.surface import keras_image

pytestmark = pytest.mark.filterwarnings("ignore")


def first_step(**options: Any) -> tuple[Diary, Any]:
    diary, images = Diary(**options), pattern(12, 12, 3, 1)[None]
    if options.get("zca_whitening"):
        diary.fit(np.stack([pattern(12, 12, 3, seed) for seed in range(4)]))
    next(diary.flow(images, seed=3))
    return diary, diary.take_steps()[-1]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"horizontal_flip": True, "brightness_range": (0.5, 1.5), "rescale": 1 / 255},
        {"rotation_range": 30, "samplewise_std_normalization": True},
        {"rotation_range": 30, "fill_mode": "wrap", "brightness_range": (0.5, 1.5)},
        {"rotation_range": 30, "interpolation_order": 3},
    ],
    ids=str,
)
def test_all_rows_must_be_exact(options: Any) -> None:
    assert is_exact(first_step(**options)[0])


def test_but_for_whitened_ones_whose_boxes_are_small() -> None:
    diary, step = first_step(zca_whitening=True, rotation_range=30)
    assert not is_exact(diary)
    low, high = allowed(diary, step)
    assert 0 < (high - low).max() < 0.01
    assert ((low <= step.result) & (step.result <= high)).all()


def test_still_is_what_keras_calls_still() -> None:
    image = pattern(9, 7, 3, 2)
    keras = keras_image.ImageDataGenerator().apply_transform(image, STILL)
    np.testing.assert_array_equal(keras, image)
