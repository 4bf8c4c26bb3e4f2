"""The generator itself: its options, what it learns from data, what it does to an image."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.keras.surface.module import image
from tests.keras.surface.samples import EVERYTHING, Pixels

pytestmark = pytest.mark.filterwarnings("ignore:This ImageDataGenerator specifies")

NUMBERS = np.arange(8)
LEARNT: dict[str, Any] = EVERYTHING | {"zoom_range": (0.2, 0.2)}
TO_ONE = 1 / 255


def noise(*shape: int) -> Pixels:
    return np.random.default_rng(sum(shape)).random(shape)


def test_every_option_may_be_given_at_once() -> None:
    generator = image.ImageDataGenerator(**EVERYTHING)
    for name in EVERYTHING.keys() - {"zoom_range", "featurewise_std_normalization"}:
        assert getattr(generator, name) == EVERYTHING[name]
    assert list(generator.zoom_range) == [0.8, 1.2]


def test_whitening_takes_the_place_of_the_deviation() -> None:
    with pytest.warns(UserWarning, match="zca_whitening"):
        generator = image.ImageDataGenerator(zca_whitening=True, featurewise_std_normalization=True)
    assert generator.featurewise_center
    assert not generator.featurewise_std_normalization


def test_a_split_that_parts_the_classes_is_refused(pixels: Pixels) -> None:
    generator = image.ImageDataGenerator(validation_split=0.5)
    sorted_labels = NUMBERS // 4
    words = "Training and validation subsets have different number of classes after the split"
    with pytest.raises(ValueError, match=words):
        generator.flow(pixels, sorted_labels, shuffle=False, batch_size=10, subset="validation")


def test_labels_that_are_no_classes_may_be_split_anywhere(pixels: Pixels) -> None:
    generator = image.ImageDataGenerator(validation_split=0.5)
    run = generator.flow(
        pixels, NUMBERS // 4, batch_size=10, ignore_class_split=True, subset="validation"
    )
    assert run.n == 4


@pytest.mark.parametrize(("subset", "part"), [("validation", slice(4)), ("training", slice(4, 8))])
def test_the_first_images_are_those_of_validation(subset: str, part: slice, pixels: Pixels) -> None:
    generator = image.ImageDataGenerator(validation_split=0.5)
    run = generator.flow(pixels, NUMBERS // 2 % 2, shuffle=False, batch_size=10, subset=subset)
    images, labels = run[0]
    np.testing.assert_array_equal(images, pixels[part])
    assert labels.tolist() == [0, 0, 1, 1]


def test_an_unknown_subset_is_refused(pixels: Pixels) -> None:
    generator = image.ImageDataGenerator(validation_split=0.5)
    words = 'Invalid subset name: foo; expected "training" or "validation".'
    with pytest.raises(ValueError, match=re.escape(words)):
        generator.flow(pixels, NUMBERS, shuffle=False, batch_size=3, subset="foo")


def test_a_split_is_a_fraction() -> None:
    words = "`validation_split` must be strictly between 0 and 1.  Received: 5"
    with pytest.raises(ValueError, match=re.escape(words)):
        image.ImageDataGenerator(validation_split=5)


def test_a_brightness_range_is_two_numbers() -> None:
    words = "`brightness_range should be tuple or list of two floats. Received: 0.1"
    with pytest.raises(ValueError, match=re.escape(words)):
        image.ImageDataGenerator(brightness_range=0.1)


def test_a_generator_learns_from_images_alone() -> None:
    generator = image.ImageDataGenerator(**EVERYTHING, data_format="channels_last")
    words = "Input to `.fit()` should have rank 4. Got array with shape: (3, 10, 10)"
    with pytest.raises(ValueError, match=re.escape(words)):
        generator.fit(noise(3, 10, 10))


def test_numbers_are_no_images() -> None:
    generator = image.ImageDataGenerator(**EVERYTHING, data_format="channels_last")
    words = "Input data in `NumpyArrayIterator` should have rank 4. You passed an array with shape"
    with pytest.raises(ValueError, match=words):
        generator.flow(np.arange(32))


def check_learnt(generator: Any, shape: tuple[int, ...]) -> None:
    """What was learnt fits images of that shape, and whitens them all."""
    pixels = math.prod(shape[1:])
    assert generator.zca_whitening_matrix.shape == (pixels, pixels)
    assert np.isfinite(generator.standardize(noise(*shape).astype("float32"))).all()


@pytest.mark.parametrize("shape", [(32, 10, 10, 1), (32, 10, 10, 3), (32, 4, 4, 1)])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_a_generator_learns_from_images_of_either_format(
    data_format: str, shape: tuple[int, ...]
) -> None:
    if data_format == "channels_first":
        shape = (shape[0], shape[3], *shape[1:3])
    generator = image.ImageDataGenerator(**LEARNT, data_format=data_format)
    generator.fit(noise(*shape))
    check_learnt(generator, shape)


def test_a_generator_learns_from_what_it_has_augmented() -> None:
    generator = image.ImageDataGenerator(**LEARNT, data_format="channels_last")
    generator.fit(noise(32, 10, 10, 3), augment=True)
    check_learnt(generator, (32, 10, 10, 3))


def test_channels_in_an_unlikely_place_are_learnt_from_with_a_warning() -> None:
    generator = image.ImageDataGenerator(**LEARNT, data_format="channels_first")
    with pytest.warns(UserWarning, match="expected either 1, 3 or 4 channels on axis 1"):
        generator.fit(noise(32, 10, 10, 3), augment=True)


def test_a_generator_starts_again_with_every_fit() -> None:
    generator = image.ImageDataGenerator(**LEARNT)
    for shape in [(32, 10, 10, 3), (32, 10, 10, 1), (32, 4, 4, 1)]:
        generator.fit(noise(*shape))
        check_learnt(generator, shape)


@pytest.mark.parametrize(
    "options",
    [
        {"y": NUMBERS, "shuffle": False},
        {"y": NUMBERS, "shuffle": False, "sample_weight": NUMBERS + 1},
        {"y": NUMBERS, "shuffle": True, "seed": 42},
        {"shuffle": True},
        {},
    ],
    ids=["labels", "weights", "shuffled", "images", "nothing_else"],
)
def test_arrays_flow_in_threes(options: dict[str, Any], pixels: Pixels, tmp_path: Path) -> None:
    generator = image.ImageDataGenerator(**EVERYTHING)
    run = generator.flow(pixels, batch_size=3, save_to_dir=str(tmp_path), **options)
    assert isinstance(run, image.NumpyArrayIterator)
    assert (run.n, len(run)) == (8, 3)


@pytest.mark.parametrize("labels", [None, NUMBERS], ids=["alone", "labelled"])
@pytest.mark.parametrize(
    "beside", [noise(8), [noise(8), noise(8, 3, 3)]], ids=["an_array", "a_list"]
)
def test_arrays_flow_with_what_lies_beside_them(
    beside: Any, labels: Pixels | None, pixels: Pixels
) -> None:
    generator = image.ImageDataGenerator(**EVERYTHING)
    assert len(generator.flow((pixels, beside), labels, shuffle=False, batch_size=2)) == 4


def test_arrays_of_unequal_lengths_do_not_flow(pixels: Pixels) -> None:
    generator = image.ImageDataGenerator(validation_split=0.2)
    assert len(generator.flow(pixels, batch_size=3)) == 3
    with pytest.raises(ValueError, match="All of the arrays in `x`"):
        generator.flow((pixels, noise(9, 3, 3)), NUMBERS, batch_size=3)
    with pytest.raises(ValueError, match=re.escape("`x` (images tensor) and `y` (labels) ")):
        generator.flow((pixels, noise(8)), np.arange(9), batch_size=3)


def test_whole_numbers_flow_without_blending() -> None:
    generator = image.ImageDataGenerator(rotation_range=90.0, interpolation_order=0)
    labels = np.random.default_rng(3).integers(0, 4, (1, 5, 5, 1))
    turned = next(generator.flow(labels, seed=123))
    assert set(np.unique(turned)) <= set(np.unique(labels))


def test_a_batch_is_standardized_as_a_whole(pixels: Pixels) -> None:
    generator = image.ImageDataGenerator(**EVERYTHING)
    generator.fit(pixels, augment=True)
    changed = np.stack([generator.random_transform(one) for one in pixels])
    assert changed.shape == pixels.shape
    standardized = generator.standardize(changed)
    assert standardized.shape == pixels.shape
    assert np.isfinite(standardized).all()


def test_a_flip_turns_an_image_over() -> None:
    generator = image.ImageDataGenerator(rotation_range=90, fill_mode="constant")
    one = noise(32, 32, 3)
    upright = generator.apply_transform(one, {"flip_vertical": True})
    np.testing.assert_allclose(upright, np.flipud(one), rtol=1e-5)
    sideways = generator.apply_transform(one, {"flip_horizontal": True})
    np.testing.assert_allclose(sideways, np.fliplr(one), rtol=1e-5)


def test_an_eighth_of_a_turn_cuts_the_corners() -> None:
    generator = image.ImageDataGenerator(rotation_range=90, fill_mode="constant")
    turned = generator.apply_transform(np.ones((3, 3, 3)), {"theta": 45})
    plus = [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
    np.testing.assert_allclose(turned, np.stack([plus] * 3, axis=-1), atol=0.02)


def test_another_seed_draws_another_transformation() -> None:
    generator = image.ImageDataGenerator(
        rotation_range=90.0,
        width_shift_range=0.1,
        height_shift_range=0.1,
        shear_range=0.5,
        zoom_range=0.2,
        channel_shift_range=0.1,
        brightness_range=(1, 5),
        horizontal_flip=True,
        vertical_flip=True,
    )
    shape = (2, 28, 28)
    drawn, other = (generator.get_random_transform(shape, seed) for seed in (1, 2))
    assert generator.get_random_transform(shape, 1) == drawn
    for name in ("theta", "tx", "ty", "shear", "zx", "zy", "channel_shift_intensity", "brightness"):
        assert drawn[name] != 0
        assert drawn[name] != other[name]


def test_without_ranges_nothing_is_drawn() -> None:
    drawn = image.ImageDataGenerator().get_random_transform((2, 28, 28), 1)
    assert drawn == {
        "theta": 0,
        "tx": 0,
        "ty": 0,
        "shear": 0,
        "zx": 1,
        "zy": 1,
        "flip_horizontal": False,
        "flip_vertical": False,
        "channel_shift_intensity": None,
        "brightness": None,
    }


def learnt_batch(pixels: Pixels, **options: bool) -> Pixels:
    """All images as a generator gives them that has learnt from these very images."""
    generator = image.ImageDataGenerator(rescale=TO_ONE, dtype="float64", **options)
    generator.fit(pixels)
    batch: Pixels = next(generator.flow(pixels, batch_size=len(pixels)))
    assert batch.dtype == np.float64
    return batch


def test_rescaled_images_are_centred(pixels: Pixels) -> None:
    assert abs(learnt_batch(pixels, featurewise_center=True).mean()) < 1e-6


def test_rescaled_images_have_a_deviation_of_one(pixels: Pixels) -> None:
    batch = learnt_batch(pixels, featurewise_center=True, featurewise_std_normalization=True)
    assert abs(batch.mean()) < 1e-6
    assert abs(batch.std() - 1) < 1e-5


def test_rescaled_images_are_white(pixels: Pixels) -> None:
    batch = learnt_batch(pixels, featurewise_center=True, zca_whitening=True)
    flat = batch.reshape(len(batch), -1)
    products = np.abs(flat @ flat.T) / len(flat)
    assert (products - np.eye(len(flat)) < 1e-6).all()
