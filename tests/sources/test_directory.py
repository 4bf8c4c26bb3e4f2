"""Listings equal Keras's own, and say what is wrong where Keras keeps silent."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loaderd.errors import DatasetNotFound, InvalidArgument
from loaderd.sources.directory import Listing, list_samples
from loaderd.spec.source import Directory

GENERATOR_FORMATS = ("png", "jpg", "jpeg", "bmp", "ppm", "tif", "tiff")
DATASET_FORMATS = (".bmp", ".gif", ".jpeg", ".jpg", ".png")

# Names that sort differently as paths, as bytes or without regard to case.
_parts = st.sampled_from(["a", "B", "b-", "b", "b.c", "1", "10", "2", "é", "\udcff", "\ue000", "."])
_stems = st.lists(_parts, min_size=1, max_size=2).map("".join)
_endings = st.sampled_from([".jpg", ".JPG", ".png", ".jpeg", ".gif", ".txt", "jpg", ".tif", ""])
_files = st.tuples(_stems, _endings).map("".join)
_folders = _stems.filter(lambda name: name.strip(".") != "")
_trees: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    _folders,
    st.dictionaries(
        st.one_of(_files, _folders).filter(lambda name: name.strip(".") != ""),
        st.one_of(st.none(), st.dictionaries(_files.filter(lambda n: n.strip(".")), st.none())),
        max_size=8,
    ),
    max_size=4,
)


def make(tree: dict[str, Any], root: Path) -> str:
    """Makes folders from dictionaries, empty files from None, links from strings."""
    root.mkdir(exist_ok=True)
    for name, inside in tree.items():
        if isinstance(inside, dict):
            make(inside, root / name)
        elif isinstance(inside, str):
            (root / name).symlink_to(inside)
        else:
            (root / name).touch()
    return str(root)


@contextlib.contextmanager
def made(tree: dict[str, Any]) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as root:
        yield make(tree, Path(root))


def as_text(listing: Listing) -> list[str]:
    return [os.fsdecode(name) for name in listing.filenames]


def by_generator(
    directory: str, fraction: float = 0.0, subset: str | None = None, **arguments: Any
) -> tuple[list[str], list[int], list[str]]:
    """(filenames, labels, class names) as Keras's ImageDataGenerator lists them."""
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    with contextlib.redirect_stdout(io.StringIO()):
        listed = ImageDataGenerator(validation_split=fraction).flow_from_directory(
            directory, subset=subset, **arguments
        )
    return listed.filenames, listed.classes.tolist(), list(listed.class_indices)


def by_dataset(
    directory: str, split: tuple[float, str] | None = None, **arguments: Any
) -> tuple[list[str], list[int] | None, list[str] | None]:
    """(filenames, labels, class names) as image_dataset_from_directory lists them."""
    from keras.src.utils import dataset_utils

    paths, labels, names = dataset_utils.index_directory(
        directory, formats=DATASET_FORMATS, verbose=False, **arguments
    )
    if split:
        with contextlib.redirect_stdout(io.StringIO()):
            paths, labels = dataset_utils.get_training_or_validation_split(paths, labels, *split)
    prefix = os.path.join(directory, "")
    return (
        [p.removeprefix(prefix) for p in paths],
        labels if labels is None else list(labels),
        names,
    )


# ---- as ImageDataGenerator lists ------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(_trees, st.booleans())
def test_folders_are_listed_as_image_data_generator_does(
    tree: dict[str, Any], follow_links: bool
) -> None:
    with made(tree) as root:
        listing = list_samples(
            Directory(directory=root, extensions=GENERATOR_FORMATS, follow_links=follow_links)
        )
        filenames, labels, class_names = by_generator(root, follow_links=follow_links)
    assert as_text(listing) == filenames
    assert listing.labels.tolist() == labels
    assert list(listing.class_names) == class_names
    assert listing.root == root


@settings(max_examples=40, deadline=None)
@given(_trees, st.floats(0, 0.99), st.sampled_from(["training", "validation"]))
def test_each_class_is_split_as_image_data_generator_does(
    tree: dict[str, Any], fraction: float, subset: str
) -> None:
    split = (fraction, 1.0) if subset == "training" else (0.0, fraction)
    with made(tree) as root:
        listing = list_samples(
            Directory(directory=root, extensions=GENERATOR_FORMATS, split_per_class=split)
        )
        filenames, labels, _ = by_generator(root, fraction, subset)
    assert as_text(listing) == filenames
    assert listing.labels.tolist() == labels


@pytest.mark.parametrize("classes", [("b", "a"), ("a",), (".",), ("a", "b", "a"), ("",)])
def test_given_classes_are_numbered_in_their_order(
    tmp_path: Path, classes: tuple[str, ...]
) -> None:
    root = make({"a": {"1.jpg": None, "2.jpg": None}, "b": {"3.jpg": None}, "c": {}}, tmp_path)
    dataset = Directory(directory=root, extensions=GENERATOR_FORMATS, classes=classes)
    listing = list_samples(dataset)
    filenames, labels, _ = by_generator(root, classes=list(classes))
    assert as_text(listing) == filenames
    assert listing.labels.tolist() == labels
    assert listing.class_names == classes


# ---- as image_dataset_from_directory lists --------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    _trees,
    st.one_of(st.none(), st.integers(0, 2**32 - 1)),
    st.one_of(
        st.none(), st.tuples(st.floats(0, 0.99), st.sampled_from(("training", "validation")))
    ),
    st.booleans(),
)
def test_lists_are_shuffled_and_split_as_image_dataset_from_directory_does(
    tree: dict[str, Any],
    seed: int | None,
    split: tuple[float, Literal["training", "validation"]] | None,
    flat: bool,
) -> None:
    with made(tree) as root:
        dataset = Directory(
            directory=root,
            extensions=DATASET_FORMATS,
            hidden=False,
            flat=flat,
            shuffle_seed=seed,
            split_overall=split,
        )
        listing = list_samples(dataset)
        filenames, labels, class_names = by_dataset(
            root,
            split,
            labels=None if flat else "inferred",
            shuffle=seed is not None,
            seed=seed,
        )
    assert as_text(listing) == filenames
    assert listing.labels.tolist() == (labels or [0] * len(filenames))
    assert list(listing.class_names) == (class_names or [])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-3, 3), max_size=12), st.integers(0, 99))
def test_given_labels_stay_with_their_files(labels: list[int], seed: int) -> None:
    with made({"x": {f"{i:02}.jpg": None for i in range(len(labels))}}) as root:
        dataset = Directory(
            directory=root,
            extensions=DATASET_FORMATS,
            flat=True,
            labels=tuple(labels),
            shuffle_seed=seed,
        )
        listing = list_samples(dataset)
        keras = by_dataset(root, labels=list(labels), shuffle=True, seed=seed)
    assert (as_text(listing), listing.labels.tolist(), list(listing.class_names)) == keras
    assert listing.labels.dtype == np.int32


def test_too_few_labels_are_refused_in_keras_words(tmp_path: Path) -> None:
    root = make({"1.jpg": None, "2.jpg": None}, tmp_path)
    dataset = Directory(directory=root, extensions=DATASET_FORMATS, flat=True, labels=(1,))
    with pytest.raises(ValueError, match="Expected the lengths") as keras:
        by_dataset(root, labels=[1], shuffle=False)
    with pytest.raises(InvalidArgument) as ours:
        list_samples(dataset)
    assert str(ours.value) == str(keras.value)


def test_labels_beyond_32_bits_are_refused(tmp_path: Path) -> None:
    root = make({"1.jpg": None}, tmp_path)
    with pytest.raises(InvalidArgument, match="32 bits"):
        list_samples(
            Directory(directory=root, extensions=DATASET_FORMATS, flat=True, labels=(2**31,))
        )


def test_unknown_class_names_are_refused_in_keras_words(tmp_path: Path) -> None:
    root = make({"a": {}, "b": {}, ".c": {}}, tmp_path)
    dataset = Directory(
        directory=root, extensions=DATASET_FORMATS, hidden=False, classes=("a", ".c")
    )
    with pytest.raises(ValueError, match="did not match") as keras:
        by_dataset(root, labels="inferred", class_names=["a", ".c"], shuffle=False)
    with pytest.raises(InvalidArgument) as ours:
        list_samples(dataset)
    assert str(ours.value) == str(keras.value)


# ---- links ----------------------------------------------------------------------------


@pytest.mark.parametrize("follow_links", [False, True])
def test_links_to_files_and_class_folders_count_as_in_keras(
    tmp_path: Path, follow_links: bool
) -> None:
    elsewhere = make({"far.jpg": None, "deep": {"deeper.jpg": None}}, tmp_path / "elsewhere")
    tree = {
        "a": {"1.jpg": None, "to-file.jpg": "1.jpg", "to-folder": elsewhere},
        "b": elsewhere,
        "c": {"broken.jpg": "nowhere", "itself.jpg": "itself.jpg"},
    }
    root = make(tree, tmp_path / "root")
    listing = list_samples(
        Directory(directory=root, extensions=GENERATOR_FORMATS, follow_links=follow_links)
    )
    assert as_text(listing) == by_generator(root, follow_links=follow_links)[0]
    assert len(listing.filenames) == (8 if follow_links else 6)


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    tree = {"a": {"1.jpg": None, "again": ".", "up": "..", "sub": {"2.jpg": None, "back": ".."}}}
    root = make(tree, tmp_path)
    listing = list_samples(
        Directory(directory=root, extensions=GENERATOR_FORMATS, follow_links=True)
    )
    assert as_text(listing) == ["a/1.jpg", "a/sub/2.jpg"]


def test_a_folder_reached_by_several_links_is_listed_under_the_first(tmp_path: Path) -> None:
    make({"1.jpg": None}, tmp_path / "elsewhere")
    target = str(tmp_path / "elsewhere")
    root = make({"a": {"y": target, "x": target, "z": target}}, tmp_path / "root")
    listing = list_samples(
        Directory(directory=root, extensions=GENERATOR_FORMATS, follow_links=True)
    )
    assert as_text(listing) == ["a/x/1.jpg"]


def test_a_real_folder_is_preferred_to_links_to_it(tmp_path: Path) -> None:
    root = make({"a": {"link": "real", "real": {"1.jpg": None}}}, tmp_path)
    listing = list_samples(
        Directory(directory=root, extensions=GENERATOR_FORMATS, follow_links=True)
    )
    assert as_text(listing) == ["a/real/1.jpg"]


# ---- what is wrong --------------------------------------------------------------------


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "nowhere")
    with pytest.raises(DatasetNotFound) as error:
        list_samples(Directory(directory=path, extensions=GENERATOR_FORMATS))
    assert str(error.value) == (
        f"cannot list the directory {path!r}: it does not exist: check the path"
    )


@pytest.mark.parametrize("flat", [False, True])
def test_a_file_is_no_dataset(tmp_path: Path, flat: bool) -> None:
    make({"1.jpg": None}, tmp_path)
    path = str(tmp_path / "1.jpg")
    with pytest.raises(DatasetNotFound, match=r"1\.jpg': it is not a directory"):
        list_samples(Directory(directory=path, extensions=GENERATOR_FORMATS, flat=flat))


def test_a_path_that_no_system_accepts_is_an_error_of_ours() -> None:
    with pytest.raises(DatasetNotFound, match="null"):
        list_samples(Directory(directory="/a\0b", extensions=GENERATOR_FORMATS))


def test_a_given_class_without_a_folder_has_no_images(tmp_path: Path) -> None:
    root = make({"cat": {"1.jpg": None}, "file": None}, tmp_path)
    for missing in ("dgo", "file"):
        listing = list_samples(
            Directory(directory=root, extensions=GENERATOR_FORMATS, classes=(missing, "cat"))
        )
        assert listing.filenames == [b"cat/1.jpg"]
        assert listing.labels.tolist() == [1]


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Root may read everything: become nobody for the test."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("closed", ["", "a", "a/inner"])
@pytest.mark.parametrize("follow_links", [False, True])
def test_a_folder_that_must_not_be_read_is_named(
    unprivileged: None, closed: str, follow_links: bool
) -> None:
    with made({"a": {"1.jpg": None, "inner": {"2.jpg": None}}}) as root:
        path = os.path.join(root, closed).rstrip("/")
        dataset = Directory(directory=root, extensions=GENERATOR_FORMATS, follow_links=follow_links)
        os.chmod(path, 0)
        try:
            with pytest.raises(DatasetNotFound, match=f"{path}': permission denied"):
                list_samples(dataset)
        finally:
            os.chmod(path, 0o700)


def test_an_empty_directory_is_an_empty_listing(tmp_path: Path) -> None:
    listing = list_samples(Directory(directory=str(tmp_path), extensions=GENERATOR_FORMATS))
    assert (listing.filenames, listing.class_names, listing.labels.shape) == ([], (), (0,))
