"""Batch k is drawn as Keras draws it after seeding with seed + k; any rows of it, anywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from keras.src.legacy.preprocessing.image import ImageDataGenerator, Iterator

from loaderd.sampling.keras_draws import BatchDraws, Ranges, draw
from loaderd.sampling.order import EpochOrder
from loaderd.spec.output import Order, Save
from loaderd.spec.transform import Transform
from tests.support.specs import rendering

SIZE = (20, 30)
REACHES = st.sampled_from([0.0, 0.2, 0.999, 1.0, 3.5, 1, 2, 7, -2, (1.0, 2.0, 5.0), (0.1, 0.2)])
OPTIONS = st.fixed_dictionaries(
    {
        "rotation_range": st.sampled_from([0.0, 20.0, 90.0]),
        "height_shift_range": REACHES,
        "width_shift_range": REACHES,
        "shear_range": st.sampled_from([0.0, 15.0]),
        "zoom_range": st.sampled_from([(1.0, 1.0), (0.5, 1.5), (1.0, 2.0)]),
        "horizontal_flip": st.booleans(),
        "vertical_flip": st.booleans(),
        "channel_shift_range": st.sampled_from([0.0, 30.0]),
        "brightness_range": st.sampled_from([None, (0.5, 1.5)]),
    }
)
SEEDS = st.integers(0, 2**31)


def a_stream(
    options: dict[str, Any], seed: int, shuffle: bool, samples: int, batch_size: int
) -> tuple[EpochOrder, BatchDraws]:
    spec = rendering(target_size=SIZE, **options)
    order = Order(shuffle=shuffle, seed=seed, draws="batch")
    epochs = EpochOrder(order, samples, batch_size)
    return epochs, BatchDraws(spec, epochs)


@settings(max_examples=150, deadline=None)
@given(OPTIONS, SEEDS, st.booleans(), st.integers(1, 20), st.integers(1, 8))
def test_order_and_parameters_are_those_of_keras(
    options: dict[str, Any], seed: int, shuffle: bool, samples: int, batch_size: int
) -> None:
    epochs, draws = a_stream(options, seed, shuffle, samples, batch_size)
    generator = ImageDataGenerator(**options)
    theirs = Iterator(samples, batch_size, shuffle, seed)
    for number in range(2 * epochs.batches + 1):
        epoch, position = divmod(number, epochs.batches)
        ids = next(theirs.index_generator)
        np.testing.assert_array_equal(epochs.ids(epoch, position), ids)
        expected = [generator.get_random_transform((*SIZE, 3)) for _ in ids]
        drawn = draws.rows(epoch, position, 0, len(ids))
        as_rows = np.array([Transform(**one) for one in expected], float)
        np.testing.assert_array_equal(drawn, as_rows)


@settings(max_examples=50, deadline=None)
@given(OPTIONS, SEEDS, st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4)), max_size=20))
def test_the_order_of_asking_does_not_matter(
    options: dict[str, Any], seed: int, asked: list[tuple[int, int]]
) -> None:
    _, draws = a_stream(options, seed, True, 18, 4)
    for epoch, position in asked:
        _, fresh = a_stream(options, seed, True, 18, 4)
        last = 2 if position == 4 else 4
        whole = fresh.rows(epoch, position, 0, last)
        np.testing.assert_array_equal(draws.rows(epoch, position, 1, last), whole[1:])


def test_the_numbers_of_saved_pictures_are_drawn_after_the_batch() -> None:
    options: dict[str, Any] = {"rotation_range": 20.0}
    spec = rendering(target_size=SIZE, save=Save("/", "a", "png", 10**7), **options)
    epochs = EpochOrder(Order(seed=4, draws="batch"), 9, 4)
    draws = BatchDraws(spec, epochs)
    generator = ImageDataGenerator(**options)
    theirs = Iterator(9, 4, True, 4)
    for number in range(5):
        ids = next(theirs.index_generator)
        for _ in ids:
            generator.get_random_transform((*SIZE, 3))
        expected = [np.random.randint(10**7) for _ in ids]
        assert draws.numbers(*divmod(number, 3)) == expected


@given(OPTIONS, SEEDS)
def test_one_image_is_drawn_as_in_keras(options: dict[str, Any], seed: int) -> None:
    theirs = ImageDataGenerator(**options).get_random_transform((*SIZE, 3), seed)
    ours = draw(np.random.RandomState(seed), Ranges(**options), SIZE)
    assert ours._asdict() == theirs
