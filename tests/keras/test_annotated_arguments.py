"""What tables, files of COCO's format and folders of masks may hold, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from loaderd.errors import EmptyDataset, InvalidArgument
from loaderd_client import Session, image_dataset_from_dataframe
from tests.support.daemons import Daemon, Serve

COUNT = 6
OPTIONS: dict[str, Any] = {
    "image_size": (20, 30), "batch_size": COUNT, "shuffle": False, "seed": 1, "verbose": False,
}  # fmt: skip
TARGETS = {"boxes": "boxes", "box_labels": "of", "keypoints": "points"}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images and their masks, all of 30x20 pixels."""
    root = tmp_path_factory.mktemp("scenes")
    for name in ("images", "masks"):
        (root / name).mkdir()
    for number in range(COUNT):
        Image.new("RGB", (30, 20), (number, 70, 70)).save(root / f"images/{number}.png")
        Image.new("L", (30, 20), number).save(root / f"masks/{number}.png")
    return root


@pytest.fixture
def daemon(serve: Serve) -> Iterator[Daemon]:
    with serve(workers=1) as daemon, Session(daemon.path):
        yield daemon


def table(scenes: Path, **columns: Any) -> dict[str, Any]:
    """A row for each image: image number i has i % 3 boxes, of two keypoints each."""
    counts = [number % 3 for number in range(COUNT)]
    rows: dict[str, Any] = {
        "image": [str(scenes / f"images/{number}.png") for number in range(COUNT)],
        "mask": [str(scenes / f"masks/{number}.png") for number in range(COUNT)],
        "class": list("abcabc"),
        "weight": [1.0] * COUNT,
        "boxes": [[[1, 2, 11, 12]] * count for count in counts],
        "of": [[5] * count for count in counts],
        "points": [[[[3, 4, 2], [5, 6, 1]]] * count for count in counts],
    }
    return rows | columns


def refused(scenes: Path, columns: dict[str, Any], **names: Any) -> str:
    """The one line of the refusal of a table."""
    with pytest.raises(InvalidArgument) as caught:
        image_dataset_from_dataframe(table(scenes, **columns), **names, **OPTIONS)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- columns of a table ----------------------------------------------------------------

COLUMNS = {"label": "class", "mask": "mask", "weight": "weight"} | TARGETS


@pytest.mark.parametrize("argument", COLUMNS)
@pytest.mark.parametrize("count", [3, 7])
def test_a_column_of_another_length_is_refused(scenes: Path, argument: str, count: int) -> None:
    name = COLUMNS[argument]
    values = (table(scenes)[name] * 2)[:count]
    says = refused(scenes, {name: values}, **COLUMNS)
    assert says == f"column {name!r} has {count} rows, and 'image' has {COUNT}"


def test_an_image_without_instances_is_padded(daemon: Daemon, scenes: Path) -> None:
    batch = image_dataset_from_dataframe(table(scenes), **TARGETS, **OPTIONS)[0]
    boxes, points = batch["bounding_boxes"], batch["keypoints"]
    assert boxes["boxes"].shape == (COUNT, 2, 4)
    assert points.shape == (COUNT, 2, 2, 3)
    for row in range(COUNT):
        has = row % 3
        assert boxes["labels"][row].tolist() == [5] * has + [-1] * (2 - has)
        assert (boxes["boxes"][row, :has] == [1, 2, 11, 12]).all()
        assert (boxes["boxes"][row, has:] == -1).all()
        assert (points[row, :has] == [[3, 4, 2], [5, 6, 1]]).all()
        assert not points[row, has:].any()


@pytest.mark.parametrize("empty", [[], np.empty((0, 2, 3)), np.empty(0), ()], ids=repr)
def test_an_image_without_keypoints_is_padded(daemon: Daemon, scenes: Path, empty: Any) -> None:
    points = [empty, [[3, 4, 2], [5, 6, 1]], empty, *[[[7, 8, 2], [9, 1, 2]]] * 3]
    batch = image_dataset_from_dataframe(
        table(scenes, points=points), keypoints="points", **OPTIONS
    )[0]
    assert batch["keypoints"].shape == (COUNT, 1, 2, 3)
    assert not batch["keypoints"][[0, 2]].any()
    assert batch["keypoints"][1, 0].tolist() == [[3, 4, 2], [5, 6, 1]]


def test_a_table_of_empty_images_has_boxes_of_padding(daemon: Daemon, scenes: Path) -> None:
    rows = table(scenes, boxes=[[]] * COUNT, of=[np.empty(0, np.int64)] * COUNT)
    names = {"boxes": "boxes", "box_labels": "of"}
    found = image_dataset_from_dataframe(rows, **names, **OPTIONS)[0]["bounding_boxes"]
    assert found["boxes"].shape == (COUNT, 1, 4)
    assert (found["boxes"] == -1).all()
    assert (found["labels"] == -1).all()


@pytest.mark.parametrize("names", [TARGETS, {"keypoints": "points"}])
def test_keypoints_of_no_row_have_no_number(scenes: Path, names: dict[str, str]) -> None:
    empty: dict[str, Any] = {name: [[]] * COUNT for name in ("boxes", "of", "points")}
    assert "no row has keypoints" in refused(scenes, empty, **names)


def test_a_table_without_rows_is_empty_whatever_its_columns(scenes: Path) -> None:
    rows: dict[str, Any] = {name: [] for name in table(scenes)}
    with pytest.raises(EmptyDataset, match="no images"):
        image_dataset_from_dataframe(rows, **COLUMNS, **OPTIONS)
