"""What tables, files of COCO's format and folders of masks may hold, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Unpack, get_type_hints

import numpy as np
import pytest
from PIL import Image

from loaderd.errors import EmptyDataset, InvalidArgument
from loaderd_client import (
    Session,
    image_dataset_from_coco,
    image_dataset_from_dataframe,
    segmentation_dataset_from_archive,
    segmentation_dataset_from_directory,
)
from loaderd_client.keras.dataset_options import DatasetArguments, DatasetOptions
from loaderd_client.keras.sample_table import Instances, SampleTable
from tests.support.daemons import Daemon, Serve

COUNT = 6
OPTIONS: dict[str, Any] = {
    "image_size": (20, 30), "batch_size": COUNT, "shuffle": False, "seed": 1, "verbose": False,
}  # fmt: skip
TARGETS: dict[str, Any] = {"boxes": "boxes", "box_labels": "of", "keypoints": "points"}


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

COLUMNS: dict[str, Any] = {"label": "class", "mask": "mask", "weight": "weight"} | TARGETS


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
    names: dict[str, Any] = {"boxes": "boxes", "box_labels": "of"}
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


NAN = float("nan")
LONG = np.full((40, 5), 7.5)


def with_row(values: Any, row: int, value: Any) -> list[Any]:
    return [*values[:row], value, *values[row + 1 :]]


WRONG: list[tuple[str, int, Any, str]] = [
    ("of", 1, [1.9], "box labels should be a list of whole numbers from 0 in 'of'"),
    ("of", 1, [-1], "whole numbers from 0"),
    ("of", 1, ["cat"], r"whole numbers from 0 in 'of'. Received: \['cat'\]$"),
    ("of", 1, [NAN], "whole numbers from 0"),
    ("of", 1, [2**31], "whole numbers from 0"),
    ("of", 1, [True], "whole numbers from 0"),
    ("of", 1, 5, "whole numbers from 0"),
    ("of", 1, None, "whole numbers from 0"),
    ("of", 1, [[5]], "whole numbers from 0"),
    (
        "boxes",
        1,
        [[1, 2, NAN, 4]],
        "boxes should be a list of four numbers each, all finite, in 'boxes'",
    ),
    ("boxes", 1, [[1, 2, 1e300, 4]], "four numbers"),
    ("boxes", 1, [1, 2, 3, 4], "four numbers"),
    ("boxes", 2, [[1, 2], [3, 4]], "four numbers"),
    ("boxes", 2, [[1, 2, 3, 4], [3, 4]], "four numbers"),
    ("boxes", 1, [["1", "2", "3", "4"]], "four numbers"),
    ("boxes", 1, None, "four numbers"),
    ("boxes", 2, LONG, "four numbers each, all finite, in 'boxes'. Received: array.*…$"),
    ("boxes", 1, [[5, 5, 4, 9]], "a box has a negative size in 'boxes'"),
    ("points", 1, [[[3, 4], [5, 6], [7, 8]]], r"keypoints should be lists of finite \(x, y, vis"),
    ("points", 1, [[3, 4, 2, 5, 6, 1]], "keypoints should be lists"),
    ("points", 1, [[3, 4, 2], [5, 6, 1]], "keypoints should be lists of .* for each box"),
    ("points", 1, [[[3, NAN, 2], [5, 6, 1]]], "keypoints should be lists of finite"),
    ("points", 2, [[[3, 4, 2]], [[3, 4, 2]]], "keypoints should be as many for all, 2 as in the"),
    ("points", 2, [[[3, 4, 2], [5, 6, 1]]], "2 boxes, but 1 lists of keypoints in 'points'$"),
    ("points", 0, "", "keypoints should be"),
    ("class", 2, NAN, "labels should be names, numbers or lists, the same in all rows, in 'class'"),
    ("class", 3, None, "labels should be names, numbers or lists"),
    ("class", 4, 7, "labels should be names, numbers or lists"),
    ("weight", 2, NAN, "weights should be finite numbers in 'weight'. Received: nan$"),
    ("weight", 2, "x", "weights should be finite numbers in 'weight'. Received: 'x'$"),
    ("weight", 2, [0.5], "weights should be finite numbers"),
    ("weight", 2, [], "weights should be finite numbers"),
    ("weight", 2, 1e300, "weights should be finite numbers"),
    ("weight", 2, None, "weights should be finite numbers"),
]


@pytest.mark.parametrize(("column", "row", "value", "says"), WRONG)
def test_a_wrong_value_is_refused_with_row_and_column(
    scenes: Path, column: str, row: int, value: Any, says: str
) -> None:
    rows = {column: with_row(table(scenes)[column], row, value)}
    text = refused(scenes, rows, **COLUMNS)
    assert text.startswith(f"row {row}: ")
    assert re.search(says, text), text
    assert len(text) < 220


NUMBERS: list[tuple[list[Any], int, str]] = [
    ([1, 2, "a", 4, 5, 6], 2, "labels should be names, numbers or lists"),
    ([1, 2, NAN, 4, 5, 6], 2, "labels should be finite"),
    ([1, 2, 3, 2**31, 5, 6], 3, "fit in 32 bits"),
    ([1, 2, 3, 4, [5], 6], 4, "the same in all rows"),
    ([[1, 2]] * 5 + [[1]], 5, "the same in all rows"),
    ([[1, 2]] * 5 + [[]], 5, "the same in all rows"),
]


@pytest.mark.parametrize(("values", "row", "says"), NUMBERS)
def test_labels_of_several_kinds_are_refused(
    scenes: Path, values: list[Any], row: int, says: str
) -> None:
    text = refused(scenes, {"class": values}, label="class")
    assert text.startswith(f"row {row}: ")
    assert says in text


def test_arrays_and_pandas_columns_are_accepted(daemon: Daemon, scenes: Path) -> None:
    pandas = pytest.importorskip("pandas")
    plain = table(scenes)
    arrays = plain | {
        "boxes": [np.array(value, np.int16).reshape(-1, 4) for value in plain["boxes"]],
        "of": [np.array(value, float) for value in plain["of"]],
        "points": [np.array(value, np.float64).reshape(-1, 2, 3) for value in plain["points"]],
        "weight": np.arange(COUNT, dtype=np.float16),
        "class": pandas.Categorical(plain["class"]),
    }
    for rows in (arrays, pandas.DataFrame(arrays)):
        made = image_dataset_from_dataframe(rows, **COLUMNS, **OPTIONS)
        batch = made[0]
        assert made.class_names == ["a", "b", "c"]
        assert batch["labels"].tolist() == [0, 1, 2] * 2
        assert batch["sample_weights"].tolist() == [0, 1, 2, 3, 4, 5]
        assert batch["bounding_boxes"]["labels"][2].tolist() == [5, 5]
        assert batch["bounding_boxes"]["boxes"][2].tolist() == [[1, 2, 11, 12]] * 2
        assert batch["keypoints"].shape == (COUNT, 2, 2, 3)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.arange(COUNT, dtype=np.int64), "int32"),
        (np.arange(COUNT) > 2, "int32"),
        (np.linspace(0, 1, COUNT), "float32"),
        (np.eye(COUNT, dtype=np.uint8), "float32"),
        ([[0.5, 1]] * COUNT, "float32"),
    ],
)
def test_labels_may_be_numbers_of_any_kind(
    daemon: Daemon, scenes: Path, values: Any, dtype: str
) -> None:
    made = image_dataset_from_dataframe(
        table(scenes, **{"class": values}), label="class", **OPTIONS
    )
    labels = made[0]["labels"]
    assert labels.dtype == dtype
    np.testing.assert_allclose(labels, values, rtol=1e-6)


def test_a_dataset_does_not_keep_its_table(daemon: Daemon, scenes: Path) -> None:
    made = image_dataset_from_dataframe(table(scenes), **COLUMNS, **OPTIONS)
    kept: list[Any] = [made]
    seen: set[int] = set()
    while kept:  # all that the sequence refers to by attributes and containers
        one = kept.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        assert not isinstance(one, SampleTable | Instances)
        kept += getattr(one, "__dict__", {}).values()
        kept += one if isinstance(one, list | tuple) else ()
        kept += one.values() if isinstance(one, dict) else ()
    assert len(seen) > 20


# -- folders and files -----------------------------------------------------------------


@pytest.mark.parametrize(("folder", "other"), [("images", "3.jpg"), ("masks", "3.TIF")])
def test_two_files_of_one_name_are_refused(
    scenes: Path, tmp_path: Path, folder: str, other: str
) -> None:
    own = Path(shutil.copytree(scenes, tmp_path / "own"))
    Image.new("L", (30, 20)).save(own / folder / other)
    with pytest.raises(InvalidArgument) as caught:
        segmentation_dataset_from_directory(own / "images", own / "masks", **OPTIONS)
    text = str(caught.value)
    first, second = sorted(["3.png", other])
    assert text.startswith(f"`{folder}`: {own / folder / first} and {second} differ in the ext")
    assert "\n" not in text


def coco(scenes: Path, folder: Path, change: Callable[[dict[str, Any]], object]) -> Any:
    """The dataset of a changed file; image number i has i % 3 instances."""
    content: dict[str, Any] = {
        "images": [{"id": one, "file_name": f"{one}.png"} for one in range(COUNT)],
        "categories": [{"id": 7, "name": "red"}, {"id": 3, "name": "blue"}],
        "annotations": [
            {
                "id": 100 + 10 * image + number, "image_id": image, "category_id": 7,
                "bbox": [1, 2, 10, 10], "keypoints": [3, 4, 2],
                "segmentation": [[1, 2, 11, 2, 11, 12]],
            }
            for image in range(COUNT)
            for number in range(image % 3)
        ],
    }  # fmt: skip
    change(content)
    (folder / "coco.json").write_text(json.dumps(content))
    return image_dataset_from_coco(
        folder / "coco.json", scenes / "images", keypoints=True, masks=True, **OPTIONS
    )


def test_a_file_of_coco_with_empty_images(daemon: Daemon, scenes: Path, tmp_path: Path) -> None:
    batch = coco(scenes, tmp_path, lambda content: None)[0]
    counts = [number % 3 for number in range(COUNT)]
    assert (batch["bounding_boxes"]["labels"] == 1).sum(axis=1).tolist() == counts
    assert (batch["keypoints"][..., 2] > 0).sum(axis=(1, 2)).tolist() == counts
    assert batch["segmentation_masks"].any(axis=(1, 2, 3)).tolist() == [c > 0 for c in counts]


FILES: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda c: c["images"][4].update(id=2), "two images have the id 2: 2.png and 4.png"),
    (lambda c: c["categories"][1].update(id=7), "two categories have the id 7: red and blue"),
    (
        lambda c: c["annotations"][1].update(bbox=[1, 2, 1e300, 9]),
        "the box of annotation 120 has too large numbers",
    ),
    (
        lambda c: c["annotations"][1].update(bbox=[3e38, 2, 3e38, 9]),
        "the box of annotation 120 has too large numbers",
    ),
    (
        lambda c: c["annotations"][1].update(keypoints=[1, 1e39, 2]),
        "a keypoint of annotation 120 has too large numbers",
    ),
    (
        lambda c: c["annotations"][1].update(segmentation=[[1, 2, 1e39, 3, 4, 5]]),
        "a polygon of annotation 120 has too large numbers",
    ),
]


@pytest.mark.parametrize(("change", "says"), FILES)
def test_a_wrong_file_of_coco_is_refused(
    scenes: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], says: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        coco(scenes, tmp_path, change)
    assert str(caught.value) == f"{tmp_path / 'coco.json'}: {says}"


# -- options ---------------------------------------------------------------------------

FUNCTIONS: list[Callable[..., Any]] = [
    image_dataset_from_dataframe,
    image_dataset_from_coco,
    segmentation_dataset_from_archive,
    segmentation_dataset_from_directory,
]


def test_the_arguments_that_editors_complete_are_the_options() -> None:
    assert get_type_hints(DatasetArguments) == get_type_hints(DatasetOptions)
    assert [*get_type_hints(DatasetArguments)] == [
        field.name for field in dataclasses.fields(DatasetOptions)
    ]
    for function in FUNCTIONS:
        assert get_type_hints(function)["options"] == Unpack[DatasetArguments]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("image_sise", ": did you mean image_size?"),
        ("max_box", ": did you mean max_boxes?"),
        ("interpolator", ""),
    ],
)
def test_a_misspelt_option_is_named_with_the_one_meant(
    function: Callable[..., Any], name: str, meant: str
) -> None:
    with pytest.raises(TypeError) as caught:
        function("here", "there", **{name: 1})
    expected = f"{function.__name__}() got an unexpected keyword argument {name!r}{meant}"
    assert str(caught.value) == expected


def test_a_misspelt_argument_of_the_function_itself_is_named_too() -> None:
    with pytest.raises(TypeError, match=r"argument 'labels': did you mean label\?$"):
        image_dataset_from_dataframe({"image": []}, labels="class")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"argument 'keypoint': did you mean keypoints\?$"):
        image_dataset_from_coco("here", "there", keypoint=True)  # type: ignore[call-arg]
