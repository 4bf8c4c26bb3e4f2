"""Pictures and their labels from the rows of a table."""

from __future__ import annotations

import math
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loaderd.errors import EmptyDataset, InvalidArgument
from tests.keras.surface.module import image, only_on
from tests.keras.surface.samples import Shelf, blackout

pandas: Any = pytest.importorskip("pandas")

COUNT = 24
SMALL = (8, 8)
ABSENT = pandas.DataFrame({"filename": ["absent.png"]})
TURNS = [str(number % 2) for number in range(COUNT)]


def flow(
    table: Any, root: Path | None = None, generator: dict[str, Any] | None = None, **options: Any
) -> Any:
    given: dict[str, Any] = {"target_size": SMALL} | options
    folder = None if root is None else str(root)
    return image.ImageDataGenerator(**generator or {}).flow_from_dataframe(table, folder, **given)


def table(shelf: Shelf, **columns: Any) -> Any:
    """The shelf's pictures, and whatever else is said of them."""
    return pandas.DataFrame({"filename": shelf.names, **columns})


@pytest.fixture
def labelled(shelf: Shelf) -> Any:
    """The shelf's pictures by name and by path, with two classes in turn."""
    paths = [str(shelf.root / name) for name in shelf.names]
    return table(shelf, **{"class": TURNS, "paths": paths})


def test_rows_come_as_images_and_labels_without_a_generator(labelled: Any, shelf: Shelf) -> None:
    batch = next(image.DataFrameIterator(labelled, str(shelf.root)))
    assert len(batch) == 2
    assert all(isinstance(part, np.ndarray) for part in batch)
    assert batch[0].shape == (COUNT, 256, 256, 3)


def test_names_are_found_in_the_folder(labelled: Any, shelf: Shelf) -> None:
    found = flow(labelled, shelf.root)
    assert found.class_indices == {"0": 0, "1": 1}
    assert len(found.classes) == COUNT
    assert set(found.filenames) == set(shelf.names)


def test_whole_paths_need_no_folder(labelled: Any) -> None:
    found = flow(labelled, x_col="paths")
    assert found.class_indices == {"0": 0, "1": 1}
    assert len(found.classes) == COUNT
    assert set(found.filenames) == set(labelled["paths"])


def test_sparse_labels_are_numbers(labelled: Any, shelf: Shelf) -> None:
    found = flow(labelled, shelf.root, class_mode="sparse")
    assert not np.isnan(found.classes).any()
    assert not np.isnan(next(found)[1]).any()


def test_rows_that_are_not_shuffled_come_in_their_order(labelled: Any, shelf: Shelf) -> None:
    _, labels = next(flow(labelled, shelf.root, shuffle=False, class_mode="sparse"))
    assert labels.tolist() == [float(label) for label in TURNS]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"color_mode": "cmyk"}, 'Invalid color mode: cmyk; expected "rgb", "rgba", or "grayscale'),
        ({"class_mode": "output"}, "Invalid class_mode: output; expected one of: "),
        ({"subset": "foo"}, 'Invalid subset name: foo;expected "training" or "validation"'),
    ],
)
def test_an_unknown_word_is_refused(
    options: dict[str, str], words: str, labelled: Any, shelf: Shelf
) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        flow(labelled, shelf.root, {"validation_split": 0.5}, **options)


@only_on(keras=False)
@pytest.mark.parametrize(
    ("made", "later", "words"),
    [
        ("binary", "zz", "Invalid class_mode: zz; expected one of: "),
        ("binary", "raw", '`class_mode="raw"` needs labels, and those of "binary" were read'),
        (None, "sparse", '`class_mode="sparse"` needs labels, and those of "None" were read'),
    ],
)
def test_a_class_mode_that_is_set_later_must_have_its_labels(
    made: str | None, later: str, words: str, labelled: Any, shelf: Shelf
) -> None:
    found = flow(labelled, shelf.root, class_mode=made)
    found.class_mode = later
    for _ in range(2):
        with pytest.raises(InvalidArgument, match=words):
            next(found)
    found.class_mode = "input"
    assert len(next(found)) == 2


@pytest.mark.parametrize("has_ext", [True, False])
def test_an_option_of_old_is_taken_with_a_warning(
    has_ext: bool, labelled: Any, shelf: Shelf
) -> None:
    with pytest.warns(DeprecationWarning, match="has_ext is deprecated"):
        flow(labelled, shelf.root, has_ext=has_ext)


@pytest.fixture
def dark(labelled: Any, shelf: Shelf) -> Any:
    """All rows in threes, through a function that blackens the pictures."""
    return flow(
        labelled,
        shelf.root,
        {"preprocessing_function": blackout},
        target_size=(26, 26),
        color_mode="rgb",
        batch_size=3,
        class_mode="categorical",
    )


def test_a_batch_is_had_by_its_index(dark: Any) -> None:
    assert len(dark) == math.ceil(COUNT / 3)
    images, labels = dark[1]
    assert images.shape == (3, 26, 26, 3)
    assert labels.shape == (3, 2)


def test_a_function_of_mine_sees_every_picture(dark: Any) -> None:
    images, _ = dark[5]
    assert not images.any()


def test_there_is_no_batch_behind_the_last(dark: Any) -> None:
    words = "Asked to retrieve element 9, but the Sequence has length 8"
    with pytest.raises(ValueError, match=words):
        dark[9]


INVALID = re.escape('2 invalid image filename(s) in x_col="filename". These filename(s) will be')


def test_rows_without_a_picture_are_left_out_with_a_warning(shelf: Shelf) -> None:
    rows = pandas.DataFrame({"filename": [*shelf.names, "odd.jpp", "absent.jpg"]})
    with pytest.warns(UserWarning, match=INVALID):
        found = flow(rows, shelf.root, class_mode="input")
    assert len(found.filenames) == found.n == COUNT


def test_rows_that_are_not_looked_at_are_all_kept(shelf: Shelf) -> None:
    rows = pandas.DataFrame({"filename": [*shelf.names, "odd.jpp", "absent.jpg"]})
    found = flow(rows, shelf.root, class_mode="input", validate_filenames=False)
    assert len(found.filenames) == COUNT + 2


def test_a_picture_is_known_by_the_end_of_its_name_in_any_case(
    shelf: Shelf, tmp_path: Path
) -> None:
    for name in ("loud.PnG", "quiet.some_ending"):
        shutil.copy(shelf.root / shelf.names[0], tmp_path / name)
    rows = pandas.DataFrame({"filename": ["loud.PnG", "quiet.some_ending", "absent.png"]})
    with pytest.warns(UserWarning, match=INVALID):
        found = flow(rows, tmp_path, class_mode=None)
    assert found.filenames == ["loud.PnG"]


def test_weights_come_third(shelf: Shelf) -> None:
    rows = table(shelf, weight=[2, 5] * (COUNT // 2))
    given: dict[str, Any] = {"y_col": None, "weight_col": "weight", "class_mode": "input"}
    images, again, weights = next(flow(rows, shelf.root, shuffle=False, batch_size=5, **given))
    np.testing.assert_array_equal(images, again)
    again[0, 0, 0] += 1
    assert (images[0, 0, 0] != again[0, 0, 0]).all()
    assert weights.tolist() == [2, 5, 2, 5, 2]


def test_weights_are_numbers(shelf: Shelf) -> None:
    rows = table(shelf, weight=["2", "5"] * (COUNT // 2))
    with pytest.raises(TypeError, match="Column weight_col=weight must be numeric"):
        flow(rows, weight_col="weight", class_mode="input")


@pytest.mark.parametrize("y_col", [None, "class"])
def test_the_images_again_are_a_copy(y_col: str | None, shelf: Shelf) -> None:
    images, again = next(flow(table(shelf), shelf.root, y_col=y_col, class_mode="input"))
    np.testing.assert_array_equal(images, again)
    again[0, 0, 0] += 1
    assert (images[0, 0, 0] != again[0, 0, 0]).all()


def test_a_row_may_have_several_labels(shelf: Shelf) -> None:
    labels = [["b", "a"], "b", ["c"], "a", ["b"], ["a", "b"]] * (COUNT // 6)
    rows = table(shelf, **{"class": labels})
    images, marks = next(flow(rows, shelf.root, shuffle=False))
    assert images.shape == (COUNT, *SMALL, 3)
    assert isinstance(marks, np.ndarray)
    wanted = [[letter in label for letter in "abc"] for label in labels]
    np.testing.assert_array_equal(marks, wanted)


def test_several_labels_are_ones_and_zeros_in_any_order(shelf: Shelf) -> None:
    rows = table(shelf, **{"class": ["a", "b", ["a"], ["b"], ["a", "b"], ["b", "a"]] * 4})
    _, marks = next(flow(rows, shelf.root))
    assert marks.shape == (COUNT, 2)
    assert sorted(map(tuple, marks)) == [(0, 1)] * 8 + [(1, 0)] * 8 + [(1, 1)] * 8


@pytest.mark.parametrize("shape", [(), (4,), (2, 2, 1)])
def test_a_row_may_have_several_outputs(shape: tuple[int, ...], shelf: Shelf) -> None:
    rng = np.random.default_rng(8)
    numbers, arrays = rng.random(COUNT), rng.random((COUNT, *shape))
    rows = table(shelf, numbers=numbers, arrays=list(arrays))
    given: dict[str, Any] = {"y_col": ["numbers", "arrays"], "class_mode": "multi_output"}
    images, outputs = next(flow(rows, shelf.root, batch_size=3, shuffle=False, **given))
    assert images.shape == (3, *SMALL, 3)
    assert isinstance(outputs, list)
    assert len(outputs) == 2
    np.testing.assert_array_equal(outputs[0], numbers[:3])
    np.testing.assert_array_equal(outputs[1], arrays[:3])


def test_several_outputs_are_a_list_of_columns(shelf: Shelf) -> None:
    words = 'If class_mode="multi_output", y_col must be a list. Received str.'
    with pytest.raises(TypeError, match=words):
        flow(table(shelf, numbers=1.0), shelf.root, y_col="numbers", class_mode="multi_output")


@pytest.mark.parametrize("y_col", ["one", ["one", "two"]])
def test_raw_labels_are_the_columns_themselves(y_col: str | list[str], shelf: Shelf) -> None:
    one, two = np.random.default_rng(9).random((2, COUNT))
    rows = table(shelf, one=one, two=two)
    given: dict[str, Any] = {"y_col": y_col, "class_mode": "raw"}
    images, labels = next(flow(rows, shelf.root, batch_size=3, shuffle=False, **given))
    assert images.shape == (3, *SMALL, 3)
    assert isinstance(labels, np.ndarray)
    np.testing.assert_array_equal(labels, rows[y_col].values[:3])


@pytest.mark.parametrize(("fraction", "training"), [(0.25, 18), (0.5, 12), (0.75, 6)])
def test_validation_takes_the_first_rows(
    fraction: float, training: int, labelled: Any, shelf: Shelf
) -> None:
    split = {"validation_split": fraction}
    train = flow(labelled, shelf.root, split, subset="training")
    held = flow(labelled, shelf.root, split, subset="validation")
    assert (train.samples, held.samples) == (training, COUNT - training)
    assert len(train.class_indices) == 2
    assert len(train.classes) == training
    assert held.filenames + train.filenames == shelf.names


def test_the_index_of_the_table_does_not_matter(shelf: Shelf) -> None:
    indices = [None, range(1, COUNT + 1), shelf.names]
    columns = {"filename": shelf.names, "class": TURNS}
    runs = [
        flow(pandas.DataFrame(columns, index=index), shelf.root, seed=1, batch_size=5)
        for index in indices
    ]
    for _ in range(2 * len(runs[0])):
        (images, labels), *others = (next(run) for run in runs)
        for other_images, other_labels in others:
            np.testing.assert_array_equal(images, other_images)
            np.testing.assert_array_equal(labels, other_labels)


@pytest.mark.parametrize("class_mode", [None, "binary"])
def test_only_the_rows_count(class_mode: str | None, labelled: Any, shelf: Shelf) -> None:
    assert flow(labelled[2:], shelf.root, class_mode=class_mode).n == COUNT - 2


def singly(rows: Any, **options: Any) -> Any:
    given: dict[str, Any] = {"x_col": "paths", "class_mode": None} | options
    return flow(rows, None, shuffle=False, batch_size=1, **given)


def drawn(run: Any) -> list[Any]:
    assert run.n == len(run)
    return [next(run) for _ in range(run.n)]


@pytest.fixture
def one_by_one(labelled: Any) -> list[Any]:
    return drawn(singly(labelled))


def test_a_label_does_not_change_its_picture(labelled: Any, one_by_one: list[Any]) -> None:
    assert len(one_by_one) == COUNT
    batches = drawn(singly(labelled, class_mode="binary"))
    np.testing.assert_array_equal([images for images, _ in batches], one_by_one)
    assert [float(label[0]) for _, label in batches] == [float(turn) for turn in TURNS]


@pytest.mark.parametrize("ending", ["absent.png", "there.fbd"])
def test_a_path_to_no_picture_is_passed_over(
    ending: str, labelled: Any, one_by_one: list[Any], tmp_path: Path
) -> None:
    shutil.copy(labelled["paths"][0], tmp_path / "there.fbd")
    stray = pandas.DataFrame({"paths": [os.path.join(tmp_path, ending)]})
    for parts in ([stray, labelled], [labelled, stray]):
        with pytest.warns(UserWarning, match="Found 1 invalid image filename"):
            run = singly(pandas.concat(parts))
        np.testing.assert_array_equal(drawn(run), one_by_one)


def test_both_subsets_make_the_whole(labelled: Any, one_by_one: list[Any]) -> None:
    split = {"generator": {"validation_split": 0.2}}
    held = drawn(singly(labelled, subset="validation", **split))
    train = drawn(singly(labelled, subset="training", **split))
    assert (len(held), len(train)) == (4, 20)
    np.testing.assert_array_equal([*held, *train], one_by_one)


def test_names_may_lead_into_folders(tree: Shelf) -> None:
    found = flow(table(tree, **{"class": ["0", "1"] * 20}), tree.root, class_mode="binary")
    assert found.n == 40
    assert set(found.filenames) == set(tree.names)


def test_classes_are_numbered_by_their_names(shelf: Shelf) -> None:
    forward = ["a", "b", ["a"], ["b"], ["a", "b"], ["b", "a"]] * 4
    found = [
        flow(table(shelf, **{"class": labels}), shelf.root) for labels in (forward, forward[::-1])
    ]
    assert found[0].class_indices == found[1].class_indices == {"a": 0, "b": 1}


def test_classes_that_are_given_are_numbered_as_given(labelled: Any, shelf: Shelf) -> None:
    assert flow(labelled, shelf.root, classes=["0", "1"]).class_indices == {"0": 0, "1": 1}
    assert flow(labelled, shelf.root, classes=["1", "0"]).class_indices == {"1": 0, "0": 1}


@only_on(keras=True)
def test_keras_gives_an_empty_run_over_no_pictures(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Found 1 invalid image filename"):
        assert len(flow(ABSENT, tmp_path, class_mode=None)) == 0


@only_on(keras=False)
@pytest.mark.filterwarnings("ignore:Found 1 invalid image filename")
def test_no_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EmptyDataset):
        flow(ABSENT, tmp_path, class_mode=None)
