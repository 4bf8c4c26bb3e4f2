"""Rescaling and normalization against Keras's layers and torchvision's formula."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from loaderd.augment.values import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Normalization,
    Rescaling,
    ValueOperation,
)
from loaderd.errors import InvalidArgument

ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "multiply": np.multiply,
    "divide": np.divide,
    "subtract": np.subtract,
}


def levels(channels: int) -> NDArray[np.float32]:
    """Images (1, 16, 16, channels) of all grey levels."""
    one = np.arange(256, dtype=np.float32).reshape(1, 16, 16, 1)
    return np.concatenate([np.roll(one, 99 * channel) for channel in range(channels)], 3)


def computed(operation: ValueOperation, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """The steps, in float32."""
    for name, numbers in operation.steps():
        images = ARITHMETIC[name](images, np.array(numbers, np.float32))
    return images


@pytest.mark.parametrize(
    ("scale", "offset"), [(1 / 255, 0.0), (1 / 127.5, -1.0), (2, 3), (-0.7, 0.1), (0.0, 5.0)]
)
def test_rescaling_is_that_of_keras(scale: float, offset: float) -> None:
    expected = np.asarray(keras.layers.Rescaling(scale, offset)(levels(3)))
    assert (computed(Rescaling(scale, offset), levels(3)) == expected).all()


def test_rescaling_adds_nothing_by_default() -> None:
    assert Rescaling(0.5).steps() == [("multiply", (0.5,))]
    assert Rescaling(0.5).channels is None


@pytest.mark.parametrize(
    ("mean", "variance", "channels"),
    [
        (127.5, 4096.0, 1),
        (127.5, 4000.0, 3),
        ((1.0, 2.5, 200.0), (0.3, 7.0, 5000.0), 3),
        ((1.0, 2.0, 3.0, 4.0), (5.0, 6.0, 7.0, 8.0), 4),
        (-3, 2, 3),
        (10.0, 1e-12, 3),
        (10.0, 1e-20, 3),
    ],
)
def test_normalization_is_that_of_keras(mean: Any, variance: Any, channels: int) -> None:
    # Keras has one number for all channels where no axis is kept.
    axis = -1 if isinstance(mean, tuple) else None
    layer = keras.layers.Normalization(axis=axis, mean=mean, variance=variance)
    found = computed(Normalization(mean, variance), levels(channels))
    # Its square root is of float32, ours is rounded to it.
    np.testing.assert_allclose(found, layer(levels(channels)), rtol=3e-7)


def test_one_number_serves_all_channels() -> None:
    mixed = Normalization((1.0, 2.0, 3.0), 4.0)
    assert mixed.channels == 3
    same = Normalization((1.0, 2.0, 3.0), (4.0, 4.0, 4.0))
    assert (computed(mixed, levels(3)) == computed(same, levels(3))).all()


def test_imagenet_is_that_of_torchvision() -> None:
    mean = np.array([0.485, 0.456, 0.406], np.float32)
    std = np.array([0.229, 0.224, 0.225], np.float32)
    expected = (levels(3) / np.float32(255) - mean) / std
    assert (computed(Normalization("imagenet"), levels(3)) == expected).all()
    assert Normalization() == Normalization("imagenet")


def test_imagenet_is_that_of_keras_applications() -> None:
    expected = keras.applications.imagenet_utils.preprocess_input(levels(3).copy(), mode="torch")
    found = computed(Normalization("imagenet"), levels(3))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert len(IMAGENET_MEAN) == len(IMAGENET_STD) == 3


@pytest.mark.parametrize(
    ("operation", "channels"),
    [
        (Normalization(), 3),
        (Normalization(1.0, 2.0), None),
        (Normalization((1.0, 2.0, 3.0, 4.0), 1.0), 4),
        (Normalization(1.0, (1.0, 2.0, 3.0)), 3),
        (Normalization((1.0,), (2.0,)), None),
    ],
)
def test_the_number_of_channels(operation: Normalization, channels: int | None) -> None:
    assert operation.channels == channels


def test_arrays_and_lists_are_taken() -> None:
    assert Normalization(np.ones(3), [2, 3, 4]) == Normalization(  # type: ignore[arg-type]
        (1.0, 1.0, 1.0), (2.0, 3.0, 4.0)
    )


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Normalization(1.0), "Normalization: `variance` is needed"),
        (lambda: Normalization("imagenet", 1.0), "`variance` is that of ImageNet"),
        (lambda: Normalization("cifar", 1.0), "Normalization: `mean`"),  # type: ignore[arg-type]
        (lambda: Normalization(1.0, 0.0), "`variance` must be positive"),
        (lambda: Normalization(1.0, (1.0, -1.0, 1.0)), "`variance` must be positive"),
        (lambda: Normalization(1.0, ()), "`variance` must"),
        (lambda: Normalization((), 1.0), "`mean` must"),
        (lambda: Normalization((1.0, 2.0), (1.0, 2.0, 3.0)), "as many numbers as `mean`"),
        (lambda: Normalization(math.nan, 1.0), "`mean` must"),
        (lambda: Normalization(1.0, math.nan), "`variance` must"),
        (lambda: Normalization(1.0, math.inf), "`variance` must"),
        (lambda: Rescaling("1/255"), "Rescaling: `scale` expected"),  # type: ignore[arg-type]
        (lambda: Rescaling(math.inf), "Rescaling: `scale` must"),
        (lambda: Rescaling(1.0, math.nan), "Rescaling: `offset` must"),
    ],
)
def test_wrong_arguments_are_refused(make: Callable[[], Any], text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        make()
