"""What programs set, replace or override on iterators changes batches here as it does in Keras."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras.src.legacy.preprocessing.image as theirs
import numpy as np
import pandas as pd
import pytest

import loaderd_client.image as ours
from loaderd.errors import InvalidArgument, NoSuchSample
from tests.keras.programs.conftest import TOTAL, numbers

FLOW: dict[str, Any] = {"target_size": (8, 8), "class_mode": "sparse", "batch_size": 4, "seed": 3}
MODULES = (ours, theirs)
RANDOM: dict[str, Any] = {"horizontal_flip": True, "channel_shift_range": 20.0}
"""Random, and yet bit by bit as in Keras."""

Edit = Callable[[Any], object]


def flow(module: Any, folder: Path, **options: Any) -> Any:
    return module.ImageDataGenerator(**RANDOM).flow_from_directory(folder, **FLOW | options)


def check_next(pair: Sequence[Any], count: int) -> None:
    for _ in range(count):
        for mine, its in zip(*(next(one) for one in pair), strict=True):
            np.testing.assert_array_equal(mine, its)


def doubled(one: Any) -> None:
    """More samples than there were, as a program makes them that balances classes."""
    one._filepaths = [*one.filepaths, *one.filepaths[:6]]
    one.classes = np.array([*one.classes, *one.classes[:6]])
    one.n = one.samples = len(one._filepaths)


def reversed_files(one: Any) -> None:
    one.filenames = one.filenames[::-1]
    one._filepaths = one.filepaths[::-1]


def one_file_in_place(one: Any) -> None:
    one.filepaths[7] = one.filepaths[20]


def one_class_in_place(one: Any) -> None:
    one.classes[3:9] = 2


def edited_order(one: Any) -> None:
    one.index_array[:] = one.index_array[::-1].copy()


EDITS: dict[str, Edit] = {
    "batch_index": lambda one: setattr(one, "batch_index", 2),
    "batch_size": lambda one: setattr(one, "batch_size", 7),
    "class_indices": lambda one: setattr(one, "class_indices", {str(i): i for i in range(9)}),
    "class_mode": lambda one: setattr(one, "class_mode", "categorical"),
    "classes": lambda one: setattr(one, "classes", np.arange(TOTAL)),
    "classes as a list": lambda one: setattr(one, "classes", [5] * TOTAL),
    "classes in place": one_class_in_place,
    "files": reversed_files,
    "files in place": one_file_in_place,
    "files that come twice": doubled,
    "index_array": lambda one: setattr(one, "index_array", np.arange(TOTAL)[::-1]),
    "index_array as a list's part": lambda one: setattr(one, "index_array", np.arange(9)),
    "index_array in place": edited_order,
    "index_generator": lambda one: next(one.index_generator),
    "n": lambda one: setattr(one, "n", 8),
    "reset": lambda one: one.reset(),
    "seed": lambda one: setattr(one, "seed", 77),
    "shuffle": lambda one: setattr(one, "shuffle", False),
    "total_batches_seen": lambda one: setattr(one, "total_batches_seen", 31),
    "_set_index_array": lambda one: one._set_index_array(),
}


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("taken", [1, 5])
@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
def test_what_is_edited_counts_as_in_keras(
    folder: Path, edit: Edit, taken: int, shuffle: bool
) -> None:
    pair = [flow(module, folder, shuffle=shuffle) for module in MODULES]
    check_next(pair, taken)
    for one in pair:
        np.random.seed(5)
        edit(one)
    check_next(pair, 2 * TOTAL // 4)


@pytest.mark.parametrize("edit", ["index_array", "classes", "files", "n", "index_array in place"])
def test_what_is_edited_counts_by_index_too(folder: Path, edit: str) -> None:
    plain = [module.ImageDataGenerator() for module in MODULES]
    pair = [one.flow_from_directory(folder, shuffle=False, **FLOW) for one in plain]
    for one in pair:
        one[0]
        EDITS[edit](one)
    for index in range(len(pair[1])):
        for mine, its in zip(*(one[index] for one in pair), strict=True):
            np.testing.assert_array_equal(mine, its)


def test_a_sample_that_is_not_there_is_an_index_error(folder: Path) -> None:
    one = flow(ours, folder)
    next(one)
    one.index_array = np.array([1, 2, 3, 4, TOTAL, 6, 7, 8])
    with pytest.raises(NoSuchSample) as refused:
        next(one)
    assert isinstance(refused.value, IndexError)
    more = flow(ours, folder)
    more.n = TOTAL + 1
    with pytest.raises(IndexError):
        next(more)
    one.index_array = np.arange(TOTAL)
    assert len(next(one)[0]) == 4


def test_a_shape_that_nothing_says_is_refused_with_what_does(folder: Path) -> None:
    one = flow(ours, folder)
    one.image_shape = (8, 8, 3)
    with pytest.raises(InvalidArgument, match="target_size, color_mode and data_format"):
        one.image_shape = (9, 9, 3)
    one.target_size = (9, 9)
    assert next(one)[0].shape == (4, 9, 9, 3)


# -- subclasses ------------------------------------------------------------------------


def with_paths(base: Any) -> type:
    class Renamed(base):  # type: ignore[misc]
        """Other files than were found."""

        @property
        def filepaths(self) -> Any:
            return self._filepaths[::-1]

        @property
        def labels(self) -> Any:
            return np.arange(TOTAL) + 100

    return Renamed


def with_order(base: Any) -> type:
    class Balanced(base):  # type: ignore[misc]
        """As many of each class."""

        def _set_index_array(self) -> None:
            self.index_array = np.concatenate(
                [np.random.permutation(10) + 10 * i for i in range(4)]
            )

    return Balanced


def with_batches(base: Any) -> type:
    class Mixed(base):  # type: ignore[misc]
        """Mixup, on what the iterator makes."""

        def _get_batches_of_transformed_samples(self, index_array: Any) -> Any:
            images, labels = super()._get_batches_of_transformed_samples(index_array)
            return (images + images[::-1]) / 2, labels

    return Mixed


def with_flow(base: Any) -> type:
    class Paired(base):  # type: ignore[misc]
        """Every batch twice."""

        def _flow_index(self) -> Any:
            for indices in super()._flow_index():
                yield indices[:2]

    return Paired


def with_next(base: Any) -> type:
    class Halved(base):  # type: ignore[misc]
        def next(self) -> Any:
            images, labels = super().next()
            return images / 2, labels

    return Halved


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("subclass", [with_paths, with_order, with_batches, with_flow])
def test_what_a_subclass_overrides_counts_as_in_keras(
    folder: Path, subclass: Callable[[Any], type], shuffle: bool
) -> None:
    pair = [
        subclass(module.DirectoryIterator)(
            str(folder), module.ImageDataGenerator(), shuffle=shuffle, **FLOW
        )
        for module in MODULES
    ]
    check_next(pair, 2 * TOTAL // 4)


def test_a_method_that_is_replaced_on_the_iterator_counts(folder: Path) -> None:
    def replaced(one: Any) -> Any:
        before = one._get_batches_of_transformed_samples
        one._get_batches_of_transformed_samples = lambda indices: (before(indices), indices)
        return one

    pair = [replaced(flow(module, folder)) for module in MODULES]
    for _ in range(12):
        (mine, indices), (its, expected) = (next(one) for one in pair)
        np.testing.assert_array_equal(indices, expected)
        np.testing.assert_array_equal(mine[0], its[0])


def test_samples_may_be_asked_for_by_number(folder: Path) -> None:
    one = ours.ImageDataGenerator().flow_from_directory(folder, **FLOW)
    images, labels = one._get_batches_of_transformed_samples(np.array([39, 0, 0, 12, -1]))
    assert numbers(images) == [39, 0, 0, 12, 39]
    assert labels.tolist() == [3, 0, 0, 1, 3]
    indices = next(one.index_generator)
    assert numbers(one._get_batches_of_transformed_samples(indices)[0]) == indices.tolist()
    with pytest.raises(IndexError):
        one._get_batches_of_transformed_samples([TOTAL])


# -- tables and arrays -----------------------------------------------------------------


def test_targets_of_a_table_may_be_set(folder: Path) -> None:
    names = sorted(str(path.relative_to(folder)) for path in folder.glob("*/*.png"))
    table = pd.DataFrame({"filename": names, "class": np.arange(TOTAL) / 3})
    pair = [
        module.ImageDataGenerator().flow_from_dataframe(
            table, folder, **{**FLOW, "class_mode": "raw"}
        )
        for module in MODULES
    ]
    check_next(pair, 2)
    for one in pair:
        one._targets = np.arange(TOTAL)[::-1]
        one._sample_weight = np.linspace(0, 1, TOTAL)
    check_next(pair, 20)


def pixels(count: int = 12) -> Any:
    return np.random.default_rng(1).integers(0, 256, (count, 8, 8, 3)).astype("float32")


def arrays(module: Any, x: Any, **options: Any) -> Any:
    chosen = {"batch_size": 4, "seed": 3, **options}
    return module.ImageDataGenerator(**RANDOM).flow(x, np.arange(len(x)), **chosen)


ARRAY_EDITS: dict[str, Edit] = {
    "x": lambda one: setattr(one, "x", one.x[::-1].copy()),
    "y": lambda one: setattr(one, "y", np.arange(12) + 50),
    "sample_weight": lambda one: setattr(one, "sample_weight", np.arange(12) / 12),
    "n": lambda one: setattr(one, "n", 5),
    "shuffle": lambda one: setattr(one, "shuffle", False),
    "index_array": lambda one: setattr(one, "index_array", np.array([0, 0, 1, 1, 2])),
}


@pytest.mark.parametrize("edit", ARRAY_EDITS.values(), ids=ARRAY_EDITS.keys())
def test_what_is_edited_of_arrays_counts_as_in_keras(edit: Edit) -> None:
    x = pixels()
    pair = [arrays(module, x) for module in MODULES]
    check_next(pair, 2)
    for one in pair:
        edit(one)
    check_next(pair, 9)


@pytest.mark.parametrize(
    "view",
    [lambda x: x, lambda x: x[2:], lambda x: x[::-2], lambda x: x.transpose(0, 2, 1, 3)],
    ids=["the array", "a part", "backwards", "turned"],
)
def test_a_callers_array_may_be_changed_in_place(view: Callable[[Any], Any]) -> None:
    x = pixels(16)
    pair = [arrays(module, view(x), shuffle=False) for module in MODULES]
    check_next(pair, 1)
    for step in range(6):
        x[step::5] = step
        x[step, 2, 3] = np.nan
        check_next(pair, 2)


def test_an_array_of_another_dtype_is_copied_as_in_keras() -> None:
    x = pixels(8).astype("uint8")
    pair = [arrays(module, x) for module in MODULES]
    check_next(pair, 1)
    x[:] = 0
    check_next(pair, 5)


def test_an_array_that_nobody_else_holds_is_not_held() -> None:
    one = arrays(ours, pixels(8))
    next(one)
    assert one._original.present() is None


# -- copies ----------------------------------------------------------------------------


@pytest.mark.parametrize("taken", [0, 3, 11])
@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_a_copy_goes_on_as_the_original_does(
    folder: Path, copied: Callable[[Any], Any], taken: int
) -> None:
    for one in (flow(ours, folder), arrays(ours, pixels())):
        for _ in range(taken):
            next(one)
        other = copied(one)
        for _ in range(15):
            for mine, its in zip(next(one), next(other), strict=True):
                np.testing.assert_array_equal(mine, its)
