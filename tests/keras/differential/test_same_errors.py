"""What Keras refuses, ours refuses, with an error of the same family.

Both may raise as late as at the first batch: a worker sees some errors only there.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.keras.differential.cases import Options
from tests.keras.differential.conftest import Connect
from tests.keras.differential.corpus import table
from tests.keras.differential.surface import keras_image, ours

pytestmark = pytest.mark.filterwarnings("ignore")

Call = Callable[[Any], object]
X = np.zeros((6, 5, 4, 3), np.float32)


def same_error(call: Call, *families: type[Exception]) -> None:
    """Both raise one of the families: the same one."""
    with pytest.raises(families) as keras:
        call(keras_image)
    family = next(each for each in families if isinstance(keras.value, each))
    with pytest.raises(family):
        call(ours)


@pytest.mark.parametrize(
    "options",
    [
        {"data_format": "channels_middle"},
        {"validation_split": 1.5},
        {"validation_split": -0.1},
        {"validation_split": 1},
        {"zoom_range": (1, 2, 3)},
        {"zoom_range": ("a", "b")},
        {"zoom_range": [0.5]},
        {"brightness_range": 0.5},
        {"brightness_range": (0.5, 1, 2)},
        {"brightness_range": np.array([0.5, 1])},
        {"compression_range": 1},
    ],
    ids=str,
)
def test_the_constructor(options: Options) -> None:
    same_error(lambda module: module.ImageDataGenerator(**options), ValueError, TypeError)


@pytest.mark.parametrize("shape", [(5, 4, 3), (2, 2, 5, 4, 3)])
def test_fit_takes_a_batch_of_images(shape: tuple[int, ...]) -> None:
    def fit(module: Any) -> None:
        module.ImageDataGenerator(featurewise_center=True).fit(np.zeros(shape))

    same_error(fit, ValueError)


@pytest.mark.parametrize(
    ("generator", "options"),
    [
        ({}, {"class_mode": "raw"}),
        ({}, {"class_mode": "multi_output"}),
        ({}, {"color_mode": "hsv"}),
        ({"validation_split": 0.5}, {"subset": "test"}),
        ({}, {"interpolation": "cubic"}),
        ({}, {"weight_col": "weight"}),
        ({"dtype": "uint8"}, {"save_prefix": "a", "save_to": "b"}),
        ({"preprocessing_function": 3}, {}),
        ({"preprocessing_function": operator.itemgetter(slice(2))}, {}),
    ],
    ids=str,
)
def test_flow_from_directory(
    pictures: Path, connect: Connect, generator: Options, options: Options
) -> None:
    given = {"target_size": (6, 5), "seed": 1} | options

    def flow(module: Any) -> None:
        next(module.ImageDataGenerator(**generator).flow_from_directory(str(pictures), **given))

    with connect():
        same_error(flow, ValueError, TypeError)


def test_a_directory_that_is_not_there(connect: Connect, tmp_path: Path) -> None:
    with connect():
        same_error(
            lambda module: module.ImageDataGenerator().flow_from_directory(str(tmp_path / "no")),
            FileNotFoundError,
        )


@pytest.mark.parametrize(
    "options",
    [
        {"class_mode": "other words"},
        {"class_mode": "multi_output", "y_col": "class"},
        {"class_mode": "binary", "y_col": "class"},
        {"class_mode": "binary", "y_col": "class", "classes": ["cat", "dog", "emu"]},
        {"class_mode": "binary", "y_col": "stars"},
        {"class_mode": "sparse", "y_col": "stars"},
        {"class_mode": "sparse", "y_col": "tags"},
        {"class_mode": "categorical", "y_col": "score"},
        {"class_mode": "raw", "y_col": "score", "weight_col": "class"},
        {"class_mode": None, "x_col": "score"},
        {"class_mode": None, "color_mode": "hsv"},
        {"class_mode": None, "subset": "test"},
        {"class_mode": None, "interpolation": "cubic"},
    ],
    ids=str,
)
def test_flow_from_dataframe(pictures: Path, connect: Connect, options: Options) -> None:
    given = {"x_col": "file", "target_size": (6, 5), "seed": 1} | options

    def flow(module: Any) -> None:
        generator = module.ImageDataGenerator()
        next(generator.flow_from_dataframe(table(pictures), str(pictures), **given))

    with connect():
        same_error(flow, ValueError, TypeError)


@pytest.mark.parametrize(
    ("x", "options"),
    [
        (X, {"y": np.zeros(5)}),
        (X, {"y": np.zeros(6), "sample_weight": np.zeros(7)}),
        ((X, np.zeros(4)), {}),
        ((X, [np.zeros(6), np.zeros(4)]), {}),
        ([X, [1, 2, 3, 4, 5, 6]], {}),  # a list of arrays: six numbers are none
        (X[0], {}),
        (X, {"subset": "test"}),
        (X, {"y": np.arange(6), "subset": "training"}),  # classes of the one half only
        (X[..., :2], {"save_to_dir": "."}),  # two channels are no picture
    ],
    ids=["y", "weights", "misc", "one of misc", "misc list", "rank", "subset", "split", "channels"],
)
def test_flow(connect: Connect, x: Any, options: Options) -> None:
    def flow(module: Any) -> None:
        next(module.ImageDataGenerator(validation_split=0.5).flow(x, seed=1, **options))

    with connect():
        same_error(flow, ValueError, TypeError)


@pytest.mark.parametrize(
    "options",
    [
        {"rescale": 1 / 255},
        {"samplewise_center": True},
        {"samplewise_std_normalization": True},
    ],
    ids=str,
)
def test_whole_numbers_that_should_be_parts(connect: Connect, options: Options) -> None:
    def flow(module: Any) -> None:
        next(module.ImageDataGenerator(dtype="uint8", **options).flow(X, seed=1))

    with connect():
        same_error(flow, ValueError, TypeError)
