"""``class_weights``, ``sampling_weight`` and ``RepeatedAugmentation``: what they do and refuse."""

from __future__ import annotations

from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from loaderd.errors import InvalidArgument
from loaderd_client import (
    LoaderSequence,
    image_dataset_from_dataframe,
    image_dataset_from_directory,
)
from loaderd_client import augment as A

OPTIONS: dict[str, Any] = {
    "image_size": (24, 20), "batch_size": 8, "seed": 3, "verbose": False,
}  # fmt: skip
COUNTS = {"cat": 41, "dog": 30, "emu": 25}


def folder(photos: Path, **more: Any) -> Any:
    return image_dataset_from_directory(photos, **(OPTIONS | more))


def rows(photos: Path, count: int = 96) -> pd.DataFrame:
    paths = sorted(map(str, photos.glob("*/*.jpg")))[:count]
    names = [Path(path).parent.name for path in paths]
    return pd.DataFrame({"image": paths, "class": names, "often": np.arange(count) % 4})


def table(photos: Path, **more: Any) -> Any:
    return image_dataset_from_dataframe(
        rows(photos), **{"label": "class", "targets": "labels", **OPTIONS, **more}
    )


def ids_of(made: LoaderSequence, epochs: int = 1) -> list[int]:
    found: list[int] = []
    for _ in range(epochs):
        for index in range(len(made)):
            found += made.fetch(index).ids.tolist()
        made.on_epoch_end()
    return found


def per_class(made: LoaderSequence, epochs: int = 1) -> list[int]:
    names = [Path(one).parent.name for one in made.filenames]
    drawn = [names[sample] for sample in ids_of(made, epochs)]
    return [drawn.count(name) for name in COUNTS]


@pytest.mark.parametrize("make", [folder, table])
def test_balanced_classes_come_equally_often(photos: Path, make: Any) -> None:
    made = make(photos, class_weights="balanced")
    assert len(made) == 12
    counts = per_class(made, epochs=4)
    assert sum(counts) == 4 * 96
    np.testing.assert_allclose(counts, 4 * 32, atol=8)


@pytest.mark.parametrize("make", [folder, table])
def test_a_table_weighs_its_classes_and_leaves_others_at_1(photos: Path, make: Any) -> None:
    counts = per_class(make(photos, class_weights={"cat": 0, "emu": np.float32(2)}), epochs=4)
    assert counts[0] == 0
    np.testing.assert_allclose(counts[2] / counts[1], 2 * 25 / 30, atol=0.15)


def test_the_same_weights_from_names_numbers_and_a_column_give_the_same_order(photos: Path) -> None:
    counts = list(COUNTS.values())
    columns = {
        "number": np.repeat([2, 0, 1], counts),
        "weight": np.repeat(1 / np.array(counts), counts),
    }
    given = rows(photos).assign(**columns)

    def order(**how: Any) -> list[int]:
        return ids_of(image_dataset_from_dataframe(given, **how, **OPTIONS))

    names = order(label="class", class_weights="balanced")
    assert sorted(names) != list(range(96))
    assert names == order(label="class", class_weights="balanced")
    assert names == order(label="number", class_weights="balanced")
    assert names == order(sampling_weight="weight")


def test_classes_of_given_labels_can_be_balanced(photos: Path) -> None:
    made = folder(photos, class_weights="balanced", labels=[0] * 41 + [1] * 30 + [5] * 25)
    np.testing.assert_allclose(per_class(made, epochs=4), 4 * 32, atol=8)


def test_a_column_says_how_often_samples_come(photos: Path) -> None:
    found = np.bincount(ids_of(table(photos, sampling_weight="often"), epochs=3), minlength=96)
    often = np.arange(96) % 4
    assert np.abs(found - 3 * often * 96 / often.sum()).max() < 3
    assert found.sum() == 3 * 96


def test_labels_belong_to_the_images_that_come(photos: Path) -> None:
    made = folder(photos, class_weights={"dog": 9.0})
    for index in range(len(made)):
        names = [made.filenames[sample].split("/")[0] for sample in made.fetch(index).ids]
        assert [made.class_names[label] for label in made[index][1]] == names


def test_with_both_the_validation_half_has_each_image_once(photos: Path) -> None:
    training, validation = folder(
        photos, class_weights="balanced", validation_split=0.25, subset="both",
        augment=[A.RepeatedAugmentation(2), A.RandomFlip()],
    )  # fmt: skip
    assert sorted(ids_of(validation)) == list(range(24))
    found = ids_of(training)
    assert len(found) == 72
    assert found[0::2] == found[1::2]


@pytest.mark.parametrize("first", [True, False])
def test_repeated_samples_stand_beside_each_other_and_differ(photos: Path, first: bool) -> None:
    operations: list[Any] = [A.RandomResizedCrop(24, 20), A.RandomFlip()]
    repeated = [A.RepeatedAugmentation(4)]
    made = folder(photos, augment=repeated + operations if first else operations + repeated)
    plain = folder(photos, augment=operations)
    assert len(made) == len(plain) == 12
    ids = np.array(ids_of(made)).reshape(24, 4)
    assert (ids == ids[:, :1]).all()
    assert ids[:, 0].tolist() == ids_of(plain)[:24]
    assert made.spec.augment == plain.spec.augment
    images = made[0][0]
    assert len({image.tobytes() for image in images}) == 8


def test_repeated_samples_of_a_table_move_with_their_boxes(photos: Path) -> None:
    given = rows(photos).assign(boxes=[[[0, 0, 9, 9]]] * 96, of=[[1]] * 96)
    made = image_dataset_from_dataframe(
        given, boxes="boxes", box_labels="of", augment=[A.RandomFlip(), A.RepeatedAugmentation(2)],
        **OPTIONS,
    )  # fmt: skip
    found = ids_of(made)
    assert found[0::2] == found[1::2]


FOLDER: list[tuple[dict[str, Any], str]] = [
    ({"class_weights": "equal"}, 'should be "balanced" or a dictionary'),
    ({"class_weights": [1, 2, 3]}, 'should be "balanced" or a dictionary'),
    ({"class_weights": {0: 1.0}}, "'0' is no class"),
    ({"class_weights": {None: 1.0}}, "should name classes. Received: None"),
    ({"class_weights": {"cat": -1}}, r"class_weights\['cat'\]` must not be negative: -1"),
    ({"class_weights": {"cat": nan}}, r"class_weights\['cat'\]"),
    ({"class_weights": {"cow": 1}}, "'cow' is no class: there are 'cat', 'dog', 'emu'"),
    ({"class_weights": dict.fromkeys(COUNTS, 0)}, "must not all be 0"),
    ({"class_weights": "balanced", "shuffle": False}, "by weights needs shuffle=True"),
    ({"class_weights": "balanced", "labels": None}, "`class_weights` needs labels"),
    ({"class_weights": {"0": 2}, "labels": [0] * 96}, 'use "balanced"'),
    ({"augment": [A.RepeatedAugmentation(2)], "shuffle": False}, "RepeatedAugmentation needs"),
    (
        {"augment": [A.RandomFlip(), A.RepeatedAugmentation(2), A.RandomHue(0.1)]},
        "must be the first or the last",
    ),
    ({"augment": [A.RepeatedAugmentation(2), A.RepeatedAugmentation(2)]}, "and once"),
]


@pytest.mark.parametrize(("options", "says"), FOLDER)
def test_what_a_folder_refuses(photos: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidArgument, match=says) as caught:
        folder(photos, **options)
    assert "\n" not in str(caught.value)


TABLE: list[tuple[dict[str, Any], str]] = [
    ({"class_weights": "balanced", "sampling_weight": "often"}, "give either"),
    ({"class_weights": "balanced", "label": None, "targets": None}, "needs labels"),
    ({"class_weights": {"cow": 1}}, "'cow' is no class"),
    ({"class_weights": "balanced", "shuffle": False}, "needs shuffle=True"),
    ({"sampling_weight": "seldom"}, "no column 'seldom'"),
    ({"sampling_weight": "class"}, "weights of samples: 'class' should hold numbers"),
    ({"sampling_weight": "wrong"}, "'wrong': .* not negative, and that of sample 7 is -1.0"),
    ({"sampling_weight": "none"}, "'none': .* must not all be 0"),
    ({"sampling_weight": "often", "shuffle": False}, "needs shuffle=True"),
]


@pytest.mark.parametrize(("options", "says"), TABLE)
def test_what_a_table_refuses(photos: Path, options: dict[str, Any], says: str) -> None:
    given = rows(photos).assign(wrong=[-1.0 if row == 7 else 1.0 for row in range(96)], none=0)
    with pytest.raises(InvalidArgument, match=says) as caught:
        image_dataset_from_dataframe(
            given, **{"label": "class", "targets": "labels", **OPTIONS, **options}
        )
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("n", [0, -1, 1.5, "2"])
def test_repeats_are_a_whole_number_from_1(n: Any) -> None:
    with pytest.raises(InvalidArgument, match="RepeatedAugmentation: `n`"):
        A.RepeatedAugmentation(n)
