"""Arguments from NumPy, pandas and enumerations are taken as Keras takes them."""

from __future__ import annotations

import enum
import fractions
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import msgspec
import numpy as np
import pandas as pd
import pytest

from loaderd.errors import InvalidArgument
from loaderd.spec import spec as specs
from tests.keras.differential.cases import Options
from tests.keras.differential.conftest import Connect
from tests.keras.differential.corpus import table
from tests.keras.differential.surface import KERAS_WITH_ITSELF, keras_image, ours

pytestmark = pytest.mark.filterwarnings("ignore")


class Name(str):
    """A name with something more."""


class Mode(enum.StrEnum):
    """Keras knows the values, and not these names."""

    NUMBER = "sparse"
    FILL = "reflect"


class Count(enum.IntEnum):
    FIVE = 5


def series(values: list[Any]) -> Any:
    return pd.Series(values, index=range(3, 3 + len(values)))


GENERATOR: list[Options] = [
    {"rotation_range": np.array(20.0), "fill_mode": np.str_("reflect")},
    {"rotation_range": fractions.Fraction(20), "fill_mode": Mode.FILL},
    {"rotation_range": None, "shear_range": None, "rescale": None, "width_shift_range": None},
    {
        "rotation_range": 20,
        "cval": np.array(7),
        "fill_mode": np.array("constant"),
        "interpolation_order": np.array(0),
    },
    {"width_shift_range": np.array(0.2), "height_shift_range": np.array(3)},
    {"width_shift_range": np.float16(0.2), "height_shift_range": np.int8(3)},
    {"width_shift_range": [np.array(1), np.int64(3)], "height_shift_range": (np.float32(0.5), 0.1)},
    {"shear_range": np.longdouble(9), "interpolation_order": np.array(1)},
    {"zoom_range": pd.Series([0.8, 1.2])},
    {"zoom_range": np.array([0.8, 1.2])},
    {"zoom_range": np.float64(0.2)},
    {"brightness_range": (np.array(0.5), np.float32(1.5))},
    {"channel_shift_range": np.array(9.0), "horizontal_flip": np.array(True)},
    {"vertical_flip": np.float32(1), "samplewise_center": np.int64(1)},
    {"rescale": np.array(0.5), "data_format": np.str_("channels_last")},
    {"rescale": np.float32(1 / 255), "data_format": Name("channels_last")},
    {"dtype": np.dtype("float64")},
    {"dtype": Name("float16")},
    {"dtype": Name("bfloat16")},
]
FLOW: list[Options] = [
    {"classes": [np.str_("dog"), Name("cat")]},
    {"classes": np.array(["dog"])},
    {"classes": pd.Categorical(["dog", "cat"])},
    {"classes": {"dog": 1, "cat": 2}.keys()},
    {"class_mode": np.str_("sparse"), "color_mode": np.str_("grayscale")},
    {"interpolation": Name("box"), "target_size": np.array([6, 5])},
    {"target_size": series([6, 5]), "batch_size": np.array(5)},
    {"target_size": (np.int64(6), np.array(5)), "batch_size": np.uint8(5)},
    {"target_size": pd.Index([6, 5]), "batch_size": Count.FIVE},
    {"seed": np.array(7), "shuffle": np.bool_(True)},
    {"seed": np.array([7]), "shuffle": 1},
    {"seed": series([7])},
    {"seed": np.uint64(7)},
]


def batches(iterator: Any, count: int = 4) -> list[Any]:
    """Flat: the arrays of some batches."""
    found: list[Any] = []
    for _ in range(count):
        batch = next(iterator)
        found += batch if isinstance(batch, tuple) else (batch,)
    return found


def same(connect: Connect, flow: Callable[[Any], Any]) -> None:
    with connect():
        theirs, own = flow(keras_image), flow(ours)
        for one, other in zip(batches(own), batches(theirs), strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_allclose(
                np.asarray(one, np.float64), np.asarray(other, np.float64), atol=0.1
            )
        assert len(own) == len(theirs)
        if not KERAS_WITH_ITSELF:
            assert_plain(own.spec)


def assert_plain(spec: specs.Spec) -> None:
    """Whatever came in: Python's own is sent, and comes out as it went in."""

    def check(value: object) -> None:
        if isinstance(value, msgspec.Struct):
            for name in value.__struct_fields__:
                check(getattr(value, name))
        elif isinstance(value, tuple):
            for one in value:
                check(one)
        else:
            assert type(value) in (str, int, float, bool, type(None)), value

    check(spec)
    assert specs.decode(specs.encode(spec)) == spec


@pytest.mark.parametrize("options", GENERATOR, ids=str)
def test_of_generators(pictures: Path, connect: Connect, options: Options) -> None:
    same(
        connect,
        lambda module: module.ImageDataGenerator(**options).flow_from_directory(
            str(pictures), target_size=(6, 5), batch_size=5, seed=3
        ),
    )


@pytest.mark.parametrize("options", FLOW, ids=str)
def test_of_directories(pictures: Path, connect: Connect, options: Options) -> None:
    given: Options = {"target_size": (6, 5), "batch_size": 5, "seed": 3} | options
    same(
        connect,
        lambda module: module.ImageDataGenerator().flow_from_directory(pictures, **given),
    )


@pytest.mark.parametrize(
    "options",
    [*(each for each in FLOW if "classes" not in each), {"classes": [np.str_("dog"), Name("cat")]}],
    ids=str,
)
def test_of_tables(pictures: Path, connect: Connect, options: Options) -> None:
    given: Options = {
        "x_col": np.str_("file"),
        "y_col": Name("class"),
        "weight_col": np.str_("weight"),
        "target_size": (6, 5),
        "batch_size": 5,
        "seed": 3,
    } | options
    frame = table(pictures).assign(weight=np.arange(len(table(pictures)), dtype=float))
    same(
        connect,
        lambda module: module.ImageDataGenerator().flow_from_dataframe(frame, pictures, **given),
    )


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": np.array(5), "shuffle": np.bool_(False)},
        {"batch_size": np.uint8(5), "seed": np.array(9)},
        {"subset": np.str_("training"), "ignore_class_split": np.int64(1)},
        {"y": series(list(range(12)))},
        {"y": pd.Categorical([3, 4] * 6), "sample_weight": pd.Index(range(12))},
    ],
    ids=str,
)
def test_of_arrays(connect: Connect, options: Options) -> None:
    x = np.random.default_rng(1).integers(0, 256, (12, 6, 5, 3)).astype(np.float32)
    given: Options = {"y": np.arange(12) % 2, "batch_size": 5, "seed": 3} | options
    same(
        connect,
        lambda module: module.ImageDataGenerator(validation_split=np.float32(0.25)).flow(
            x, **given
        ),
    )


@pytest.mark.parametrize("share", [0.1, 0.2, 0.25, 0.3, 0.7, 0.9])
def test_a_share_of_less_precision_parts_where_keras_parts(
    pictures: Path, connect: Connect, share: float
) -> None:
    generator = {"validation_split": np.float32(share)}
    with connect():
        for rows in range(5, 61):
            x = np.zeros((rows, 2, 2, 3), np.float32)
            split = ours.ImageDataGenerator(**generator)._validation_split
            theirs = keras_image.ImageDataGenerator(**generator).flow(x, subset="training")
            assert rows - int(split * rows) == len(theirs.x)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("target_size", np.array([7, 6])),
        ("target_size", [np.int64(7), np.int64(6)]),
        ("batch_size", np.int64(4)),
        ("class_mode", np.str_("sparse")),
        ("color_mode", np.str_("rgb")),
        ("interpolation", Name("box")),
        ("save_prefix", np.str_("a")),
        ("shuffle", np.bool_(False)),
    ],
    ids=str,
)
def test_of_iterators_that_are_set_later(
    pictures: Path, connect: Connect, name: str, value: Any
) -> None:
    if KERAS_WITH_ITSELF:
        pytest.skip("Keras reads most of them when the iterator is made")
    with connect():
        flow = {"target_size": (6, 5), "batch_size": 5, "seed": 3, "shuffle": False}
        set_later = ours.ImageDataGenerator().flow_from_directory(pictures, **flow)
        next(set_later)
        setattr(set_later, name, value)
        next(set_later)
        assert_plain(set_later.spec)


@pytest.mark.parametrize(
    "options",
    [
        {"class_names": [np.str_("cat"), Name("dog"), "emu"]},
        {"labels": Name("inferred"), "label_mode": np.str_("categorical")},
        {"labels": [np.int64(1), np.uint8(0)] * 6},
        {"image_size": (np.int64(6), np.array(5)), "batch_size": np.int64(5)},
        {"image_size": np.int64(6)},
        {"batch_size": np.float64(5), "color_mode": np.str_("rgb")},
        {"seed": np.int64(7), "validation_split": np.float32(0.25), "subset": np.str_("training")},
        {"interpolation": np.str_("Nearest"), "crop_to_aspect_ratio": np.bool_(True)},
    ],
    ids=str,
)
def test_of_datasets(tmp_path: Path, connect: Connect, options: Options) -> None:
    from loaderd_client import image_dataset_from_directory

    for number, name in enumerate(("cat", "dog", "emu") * 4):
        (tmp_path / name).mkdir(exist_ok=True)
        keras.utils.save_img(tmp_path / name / f"{number}.png", np.full((6, 5, 3), number))
    given: Options = {"image_size": (6, 5), "batch_size": 5, "shuffle": False, "verbose": False}
    given |= options
    if "image_size" in options and not isinstance(options["image_size"], tuple):
        with pytest.raises(ValueError, match="Expected a tuple of 2 integers"):
            keras.utils.image_dataset_from_directory(tmp_path, **given)
        with connect(), pytest.raises(InvalidArgument, match="Expected a tuple of 2 integers"):
            image_dataset_from_directory(tmp_path, **given)
        return
    images, labels = next(iter(keras.utils.image_dataset_from_directory(tmp_path, **given)))
    with connect():
        own: Any = image_dataset_from_directory(tmp_path, **given)
        assert_plain(own.spec)
        np.testing.assert_array_equal(own[0][1], labels)
        assert own[0][0].shape == images.shape


def test_options_that_nobody_knows_are_taken_in_silence_as_by_keras(
    pictures: Path, connect: Connect
) -> None:
    extra = {"rescale": 1 / 255, "dtype": "uint8", "preprocessing_function": None, "verbose": 2}
    with connect(), warnings.catch_warnings():
        warnings.simplefilter("error")
        flow = ours.ImageDataGenerator().flow_from_dataframe(
            table(pictures)[:-2], str(pictures), x_col="file", on_error="skip", **extra
        )
        assert flow.dtype == "float32"
        assert getattr(flow, "on_error", "skip") == "skip"


@pytest.mark.parametrize("class_mode", ["raw", "input", None])
def test_samples_without_classes_have_no_classes(
    pictures: Path, connect: Connect, class_mode: str | None
) -> None:
    with connect():
        flow = ours.ImageDataGenerator().flow_from_dataframe(
            table(pictures), str(pictures), x_col="file", y_col="score", class_mode=class_mode
        )
        with pytest.raises(AttributeError, match=r"'DataFrameIterator' object has no .* 'classes'"):
            flow.classes  # noqa: B018  # the look itself is tried
