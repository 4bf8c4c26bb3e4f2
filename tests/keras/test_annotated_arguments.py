"""What tables, files of COCO's format and folders of masks may hold, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from loaderd.errors import InvalidArgument
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
