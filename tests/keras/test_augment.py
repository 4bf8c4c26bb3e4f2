"""``augment=[...]`` of image_dataset_from_directory: what it takes and refuses, fits, pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from loaderd.errors import InvalidArgument
from loaderd_client import (
    ImageDataGenerator,
    LoaderSequence,
    image_dataset_from_dataframe,
    image_dataset_from_directory,
)
from loaderd_client import augment as A

SIZE = (24, 20)


def dataset(photos: Path, augment: Any, **more: Any) -> LoaderSequence:
    options: dict[str, Any] = {"image_size": SIZE, "batch_size": 8, "seed": 3, "verbose": False}
    made = image_dataset_from_directory(photos, augment=augment, **(options | more))
    assert isinstance(made, LoaderSequence)
    return made


def test_a_recipe_of_today_trains_a_model(photos: Path) -> None:
    train = dataset(
        photos,
        [
            A.RandomResizedCrop(*SIZE),
            A.RandomFlip("horizontal"),
            A.Normalization("imagenet"),
            A.RandomMix([A.MixUp(), A.CutMix()]),
        ],
    )
    model = keras.Sequential(
        [keras.layers.Input((*SIZE, 3)), keras.layers.Flatten(), keras.layers.Dense(3, "softmax")]
    )
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(train, epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    images, labels = train[0]
    assert images.dtype == labels.dtype == np.float32
    assert labels.shape == (8, 3)


def test_without_a_crop_operations_get_images_of_image_size(photos: Path) -> None:
    plain, flipped = dataset(photos, []), dataset(photos, [A.RandomFlip("horizontal")])
    for one, other in zip(plain[0][0], flipped[0][0], strict=True):
        np.testing.assert_array_equal(np.sort(one, axis=1), np.sort(other, axis=1))
        assert (one == other).all() or (one == other[:, ::-1]).all()


def test_a_list_that_begins_with_resize_loads_images_in_that_size(photos: Path) -> None:
    cropped = dataset(photos, [A.Resize(30, 28), A.CenterCrop(*SIZE)])
    whole = dataset(photos, None, image_size=(30, 28))
    np.testing.assert_array_equal(cropped[0][0], whole[0][0][:, 3:27, 4:24])


@pytest.mark.parametrize("how", [{"color_mode": "grayscale"}, {"color_mode": "rgba"}])
def test_images_of_other_channels_are_augmented(photos: Path, how: dict[str, Any]) -> None:
    made = dataset(photos, [A.RandomResizedCrop(*SIZE), A.RandomFlip()], **how)
    channels = {"grayscale": 1, "rgba": 4}[how["color_mode"]]
    assert made[0][0].shape == (8, *SIZE, channels)
    assert made[0][0].std() > 1


def test_channels_first_is_the_same_transposed(photos: Path) -> None:
    operations = [A.RandomResizedCrop(*SIZE), A.Normalization("imagenet"), A.CutMix()]
    last = dataset(photos, operations)
    first = dataset(photos, operations, data_format="channels_first")
    for (one, labels), (other, others) in zip(last, first, strict=True):
        np.testing.assert_array_equal(one, other.transpose(0, 2, 3, 1))
        np.testing.assert_array_equal(labels, others)


@pytest.mark.parametrize(
    ("augment", "more", "says"),
    [
        (A.RandomFlip(), {}, "should be a list of operations"),
        ("flip", {}, "should be a list of operations"),
        ([lambda x: x], {}, "should hold operations of loaderd_client.augment"),
        ([A.RandomCrop(8, 8)], {}, r"images of \(height, width\) \(8, 8\), but `image_size`"),
        ([A.MixUp(), A.RandomFlip()], {}, "RandomFlip must come before MixUp"),
        ([A.Rescaling(1 / 255), A.RandomFlip()], {}, "RandomFlip must come before Rescaling"),
        ([A.Normalization()], {"color_mode": "grayscale"}, "is for 3 channels"),
        ([A.RandomCrop(*SIZE)], {"cache": "memory"}, "begin `augment` with an antialiased Resize"),
        ([A.RandomCrop(*SIZE)], {"crop_to_aspect_ratio": True}, "`crop_to_aspect_ratio` has no"),
        ([A.Resize(*SIZE)], {"pad_to_aspect_ratio": True}, "`pad_to_aspect_ratio` has no"),
        ([A.Resize(*SIZE)], {"interpolation": "nearest"}, "give it to the operation that does"),
    ],
)
def test_a_list_that_cannot_be_is_refused_in_one_line(
    photos: Path, augment: Any, more: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidArgument, match=says) as caught:
        dataset(photos, augment, **more)
    assert "\n" not in str(caught.value)


def test_a_preview_shows_what_training_gets_and_counts_as_no_read(
    photos: Path, tmp_path: Path
) -> None:
    operations = [A.RandomResizedCrop(*SIZE), A.Normalization("imagenet")]
    train, twin = dataset(photos, operations), dataset(photos, operations)
    path = tmp_path / "preview.png"
    picture = train.preview(4, path)
    with Image.open(path) as saved:
        assert saved.size == picture.size
    images = train[0][0]
    np.testing.assert_array_equal(images, twin[0][0])
    shown = np.asarray(picture)
    times = -(-96 // min(SIZE))
    first = shown[: SIZE[0] * times : times, : SIZE[1] * times : times]
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(first, (images[0] * std + mean) * 255, atol=0.51)


@pytest.mark.parametrize("class_mode", ["categorical", "sparse", "binary", None])
def test_a_flow_of_a_generator_has_a_preview_too(photos: Path, class_mode: str | None) -> None:
    flow = ImageDataGenerator(rescale=1 / 255, rotation_range=20).flow_from_directory(
        photos, target_size=SIZE, class_mode=class_mode, classes=["cat", "dog"]
    )
    assert flow.preview(3).mode == "RGB"


def test_a_preview_of_nothing_is_refused(photos: Path) -> None:
    with pytest.raises(InvalidArgument, match="at least 1"):
        dataset(photos, None).preview(0)


def test_draws_follow_from_the_number_in_the_list_that_the_program_wrote(
    photos: Path, tmp_path: Path
) -> None:
    """Whether a resize is done when images are loaded, or by the canvas, or before the list."""
    names = [str(path) for path in sorted(photos.glob("cat/*.jpg"))]
    tail = [A.RandomFlip("horizontal"), A.RandomBrightness(0.4)]
    options: dict[str, Any] = {"image_size": SIZE, "batch_size": 8, "seed": 3, "shuffle": False}

    def of_table(augment: list[Any]) -> Any:
        table = {"image": names, "label": ["cat"] * len(names)}
        made = image_dataset_from_dataframe(
            table, label="label", augment=augment, targets="labels", verbose=False, **options
        )
        return made[0][0]

    def of_folder(augment: list[Any]) -> Any:
        made = image_dataset_from_directory(
            photos / "cat", labels=None, augment=augment, verbose=False, **options
        )
        return made[0]

    for augment in ([A.Resize(*SIZE), *tail], tail):
        np.testing.assert_allclose(of_table(augment), of_folder(augment), atol=2)
