"""Folders of pictures, whose subfolders are the classes."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loaderd.errors import EmptyDataset, InvalidArgument
from tests.keras.surface.module import image, only_on
from tests.keras.surface.samples import SIDE, Shelf, blackout, grains, write

pytestmark = pytest.mark.filterwarnings('ignore:Using ".tiff" files')

SMALL = (8, 8)


def flow(root: Path, generator: dict[str, Any] | None = None, **options: Any) -> Any:
    return image.ImageDataGenerator(**generator or {}).flow_from_directory(str(root), **options)


def test_every_picture_in_every_folder_is_found(tree: Shelf) -> None:
    found = flow(tree.root)
    assert found.class_indices == {"class-0": 0, "class-1": 1}
    assert sorted(found.filenames) == sorted(tree.names)
    assert len(found.classes) == found.samples == 40


def test_the_classes_are_those_of_the_folders(tree: Shelf) -> None:
    found = flow(tree.root)
    for name, number in zip(found.filenames, found.classes, strict=True):
        assert name.startswith(f"class-{number}/")


@pytest.mark.parametrize("directory", ["", b""])
def test_a_folder_without_a_name_is_not_the_working_directory(directory: Any) -> None:
    with pytest.raises(FileNotFoundError):
        image.ImageDataGenerator().flow_from_directory(directory)


def test_pictures_are_known_by_the_ends_of_their_names(tmp_path: Path) -> None:
    pictures = ["a.png", "b0.jpg", "c-1.jpeg", "2d.bmp", "e.ppm", "f.tiff", "5-g.tif", "h.PnG"]
    others = ["notes.txt", "table.csv", "smile.gif", "png.old"]
    places = [tmp_path / "only" / place for place in (".", "one", "two")]
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
        for name in pictures:
            write(place / name, grains("rgb", count=1)[0])
        for name in others:
            (place / name).touch()
        shutil.copy(place / "a.png", place / "no-dot-png")
    found = flow(tmp_path)
    assert found.samples == 3 * len([*pictures, "no-dot-png"])
    assert {Path(name).name for name in found.filenames} == {*pictures, "no-dot-png"}


def test_colours_for_printers_are_refused(tree: Shelf) -> None:
    words = 'Invalid color mode: cmyk; expected "rgb", "rgba", or "grayscale"'
    with pytest.raises(ValueError, match=words):
        flow(tree.root, color_mode="cmyk")


def test_an_unknown_class_mode_is_refused(tree: Shelf) -> None:
    with pytest.raises(ValueError, match="Invalid class_mode: output; expected one of: "):
        flow(tree.root, class_mode="output")


@only_on(keras=False)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cache", "ram"),
        ("class_mode", "zz"),
        ("class_mode", ["zz"]),
        ("color_mode", "cmyk"),
        ("data_format", "first"),
        ("decode", "fast"),
    ],
)
def test_what_is_not_allowed_is_told_when_it_is_set_later_and_until_it_is_mended(
    name: str, value: Any, tree: Shelf
) -> None:
    found = flow(tree.root, target_size=SMALL, shuffle=False)
    before, good = found[0][0].tobytes(), getattr(found, name)
    setattr(found, name, value)
    for _ in range(2):
        with pytest.raises(InvalidArgument, match=f"^Invalid {name.replace('_', '.')}: "):
            next(found)
    setattr(found, name, good)
    assert found[0][0].tobytes() == before


@only_on(keras=False)
@pytest.mark.parametrize("directory", [None, 3])
def test_what_is_no_path_is_refused(directory: Any) -> None:
    with pytest.raises(TypeError, match="`directory` should be the path of a folder"):
        image.ImageDataGenerator().flow_from_directory(directory)


@pytest.fixture
def dark(tree: Shelf) -> Any:
    """All pictures of the tree in threes, through a function that blackens them."""
    return flow(
        tree.root,
        {"preprocessing_function": blackout},
        target_size=(26, 26),
        color_mode="rgb",
        batch_size=3,
        class_mode="categorical",
    )


def test_a_batch_is_had_by_its_index(dark: Any) -> None:
    assert len(dark) == math.ceil(40 / 3)
    images, labels = dark[1]
    assert images.shape == (3, 26, 26, 3)
    assert labels.shape == (3, 2)
    assert (labels.sum(axis=1) == 1).all()


def test_a_function_of_mine_sees_every_picture(dark: Any) -> None:
    images, _ = dark[5]
    assert not images.any()


def test_there_is_no_batch_behind_the_last(dark: Any) -> None:
    words = "Asked to retrieve element 14, but the Sequence has length 14"
    with pytest.raises(ValueError, match=words):
        dark[14]


def test_the_images_again_are_a_copy(tree: Shelf) -> None:
    images, again = next(flow(tree.root, class_mode="input"))
    assert images.shape == again.shape == (32, 256, 256, 3)
    np.testing.assert_array_equal(images, again)
    again[0, 0, 0] += 1
    assert (images[0, 0, 0] != again[0, 0, 0]).all()


@pytest.mark.parametrize(("fraction", "training"), [(0.25, 30), (0.5, 20), (0.75, 10)])
def test_validation_takes_its_part_of_every_class(
    fraction: float, training: int, tree: Shelf
) -> None:
    split = {"validation_split": fraction}
    train = flow(tree.root, split, subset="training")
    held = flow(tree.root, split, subset="validation")
    assert (train.samples, held.samples) == (training, 40 - training)
    assert len(train.classes) == training
    assert len(train.class_indices) == len(held.class_indices) == 2
    assert np.bincount(train.classes).tolist() == [training // 2] * 2
    assert sorted(train.filenames + held.filenames) == sorted(tree.names)


def test_an_unknown_subset_is_refused(tree: Shelf) -> None:
    with pytest.raises(ValueError, match="Invalid subset name: foo;"):
        flow(tree.root, {"validation_split": 0.5}, subset="foo")


def test_pictures_are_those_of_the_files(tree: Shelf) -> None:
    found = flow(tree.root, target_size=(SIDE, SIDE), batch_size=40, shuffle=False)
    images, labels = next(found)
    np.testing.assert_array_equal(labels.argmax(axis=1), found.classes)
    for name, got in zip(found.filenames, images, strict=True):
        if int(name.split("-")[-1].split(".")[0]) < 24:  # the wide greys are told apart elsewhere
            wanted = image.img_to_array(image.load_img(tree.root / name))
            np.testing.assert_array_equal(got, wanted)


def test_pictures_are_saved_as_they_come(tree: Shelf, tmp_path: Path) -> None:
    saving: dict[str, Any] = {"save_to_dir": str(tmp_path), "save_prefix": "seen"}
    next(flow(tree.root, target_size=SMALL, batch_size=3, shuffle=False, **saving))
    saved = {path.name.split("_")[1] for path in tmp_path.glob("seen_*.png")}
    assert saved >= {"0", "1", "2"}


@only_on(keras=True)
def test_keras_gives_an_empty_run_over_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    assert len(flow(tmp_path)) == 0


@only_on(keras=False)
def test_no_pictures_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    with pytest.raises(EmptyDataset):
        flow(tmp_path)


def test_a_class_that_is_missing_has_no_pictures(tree: Shelf) -> None:
    assert flow(tree.root, classes=["class-1", "class-9"]).samples == 20


@only_on(keras=False)
def test_a_class_that_is_missing_is_told(tree: Shelf) -> None:
    with pytest.warns(UserWarning, match="no images of 'class-9'"):
        flow(tree.root, classes=["class-1", "class-9"])


@only_on(keras=True)
def test_keras_tells_no_seed_that_was_not_given(tree: Shelf) -> None:
    assert flow(tree.root).seed is None


@only_on(keras=False)
def test_the_seed_that_was_picked_is_told(tree: Shelf) -> None:
    given: dict[str, Any] = {"target_size": SMALL, "batch_size": 40, "class_mode": "sparse"}
    picked = flow(tree.root, **given)
    again = flow(tree.root, seed=picked.seed, **given)
    for one, other in zip(next(picked), next(again), strict=True):
        np.testing.assert_array_equal(one, other)
