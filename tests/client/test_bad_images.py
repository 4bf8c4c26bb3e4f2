"""The arguments that say what becomes of images that cannot be read."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from loaderd.errors import InvalidArgument
from loaderd_client import ImageDataGenerator, Session, image_dataset_from_directory
from loaderd_client.core import arguments
from tests.support.daemons import Serve

FLOW: dict[str, Any] = {"target_size": (20, 30), "batch_size": 16, "seed": 3}


def of_directory(folder: Path, **options: Any) -> Any:
    return ImageDataGenerator().flow_from_directory(folder, **FLOW, **options)


def of_dataframe(folder: Path, **options: Any) -> Any:
    names = sorted(folder.rglob("*.jpg"))
    columns = {"class": [name.parent.name for name in names], "weight": range(1, len(names) + 1)}
    frame = pandas.DataFrame({"filename": [str(name) for name in names], **columns})
    return ImageDataGenerator().flow_from_dataframe(frame, **FLOW, **options)


def of_dataset(folder: Path, **options: Any) -> Any:
    options = {"label_mode": options.pop("class_mode", "categorical"), **options}
    return image_dataset_from_directory(
        folder, image_size=(20, 30), batch_size=16, seed=3, **options
    )


Make = Callable[..., Any]
EVERY = pytest.mark.parametrize("make", [of_directory, of_dataframe, of_dataset])


@pytest.fixture
def damaged(photos: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(photos, tmp_path / "photos"))
    (folder / "dog" / "007.jpg").write_bytes(b"no image")
    return folder


@pytest.fixture
def session(serve: Serve) -> Iterator[Session]:
    with serve(2, "--max-bad=5%"), Session("auto") as session:
        yield session


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"on_error": "ignore"}, 'Invalid on_error: ignore; expected one of "raise", "substitute", "s'),
    ({"on_error": "substitute", "substitute_weight": -1}, "`substitute_weight` should be 0 or mo"),
    ({"on_error": "substitute", "substitute_weight": "0"}, "`substitute_weight` should be a numb"),
    ({"substitute_weight": 0}, '`substitute_weight` needs on_error="substitute".*"raise"'),
    ({"on_error": "skip", "substitute_weight": 0}, "`substitute_weight` needs on_error"),
    (
        {"on_error": "substitute", "substitute_weight": 0, "class_mode": None},
        "`substitute_weight` needs labels",
    ),
]


@EVERY
@pytest.mark.parametrize(("options", "text"), WRONG)
def test_what_is_not_allowed_is_named_before_anything_is_opened(
    photos: Path, make: Make, options: dict[str, Any], text: str
) -> None:
    with pytest.raises(InvalidArgument, match=text):
        make(photos, **options)


def test_a_weight_is_a_number_whatever_the_user_gave() -> None:
    assert arguments.substitute_weight("substitute", np.float32(0.5), True) == 0.5
    assert arguments.substitute_weight("skip", None, False) is None


@EVERY
def test_they_are_part_of_what_is_asked_for(session: Session, photos: Path, make: Make) -> None:
    plain, other = make(photos), make(photos, on_error="skip", exif=True)
    assert (plain.spec.on_error, plain.spec.load.exif) == ("raise", False)
    assert (other.spec.on_error, other.spec.load.exif) == ("skip", True)
    weighed = make(photos, on_error="substitute", substitute_weight=0)
    assert weighed.spec.batch.substitute_weight == 0


@EVERY
def test_substitutes_have_a_weight_beside_images_and_labels(
    session: Session, damaged: Path, make: Make
) -> None:
    train = make(damaged, on_error="substitute", substitute_weight=0.25)
    batches = [train[index] for index in range(len(train))]
    weights = np.concatenate([batch[2] for batch in batches])
    assert sorted(weights) == [0.25] + [1.0] * 95
    labels = np.concatenate([batch[1] for batch in batches])
    assert labels.sum(0).tolist() == [41, 30, 25], "a substitute is of the same class"


@EVERY
def test_what_is_skipped_makes_its_batch_smaller(
    session: Session, damaged: Path, make: Make
) -> None:
    train = make(damaged, on_error="skip")
    batches = [train[index] for index in range(len(train))]
    assert sorted(len(images) for images, _ in batches) == [15] + [16] * 5
    assert sum(labels.sum(0) for _, labels in batches).tolist() == [41, 29, 25]


def test_weights_of_a_column_and_of_substitutes_are_multiplied(
    session: Session, damaged: Path
) -> None:
    train = of_dataframe(
        damaged, on_error="substitute", substitute_weight=0.5, weight_col="weight", shuffle=False
    )
    weights, substitutes = [], 0
    for index in range(len(train)):
        batch = train.fetch(index)
        weights += train._assembled(batch)[2].tolist()
        assert batch.weights is not None
        assert weights[-len(batch.ids) :] == ((batch.ids + 1) * batch.weights).tolist()
        substitutes += int((batch.weights == 0.5).sum())
    assert substitutes == 1


def test_they_may_be_set_later(session: Session, damaged: Path) -> None:
    train = of_directory(damaged)
    assert len(next(train)) == 2
    train.on_error, train.substitute_weight = "substitute", 0.0
    assert len(next(train)) == 3
    train.substitute_weight = None
    assert len(next(train)) == 2


def test_what_is_set_wrongly_is_told_until_it_is_mended(session: Session, photos: Path) -> None:
    train = of_directory(photos)
    train.on_error = "ignore"
    for _ in range(2):
        with pytest.raises(InvalidArgument, match="Invalid on_error: ignore"):
            next(train)
    train.on_error = "skip"
    assert len(next(train)[0]) == 16
