"""``image_dataset_from_directory`` takes the files, and says the words, that Keras's does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from loaderd.errors import EmptyDataset
from loaderd_client import ImageDataGenerator, image_dataset_from_directory
from tests.keras.differential.conftest import Connect

SIZE = (6, 5)
Options = dict[str, Any]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures in two classes, in a folder of one of them, in a hidden one, and beside them."""
    root = tmp_path_factory.mktemp("tree")
    draws = np.random.default_rng(3)
    for number, place in enumerate(["cat", "dog", "cat/more", ".hidden", "."] * 3):
        (root / place).mkdir(parents=True, exist_ok=True)
        keras.utils.save_img(root / place / f"{number}.png", draws.integers(0, 256, (*SIZE, 3)))
    return root


@contextlib.contextmanager
def keras_set_to(data_format: str) -> Iterator[None]:
    before = keras.config.image_data_format()
    keras.config.set_image_data_format(data_format)
    try:
        yield
    finally:
        keras.config.set_image_data_format(before)


def given(options: Options) -> Options:
    return {"image_size": SIZE, "batch_size": 20, "shuffle": False, "verbose": False} | options


def assert_same(own: Any, theirs: Any) -> None:
    """The same files, classes, and pixels of an epoch that is one batch, unless it is shuffled."""
    assert own.class_names == theirs.class_names
    assert own.file_paths == theirs.file_paths
    if own.shuffle:
        return
    batch, expected = own[0], next(iter(theirs))
    batch, expected = (one if isinstance(one, tuple) else (one,) for one in (batch, expected))
    for part, wanted in zip(batch, expected, strict=True):
        assert part.dtype == wanted.numpy().dtype
        # libpng turns colours into greys by other fractions than Pillow.
        np.testing.assert_allclose(part.astype(float), wanted.numpy().astype(float), atol=1)


@pytest.mark.parametrize("kind", [{"labels": None}, {"label_mode": None}], ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"shuffle": True, "seed": 4},
        {"validation_split": 0.3, "subset": "validation"},
        {"validation_split": 0.3, "subset": "training", "shuffle": True, "seed": 4},
    ],
    ids=str,
)
def test_without_labels_the_folders_are_no_classes(
    tree: Path, connect: Connect, kind: Options, options: Options
) -> None:
    every = given(kind | options)
    with connect():
        own = image_dataset_from_directory(tree, **every)
        assert_same(own, keras.utils.image_dataset_from_directory(tree, **every))


def test_labels_that_are_not_wanted_are_not_counted(tree: Path, connect: Connect) -> None:
    every = given({"labels": [0, 1], "label_mode": None})
    with connect():
        own = image_dataset_from_directory(tree, **every)
        assert_same(own, keras.utils.image_dataset_from_directory(tree, **every))


@pytest.mark.parametrize("share", [None, 0, 0.0, False, np.float32(0)], ids=repr)
def test_a_split_of_nothing_is_none(tree: Path, connect: Connect, share: Any) -> None:
    every = given({"validation_split": share})
    with connect():
        own = image_dataset_from_directory(tree, **every)
        assert_same(own, keras.utils.image_dataset_from_directory(tree, **every))


@pytest.mark.parametrize(
    "options",
    [
        {"data_format": "channels_first"},
        {"data_format": np.str_("Channels_First"), "color_mode": "rgba"},
        {"data_format": "channels_first", "color_mode": "grayscale", "label_mode": None},
        {"data_format": "channels_first", "image_size": (6, 7), "pad_to_aspect_ratio": True},
        {"data_format": "channels_last"},
        {},
    ],
    ids=str,
)
@pytest.mark.parametrize("setting", ["channels_last", "channels_first"])
def test_channels_are_where_the_argument_or_kerass_setting_has_them(
    tree: Path, connect: Connect, setting: str, options: Options
) -> None:
    every = given(options | {"interpolation": "nearest"})
    with keras_set_to(setting), connect():
        own: Any = image_dataset_from_directory(tree, **every)
        assert_same(own, keras.utils.image_dataset_from_directory(tree, **every))
        assert own.image_shape == (own[0] if own.class_names is None else own[0][0]).shape[1:]


@pytest.mark.parametrize(
    "options",
    [
        {"validation_split": 0.0, "subset": "training"},
        {"validation_split": 0.2},
        {"validation_split": 2},
        {"subset": "both"},
        {"data_format": "channels"},
        {"label_mode": None, "class_names": ["cat", "dog"]},
        {"labels": None, "class_names": ["cat", "dog"]},
        {"class_names": ["cat", "emu"]},
        {"labels": [0, 1]},
    ],
    ids=str,
)
def test_what_is_refused_is_refused_in_kerass_words(
    tree: Path, connect: Connect, options: Options
) -> None:
    with pytest.raises(ValueError) as theirs:
        keras.utils.image_dataset_from_directory(tree, **given(options))
    with connect(), pytest.raises(ValueError) as own:
        image_dataset_from_directory(tree, **given(options))
    words = str(theirs.value).split(". ")[0]
    assert str(own.value).startswith(words.split("; ")[0])


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({}, ": they belong into one subfolder for each class"),
        ({"labels": None}, ", nor in its subfolders"),
        ({"class_names": ["cat"]}, "the folders 'cat' of "),
        ({"validation_split": 0.2, "subset": "both"}, "validation_split leaves none of them"),
    ],
)
def test_a_folder_without_images_is_told_with_what_to_do(
    tmp_path: Path, connect: Connect, options: Options, advice: str
) -> None:
    (tmp_path / "cat").mkdir()
    with pytest.raises(ValueError, match=r"No (training )?images found in"):
        keras.utils.image_dataset_from_directory(tmp_path, **given(options))
    with connect(), pytest.raises(EmptyDataset, match="No images found in") as own:
        image_dataset_from_directory(tmp_path, **given(options))
    assert advice in str(own.value)


def test_a_split_that_leaves_no_image_is_told(tree: Path, connect: Connect) -> None:
    generator = ImageDataGenerator(validation_split=0.05)
    with connect(), pytest.raises(EmptyDataset, match="validation_split leaves none of them"):
        generator.flow_from_directory(tree, subset="validation")
