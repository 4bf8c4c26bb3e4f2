"""Datasets of arrays: the same batches as of files with the same pixels, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from loaderd.errors import EmptyDataset, InvalidArgument
from loaderd_client import Session, image_dataset_from_arrays, image_dataset_from_dataframe
from loaderd_client import augment as A
from tests.support.daemons import Daemon, Serve
from tests.support.streams import killing_one

COUNT = 20
SIZE = (40, 52)
OPTIONS: dict[str, Any] = {"batch_size": 8, "seed": 1, "verbose": False}
RECIPE = [
    A.RandomResizedCrop(32, 32, scale=(0.3, 1.0)),
    A.RandomFlip(),
    A.RandomRotation(0.1, fill_mode="constant"),
    A.RandomColorJitter(0.2, 0.2),
    A.Normalization("imagenet"),
]
RESIZED = [A.Resize(36, 40), A.RandomCrop(32, 32), A.RandomFlip()]
SHAPED = [A.Resize(40, 40, crop_to_aspect_ratio=True), A.CenterCrop(32, 32)]


@pytest.fixture
def daemon(serve: Serve) -> Iterator[Daemon]:
    with serve(workers=2) as daemon, Session(daemon.path):
        yield daemon


def samples(channels: int = 3) -> dict[str, Any]:
    """Images of noise with one rectangle each, and all kinds of targets."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (COUNT, *SIZE, channels), dtype=np.uint8)
    masks = np.zeros((COUNT, *SIZE), np.int64)
    boxes, points = [], []
    for number in range(COUNT):
        left, top = (int(one) for one in rng.integers(0, 20, 2))
        masks[number, top : top + 10, left : left + 12] = 1 + number % 3
        boxes.append([[left, top, left + 12, top + 10]])
        points.append([[[left + 6, top + 5, 1]]])
    return {
        "images": images,
        "labels": rng.integers(0, 3, COUNT),
        "masks": masks,
        "boxes": boxes,
        "box_labels": [[number % 3] for number in range(COUNT)],
        "keypoints": points,
        "weights": np.arange(COUNT) / 10,
    }


def table(folder: Path, given: dict[str, Any]) -> dict[str, Any]:
    """The same samples in files."""
    rows: dict[str, Any] = {"image": [], "mask": []}
    for number in range(COUNT):
        for name, array in (("image", given["images"]), ("mask", given["masks"])):
            path = folder / f"{name}{number}.png"
            Image.fromarray(array[number].astype(np.uint8).squeeze()).save(path)
            rows[name].append(str(path))
    return rows | {
        "label": given["labels"],
        "boxes": given["boxes"],
        "box_labels": given["box_labels"],
        "keypoints": given["keypoints"],
        "weight": given["weights"],
    }


def flat(batch: Any) -> list[Any]:
    return keras.tree.flatten(batch)  # type: ignore[no-any-return]  # keras has no types


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("augment", [RECIPE[:3], RESIZED, SHAPED, [A.RandomFlip()], None])
def test_batches_are_those_of_files_with_the_same_pixels(
    daemon: Daemon, tmp_path: Path, channels: int, augment: Any
) -> None:
    given = samples(channels)
    given["images"][..., 3:] = 255  # PIL multiplies colours by alpha when it resizes
    mode: Any = {1: "grayscale", 3: "rgb", 4: "rgba"}[channels]
    names: dict[str, Any] = {
        name: name for name in ("mask", "label", "boxes", "box_labels", "keypoints", "weight")
    }
    options = {"augment": augment, "image_size": (32, 32), **OPTIONS}
    files = image_dataset_from_dataframe(
        table(tmp_path, given), color_mode=mode, **names, **options
    )
    arrays = image_dataset_from_arrays(**given, **options)
    for _ in range(2):
        for one, other in zip(files, arrays, strict=True):
            for own, expected in zip(flat(other), flat(one), strict=True):
                assert own.dtype == expected.dtype
                np.testing.assert_array_equal(own, expected)


def test_images_are_as_they_were_without_anything_else(daemon: Daemon) -> None:
    given = samples()
    made = image_dataset_from_arrays(given["images"], shuffle=False, **OPTIONS)
    assert made.image_shape == (*SIZE, 3)
    np.testing.assert_array_equal(np.concatenate([one["images"] for one in made]), given["images"])
    grey = image_dataset_from_arrays(given["images"][..., 0], shuffle=False, **OPTIONS)
    np.testing.assert_array_equal(grey[0]["images"], given["images"][:8, ..., :1])


def test_with_channels_first_arrays_and_batches_have_them_first(daemon: Daemon) -> None:
    given = samples()
    planar = given | {"images": given["images"].transpose(0, 3, 1, 2)}
    last = image_dataset_from_arrays(**given, augment=RECIPE, image_size=(32, 32), **OPTIONS)
    first = image_dataset_from_arrays(
        **planar, augment=RECIPE, image_size=(32, 32), data_format="channels_first", **OPTIONS
    )
    for one, other in zip(last, first, strict=True):
        np.testing.assert_array_equal(one["images"].transpose(0, 3, 1, 2), other["images"])
        np.testing.assert_array_equal(one["segmentation_masks"], other["segmentation_masks"])


def test_any_workers_and_kills_give_the_same_batches(serve: Serve) -> None:
    def batches(workers: int, kill: bool = False) -> list[Any]:
        with serve(workers=workers) as daemon, Session(daemon.path):
            made = image_dataset_from_arrays(
                **samples(), augment=RECIPE, image_size=(32, 32), **OPTIONS
            )
            passes: Any = (batch for _ in range(3) for batch in made)
            passes = killing_one(daemon, passes, 2) if kill else passes
            return [value.copy() for batch in passes for value in flat(batch)]

    alone = batches(1)
    for others in (batches(3), batches(3, kill=True)):
        for one, other in zip(alone, others, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_part_for_validation_and_weights_of_classes(daemon: Daemon) -> None:
    given = samples()
    options = {"validation_split": 0.25, "targets": "labels", **OPTIONS}
    parts = [
        image_dataset_from_arrays(given["images"], given["labels"], subset=subset, **options)
        for subset in ("training", "validation")
    ]
    assert [part.n for part in parts] == [15, 5]
    firsts = [image[0, 0].tolist() for part in parts for images, _ in part for image in images]
    assert sorted(firsts) == sorted(given["images"][:, 0, 0].tolist())
    uneven = np.array([0] * 18 + [1] * 2)
    balanced = image_dataset_from_arrays(
        given["images"], uneven, class_weights="balanced", targets="labels", **OPTIONS
    )
    assert np.concatenate([labels for _, labels in balanced]).sum() == COUNT / 2
    only = image_dataset_from_arrays(
        given["images"], uneven, sampling_weights=uneven, targets="labels", **OPTIONS
    )
    assert np.concatenate([labels for _, labels in only]).sum() == COUNT


def test_a_network_learns_mixed_labels(daemon: Daemon) -> None:
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 256)
    images = np.where(labels, 170, 80)[:, None, None, None] + rng.integers(-40, 40, (256, 8, 8, 3))
    train = image_dataset_from_arrays(
        images.astype(np.uint8), labels, targets="labels", seed=1, verbose=False,
        augment=[A.RandomFlip(), A.Rescaling(1 / 60, -2.0), A.MixUp(0.2)],
    )  # fmt: skip
    model = keras.Sequential(
        [
            keras.layers.Input((8, 8, 3)),
            keras.layers.Flatten(),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.03), "categorical_crossentropy")
    model.fit(train, epochs=8, verbose=0)
    predicted = model.predict(images / 60 - 2, verbose=0).argmax(-1)
    assert (predicted == labels).mean() > 0.95


def test_labels_of_one_number_are_mixed(daemon: Daemon) -> None:
    images = samples()["images"]
    values = np.arange(COUNT) / 10
    made = image_dataset_from_arrays(
        images, values, augment=[A.MixUp(1.0)], targets="labels", shuffle=False, **OPTIONS
    )
    mixed, labels = next(iter(made))
    assert labels.shape == (8,)
    for row in range(1, 8):  # with the row before
        weight = (labels[row] - values[row - 1]) / (values[row] - values[row - 1])
        assert 0 <= weight <= 1.0001
        expected = weight * images[row] + (1 - weight) * images[row - 1].astype(float)
        np.testing.assert_allclose(mixed[row], expected, atol=0.01)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_cutmix_takes_parts_of_masks_with_those_of_their_images(
    serve: Serve, data_format: Any
) -> None:
    """Each pixel has the colour of its class, whichever image it came from."""
    rng = np.random.default_rng(0)
    colors = rng.integers(0, 256, (256, 3), dtype=np.uint8)
    masks = rng.integers(0, 256, (COUNT, 12, 16), dtype=np.uint8)
    images = colors[masks]
    if data_format == "channels_first":
        images = images.transpose(0, 3, 1, 2)
    found = []
    for workers in (1, 3):
        with serve(workers=workers) as daemon, Session(daemon.path):
            made = image_dataset_from_arrays(
                images, np.arange(COUNT), masks=masks, data_format=data_format, **OPTIONS,
                augment=[A.RandomFlip(), A.RandomMix([A.CutMix(), A.CutMix(0.2)])],
            )  # fmt: skip
            found.append(list(made))
    mixed = 0
    for batch, other in zip(*found, strict=True):
        for own, expected in zip(flat(batch), flat(other), strict=True):
            np.testing.assert_array_equal(own, expected)
        shown, numbers = batch["images"], batch["segmentation_masks"][..., 0]
        if data_format == "channels_first":
            shown = shown.transpose(0, 2, 3, 1)
        np.testing.assert_array_equal(shown, colors[numbers])
        np.testing.assert_allclose(batch["labels"].sum(axis=1), 1, rtol=1e-6)
        mixed += int(((batch["labels"] > 0).sum(axis=1) == 2).sum())
    assert mixed > COUNT / 2


def test_parts_of_a_split_have_labels_and_boxes_of_one_shape(daemon: Daemon) -> None:
    given = samples()
    given["boxes"] = [[[0, 0, 5, 5]] * (number % 5) for number in range(COUNT)]
    given["box_labels"] = [[1] * (number % 5) for number in range(COUNT)]
    for shuffle in (False, True):
        options: dict[str, Any] = {"validation_split": 0.2, "shuffle": shuffle, **OPTIONS}
        boxed = {name: given[name] for name in ("images", "boxes", "box_labels")}
        shapes, widths = set(), set()
        for subset in ("training", "validation"):
            part: Any = {"subset": subset, **options}
            batch = image_dataset_from_arrays(**boxed, **part)[0]
            shapes.add(batch["bounding_boxes"]["boxes"].shape[1:])
            mixed = image_dataset_from_arrays(
                given["images"], list(range(COUNT)), augment=[A.CutMix()], **part
            )
            widths.add(mixed[0]["labels"].shape[1:])
        assert shapes == {(4, 4)}
        assert widths == {(COUNT,)}


def test_numbers_are_names_of_classes_for_their_weights(daemon: Daemon) -> None:
    images, labels = samples()["images"], [0, 1] * (COUNT // 2)
    weights: list[Any] = [{"1": 3.0, "0": 0.0}, {1: 3, 0: 0}]
    for given in weights:
        for augment in (None, [A.MixUp()]):
            made = image_dataset_from_arrays(
                images, labels, class_weights=given, targets="labels", augment=augment, **OPTIONS
            )
            found = np.concatenate([rows for _, rows in made])
            ones = found if found.ndim == 1 else found[:, 1]
            assert ones.sum() == pytest.approx(COUNT)


class Column:
    """A column of a table, as pandas has them."""

    def __init__(self, values: Any) -> None:
        self.values = np.array(values)

    def to_numpy(self) -> Any:
        return self.values


def test_a_column_of_a_table_is_read_by_its_rows(daemon: Daemon) -> None:
    images = samples()["images"]
    made = image_dataset_from_arrays(images, Column(np.eye(COUNT)), shuffle=False, **OPTIONS)
    np.testing.assert_array_equal(made[0]["labels"], np.eye(COUNT)[:8])
    stacked = np.empty(COUNT, object)
    stacked[:] = list(images)
    other = image_dataset_from_arrays(stacked, shuffle=False, **OPTIONS)
    np.testing.assert_array_equal(other[0]["images"], images[:8])


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"images": np.zeros((3, 4, 5, 3))}, r"`images` should be uint8.*[.]flow\(\)"),
    ({"images": np.zeros((3, 4, 5, 2), np.uint8)}, r"of 1, 3 or 4 channels.* \(3, 4, 5, 2\)"),
    ({"images": np.zeros((3, 4), np.uint8)}, "should be an array"),
    ({"images": [np.zeros((4, 4, 3)), np.zeros((5, 4, 3))]}, "`images` are not all of one size"),
    ({"images": 3}, "`images` should be an array"),
    ({"masks": [np.zeros((4, 4))] * 19 + [np.zeros((5, 4))]}, "`masks` are not all of one size"),
    ({"labels": {1: 2}}, "`labels` should be a list or an array, with a row for each image"),
    ({"labels": "a" * COUNT}, "`labels` should be a list or an array"),
    ({"labels": 3}, "`labels` should be a list or an array"),
    (
        {
            "labels": [*range(COUNT - 1), 2_000_000],
            "augment": [A.MixUp()],
            "masks": None,
            "boxes": None,
            "box_labels": None,
            "keypoints": None,
        },
        "labels are whole numbers up to 2000000",
    ),
    ({"cache": "memory"}, "`cache` and `decode` are for images in files"),
    ({"decode": "scaled"}, "`cache` and `decode` are for images in files"),
    ({"image_size": 32}, "`image_size` should be"),
    ({"validation_split": 0.5, "subset": "training", "seed": "x"}, "seed"),
    ({"augment": [A.Rescaling(2.0), A.Function(abs)]}, "augment: Function must come before"),
    ({"labels": [1, 2]}, f"`labels` has 2 rows, and there are {COUNT} images"),
    ({"labels": [None] * COUNT}, "row 0: labels should be"),
    ({"masks": np.zeros((COUNT, 4, 4), np.uint8)}, "`masks` should be whole numbers of shape"),
    ({"masks": np.full((COUNT, *SIZE), 256)}, "`masks` should be numbers of classes from 0 to 255"),
    ({"masks": np.zeros((COUNT, *SIZE))}, "`masks` should be whole numbers"),
    ({"color_mode": "grayscale"}, "`color_mode` follows from the channels"),
    ({"boxes": [[]] * COUNT, "box_labels": None}, "given together"),
    ({"sampling_weights": [-1.0] * COUNT}, "'sampling_weights': weights of samples must be"),
    ({"labels": None, "class_weights": "balanced"}, "`class_weights` needs"),
    ({"targets": "sizes"}, "`targets` should be some of labels"),
]


@pytest.mark.parametrize(("options", "says"), WRONG)
def test_what_is_wrong_is_said_in_one_line(
    daemon: Daemon, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidArgument, match=says) as caught:
        image_dataset_from_arrays(**(samples() | OPTIONS | options))
    assert "\n" not in str(caught.value)


def test_no_images_are_an_empty_dataset(daemon: Daemon) -> None:
    nothing: Any
    for nothing in (np.empty((0, 4, 5, 3), np.uint8), []):
        with pytest.raises(EmptyDataset, match="no images"):
            image_dataset_from_arrays(nothing)
    given = samples()
    with pytest.raises(EmptyDataset, match="the part for validation of 20 has none"):
        image_dataset_from_arrays(
            given["images"], validation_split=0.01, subset="validation", **OPTIONS
        )
