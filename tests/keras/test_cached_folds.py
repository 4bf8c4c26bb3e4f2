"""Keras's own ways to choose files, with a cache: each image is decoded once for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from keras.src.legacy.preprocessing.image import ImageDataGenerator as Original

from loaderd.spec.base import Cache
from loaderd_client import ImageDataGenerator, Session, image_dataset_from_directory
from tests.process.test_cache import found
from tests.support.daemons import Daemon, Serve

PHOTOS = 96
SIZE: dict[str, Any] = {"target_size": (20, 30), "batch_size": 16}


@pytest.fixture
def daemon(serve: Serve, tmp_path: Path) -> Iterator[Daemon]:
    with serve(2, f"--cache-dir={tmp_path}") as daemon, Session(daemon.path):
        yield daemon


def check_same(ours: Any, theirs: Any) -> None:
    """One epoch, bit by bit."""
    assert len(ours) == len(theirs)
    for index in range(len(theirs)):
        for one, other in zip(ours[index], theirs[index], strict=True):
            np.testing.assert_array_equal(one, other)
    if hasattr(ours, "close"):
        ours.close()


def table_of(photos: Path) -> pd.DataFrame:
    paths = sorted(map(str, photos.rglob("*.jpg")))
    return pd.DataFrame({"filename": paths, "class": [path.split("/")[-2] for path in paths]})


def folds_of_a_table(photos: Path, cache: Cache) -> None:
    table = table_of(photos)
    for fold in range(5):
        for part in (table[table.index % 5 != fold], table[table.index % 5 == fold]):
            options = SIZE | {"shuffle": True, "seed": fold}
            ours = ImageDataGenerator(horizontal_flip=True, rescale=1 / 255)
            theirs = Original(horizontal_flip=True, rescale=1 / 255)
            check_same(
                ours.flow_from_dataframe(part, cache=cache, **options),
                theirs.flow_from_dataframe(part, **options),
            )


def subsets_of_a_directory(photos: Path, cache: Cache) -> None:
    for split in (0.2, 0.3):
        for subset, shuffle in (("training", True), ("validation", False)):
            options = SIZE | {"subset": subset, "shuffle": shuffle, "seed": 5}
            check_same(
                ImageDataGenerator(validation_split=split).flow_from_directory(
                    photos, cache=cache, **options
                ),
                Original(validation_split=split).flow_from_directory(photos, **options),
            )


def both_parts_of_a_dataset(photos: Path, cache: Cache) -> None:
    for seed in (1, 2):
        options: dict[str, Any] = {
            "validation_split": 0.25,
            "subset": "both",
            "seed": seed,
            "image_size": (20, 30),
            "batch_size": 16,
        }
        parts = image_dataset_from_directory(photos, cache=cache, **options)
        for ours, theirs in zip(
            parts, image_dataset_from_directory(photos, **options), strict=True
        ):
            check_same(ours, theirs)


@pytest.mark.parametrize("cache", ["disk", "memory"])
def test_tables_find_what_a_directory_of_the_same_files_has_kept(
    daemon: Daemon, photos: Path, cache: Cache
) -> None:
    plain: dict[str, Any] = SIZE | {"shuffle": False}
    ours, theirs = ImageDataGenerator(), Original()
    check_same(
        ours.flow_from_directory(photos, cache=cache, **plain),
        theirs.flow_from_directory(photos, **plain),
    )
    before = found(daemon)
    table = table_of(photos)
    for part in (table[::2], table[1::3]):
        check_same(
            ours.flow_from_dataframe(part, cache=cache, **plain),
            theirs.flow_from_dataframe(part, **plain),
        )
    after = found(daemon)
    assert after[0] - before[0] == after[1] - before[1] >= PHOTOS / 2 + PHOTOS / 3


@pytest.mark.parametrize("cache", ["disk", "memory"])
@pytest.mark.parametrize(
    "choices", [folds_of_a_table, subsets_of_a_directory, both_parts_of_a_dataset]
)
def test_choices_of_the_same_files_are_decoded_once(
    daemon: Daemon, photos: Path, cache: Cache, choices: Callable[[Path, Cache], None]
) -> None:
    choices(photos, cache)
    before = found(daemon)
    choices(photos, cache)
    after = found(daemon)
    decoded = (after[1] - before[1]) - (after[0] - before[0])
    if choices is both_parts_of_a_dataset:  # half of them without a cache
        assert after[0] - before[0] >= 2 * PHOTOS
    else:
        assert decoded == 0
