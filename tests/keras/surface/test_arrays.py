"""Pictures that are an array already, with whatever belongs to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loaderd.errors import EmptyDataset
from tests.keras.surface.module import image, only_on
from tests.keras.surface.samples import EVERYTHING, Pixels, grains

pytestmark = pytest.mark.filterwarnings("ignore:This ImageDataGenerator specifies")

COUNT = 8
NUMBERS = np.arange(COUNT)


def iterate(pixels: Any, labels: Any = None, **options: Any) -> Any:
    """In threes unless told otherwise, through every augmentation there is."""
    given: dict[str, Any] = {"batch_size": 3} | options
    generator = image.ImageDataGenerator(**EVERYTHING)
    return image.NumpyArrayIterator(pixels, labels, generator, **given)


def epoch(sequence: Any) -> list[int]:
    """The labels of a whole epoch, in the order in which they come."""
    return [int(label) for index in range(len(sequence)) for label in sequence[index][1]]


def test_images_come_with_their_labels(pixels: Pixels, tmp_path: Path) -> None:
    images, labels = next(iterate(pixels, NUMBERS, shuffle=False, save_to_dir=str(tmp_path)))
    assert images.shape == pixels[:3].shape
    assert labels.tolist() == [0, 1, 2]


def test_weights_come_third(pixels: Pixels, tmp_path: Path) -> None:
    run = iterate(
        pixels, NUMBERS, shuffle=False, sample_weight=NUMBERS + 1, save_to_dir=str(tmp_path)
    )
    images, labels, weights = next(run)
    assert images.shape == pixels[:3].shape
    assert labels.tolist() == [0, 1, 2]
    assert weights.tolist() == [1, 2, 3]


def test_every_picture_of_a_batch_is_saved(pixels: Pixels, tmp_path: Path) -> None:
    next(iterate(pixels, shuffle=False, save_to_dir=str(tmp_path), save_prefix="kept"))
    saved = {path.name.split("_")[1] for path in tmp_path.glob("kept_*.png")}
    assert saved >= {"0", "1", "2"}


def test_shuffled_images_are_all_there_in_another_order(pixels: Pixels, tmp_path: Path) -> None:
    run = iterate(pixels, NUMBERS, shuffle=True, save_to_dir=str(tmp_path), seed=42)
    batches = [next(run) for _ in range(3)]
    assert batches[0][0].shape == pixels[:3].shape
    order = np.concatenate([labels for _, labels in batches])
    assert sorted(order) == NUMBERS.tolist() != order.tolist()


@pytest.mark.parametrize("options", [{}, {"shuffle": True}])
def test_images_without_labels_come_alone(
    options: dict[str, Any], pixels: Pixels, tmp_path: Path
) -> None:
    images = next(iterate(pixels, save_to_dir=str(tmp_path), **options))
    assert type(images) is np.ndarray
    assert images.shape == pixels[:3].shape


def extras() -> list[Pixels]:
    """What may come beside the images: a number for each, and a small matrix for each."""
    rng = np.random.default_rng(5)
    return [rng.random(COUNT), rng.random((COUNT, 3, 3))]


def check_parts(parts: Any, pixels: Pixels, beside: list[Pixels], place: slice) -> None:
    assert type(parts) is list
    assert parts[0].shape == pixels[place].shape
    assert len(parts) == 1 + len(beside)
    for got, wanted in zip(parts[1:], beside, strict=True):
        np.testing.assert_array_equal(got, wanted[place])


def test_an_array_beside_the_images_comes_with_them(pixels: Pixels) -> None:
    numbers, _ = extras()
    run = iterate((pixels, numbers), NUMBERS, shuffle=False, batch_size=2)
    for start in range(0, COUNT, 2):
        parts, labels = next(run)
        check_parts(parts, pixels, [numbers], slice(start, start + 2))
        assert labels.tolist() == [start, start + 1]


def test_a_list_of_arrays_beside_the_images_comes_with_them(pixels: Pixels) -> None:
    run = iterate((pixels, extras()), NUMBERS, shuffle=False, batch_size=2)
    for start in range(0, COUNT, 2):
        parts, _ = next(run)
        check_parts(parts, pixels, extras(), slice(start, start + 2))


@pytest.mark.parametrize("one", [True, False])
def test_what_lies_beside_the_images_needs_no_labels(one: bool, pixels: Pixels) -> None:
    beside = extras()[:1] if one else extras()
    given = beside[0] if one else beside
    check_parts(next(iterate((pixels, given), shuffle=False)), pixels, beside, slice(3))


def test_a_split_that_nobody_asks_for_leaves_all_images(pixels: Pixels) -> None:
    generator = image.ImageDataGenerator(validation_split=0.2)
    run = image.NumpyArrayIterator(pixels, None, generator, batch_size=3)
    images = next(run)
    assert isinstance(images, np.ndarray)
    assert images.shape == pixels[:3].shape
    assert run.n == COUNT


def test_what_lies_beside_the_images_is_as_long(pixels: Pixels) -> None:
    longer = np.zeros((COUNT + 1, 3, 3))
    with pytest.raises(ValueError, match="All of the arrays in `x` should have the same length"):
        iterate((pixels, longer), NUMBERS)


def test_the_labels_are_as_many_as_the_images(pixels: Pixels) -> None:
    words = r"`x` \(images tensor\) and `y` \(labels\) should have the same length"
    with pytest.raises(ValueError, match=words):
        iterate((pixels, extras()[0]), np.arange(COUNT + 1))


def test_the_weights_are_as_many_as_the_images(pixels: Pixels) -> None:
    words = r"`x` \(images tensor\) and `sample_weight` should have the same length"
    with pytest.raises(ValueError, match=words):
        iterate(pixels, NUMBERS, sample_weight=np.arange(COUNT + 1))


def test_a_batch_is_had_by_its_index(pixels: Pixels, tmp_path: Path) -> None:
    run = iterate(pixels, NUMBERS, shuffle=False, save_to_dir=str(tmp_path))
    assert len(run) == COUNT // 3 + 1
    images, labels = run[0]
    assert images.shape == pixels[:3].shape
    assert labels.tolist() == [0, 1, 2]


def test_every_epoch_has_an_order_of_its_own(pixels: Pixels, tmp_path: Path) -> None:
    run = iterate(pixels, NUMBERS, shuffle=True, save_to_dir=str(tmp_path), seed=123)
    first = epoch(run)
    run.on_epoch_end()
    second = epoch(run)
    assert sorted(first) == sorted(second) == NUMBERS.tolist()
    assert first != NUMBERS.tolist()
    assert first != second


def test_turned_labels_are_the_labels_where_none_is_blended() -> None:
    rings = np.maximum(*np.abs(np.mgrid[-7:8, -7:8])) // 2  # squares within squares: 0 to 3
    generator = image.ImageDataGenerator(rotation_range=90.0, interpolation_order=0)
    run = image.NumpyArrayIterator(rings[None, ..., None], None, generator, seed=123)
    for _ in range(5):
        assert np.unique(next(run)).tolist() == [0, 1, 2, 3]


@only_on(keras=True)
def test_keras_gives_an_empty_run_over_no_images() -> None:
    assert len(iterate(grains("rgb")[:0])) == 0


@only_on(keras=False)
def test_no_images_are_refused() -> None:
    with pytest.raises(EmptyDataset):
        iterate(grains("rgb")[:0])
