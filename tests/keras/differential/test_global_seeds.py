"""A program's global seed decides what flows without a seed give, as with Keras."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest

from loaderd_client import ImageDataGenerator, image_dataset_from_directory
from tests.keras.differential.conftest import Connect
from tests.keras.differential.surface import KERAS_WITH_ITSELF

Make = Callable[[Path], Any]


if KERAS_WITH_ITSELF:
    pytest.skip("Keras draws from the generator itself", allow_module_level=True)


@pytest.fixture(autouse=True)
def session(connect: Connect) -> Iterator[None]:
    with connect():
        yield


def directory(pictures: Path) -> Any:
    return generator().flow_from_directory(pictures, target_size=(8, 8), batch_size=4)


def table(pictures: Path) -> Any:
    frame = pd.DataFrame({"filename": sorted(map(str, pictures.glob("*/*.png")))})
    return generator().flow_from_dataframe(frame, target_size=(8, 8), batch_size=4, class_mode=None)


def arrays(pictures: Path) -> Any:
    return generator().flow(np.random.default_rng(1).random((40, 8, 8, 3)), batch_size=4)


def dataset(pictures: Path) -> Any:
    return image_dataset_from_directory(pictures, image_size=(8, 8), batch_size=4, verbose=False)


def generator() -> ImageDataGenerator:
    return ImageDataGenerator(horizontal_flip=True, channel_shift_range=40.0)


def numpys_alone(number: int) -> None:
    np.random.seed(number)
    random.seed(number)


def bytes_of(flow: Any) -> bytes:
    try:
        batches = [next(flow) for _ in range(4)]
    finally:
        flow.close()
    return b"".join(
        np.asarray(part).tobytes()
        for batch in batches
        for part in (batch if isinstance(batch, tuple) else (batch,))
    )


@pytest.mark.parametrize("make", [directory, table, arrays, dataset])
@pytest.mark.parametrize("seed", [keras.utils.set_random_seed, numpys_alone])
def test_it_decides_all_flows_and_none_is_anothers_twin(
    make: Make, seed: Callable[[int], None], pictures: Path
) -> None:
    runs = []
    for number in (42, 42, 43):
        seed(number)
        runs.append([bytes_of(make(pictures)) for _ in range(2)])
    first, again, other = runs
    assert first == again
    assert not set(first) & set(other)
    assert first[0] != first[1]


def test_a_seed_that_is_taken_away_is_picked_anew(pictures: Path) -> None:
    flow = directory(pictures)
    first = flow.seed
    next(flow)
    flow.seed = None
    next(flow)
    assert flow.seed not in (None, first)
    flow.close()


def test_a_flow_with_a_seed_leaves_the_generator_alone(pictures: Path) -> None:
    np.random.seed(42)
    before = np.random.random()
    np.random.seed(42)
    flow = generator().flow_from_directory(pictures, target_size=(8, 8), seed=3)
    next(flow)
    flow.close()
    assert np.random.random() == before


def test_the_seed_that_was_picked_repeats_the_run(pictures: Path) -> None:
    picked = directory(pictures)
    again = generator().flow_from_directory(
        pictures, target_size=(8, 8), batch_size=4, seed=picked.seed
    )
    assert bytes_of(picked) == bytes_of(again)
