"""Bytes that a layer rescales are the float32 stream's values, to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from loaderd_client import ImageDataGenerator

FLOW: dict[str, Any] = {
    "target_size": (24, 20),
    "batch_size": 8,
    "class_mode": None,
    "seed": 3,
}


def test_a_rescaling_layer_gives_the_values_of_rescale(photos: Path) -> None:
    from keras.layers import Rescaling

    flips: dict[str, Any] = {"horizontal_flip": True, "vertical_flip": True}
    floats = ImageDataGenerator(rescale=1 / 255, **flips).flow_from_directory(photos, **FLOW)
    whole = ImageDataGenerator(dtype="uint8", **flips).flow_from_directory(photos, **FLOW)
    layer = Rescaling(1 / 255)
    for _ in range(2 * len(floats)):
        batch = next(whole)
        assert batch.dtype == np.uint8
        np.testing.assert_array_equal(np.asarray(layer(batch)), next(floats))
