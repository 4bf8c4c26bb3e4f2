"""An index means a batch of the present epoch, whoever reads it and in whatever order."""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from loaderd_client import ImageDataGenerator
from loaderd_client.keras.sequence import RING_EXTRA
from tests.keras.programs.conftest import TOTAL, numbers
from tests.support.daemons import Daemon

FLOW: dict[str, Any] = {"target_size": (8, 8), "class_mode": None, "batch_size": 2, "seed": 3}
BATCHES = TOTAL // 2


def flow(folder: Path, **augmented: Any) -> Any:
    return ImageDataGenerator(**augmented).flow_from_directory(folder, **FLOW)


class Pairs(keras.utils.PyDataset):  # type: ignore[misc]  # keras has no types
    """Two flows joined by index, as people write it for images and masks."""

    def __init__(self, folder: Path, **options: Any) -> None:
        super().__init__(**options)
        self.flows = [flow(folder), flow(folder)]
        self.mixed = 0
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self.flows[0])

    def __getitem__(self, index: int) -> Any:
        images, masks = (one[index] for one in self.flows)
        self.mixed += not np.array_equal(images, masks)
        self.read += numbers(images)
        return images, masks

    def on_epoch_end(self) -> None:
        for one in self.flows:
            one.on_epoch_end()


def small_model() -> Any:
    model = keras.Sequential([keras.layers.Input((8, 8, 3)), keras.layers.Dense(3)])
    model.compile("sgd", "mse")
    return model


@pytest.mark.parametrize("looks", [0, 1, 2])
def test_index_i_of_two_flows_is_the_same_in_any_order_by_any_threads(
    folder: Path, looks: int
) -> None:
    pairs = Pairs(folder)
    rng = np.random.default_rng(looks)
    for _ in range(looks):
        pairs[3]
        pairs.flows[0][5]
        pairs.flows[1][1]
    pairs.read.clear()
    with ThreadPoolExecutor(4) as threads:
        for _ in range(4):
            list(threads.map(pairs.__getitem__, rng.permutation(BATCHES).tolist()))
            pairs.on_epoch_end()
    assert pairs.mixed == 0
    for first in range(0, len(pairs.read), TOTAL):
        assert sorted(pairs.read[first : first + TOTAL]) == list(range(TOTAL))


@pytest.mark.parametrize("workers", [1, 4])
def test_a_fit_over_pairs_never_mixes_them(folder: Path, workers: int) -> None:
    pairs = Pairs(folder, workers=workers)
    small_model().fit(pairs, epochs=3, verbose=0)
    assert pairs.mixed == 0
    assert set(pairs.read) == set(range(TOTAL))


def _ask(pairs: Pairs, share: list[int], tell: Any) -> None:
    for index in share:
        pairs[index]
    tell.send((pairs.mixed, pairs.read))


def test_forked_processes_read_pairs(folder: Path) -> None:
    pairs = Pairs(folder)
    pairs[0]
    pairs.read.clear()
    context = multiprocessing.get_context("fork")
    read: list[int] = []
    for share in ([*range(0, BATCHES, 2)], [*range(BATCHES - 1, 0, -2)]):
        mine, its = context.Pipe()
        child = context.Process(target=_ask, args=(pairs, share, its))
        child.start()
        assert mine.poll(60)
        mixed, samples = mine.recv()
        assert not mixed
        read += samples
        child.join(30)
    assert sorted(read) == list(range(TOTAL))


def test_passes_over_a_part_of_the_indices_see_other_samples_each_time(folder: Path) -> None:
    half = flow(folder)
    passes = []
    for _ in range(24):
        passes.append([one for index in range(BATCHES // 2) for one in numbers(half[index])])
        half.on_epoch_end()
    assert all(len(set(one)) == TOTAL // 2 for one in passes)
    assert len({tuple(one) for one in passes}) == len(passes)
    assert set(itertools.chain.from_iterable(passes)) == set(range(TOTAL))


def test_a_fit_with_a_length_cut_short_sees_all_samples_in_time(folder: Path) -> None:
    class Half(Pairs):
        def __len__(self) -> int:
            return BATCHES // 2

    pairs = Half(folder)
    small_model().fit(pairs, epochs=12, verbose=0)
    assert pairs.mixed == 0
    assert set(pairs.read) == set(range(TOTAL))


def test_an_index_that_is_read_again_has_the_same_samples_drawn_anew(grain: Path) -> None:
    turned = flow(grain, rotation_range=180.0)
    plain = flow(grain)
    order = [index for index in range(10) for _ in range(2)] + [*range(10)]
    seen = [turned[index].tobytes() for index in order]
    assert len(set(seen)) == len(seen)
    assert len({plain[index].tobytes() for index in order}) == 10
    before = [plain[index].tobytes() for index in range(10)]
    plain.on_epoch_end()
    assert before != [plain[index].tobytes() for index in range(10)]


def test_random_indices_are_drawn_anew_each_time(grain: Path) -> None:
    turned = flow(grain, rotation_range=180.0)
    order = np.random.default_rng(5).integers(0, 10, 60).tolist()
    seen = [turned[index].tobytes() for index in order]
    assert len(set(seen)) == len(seen)


def test_negative_indices_count_from_the_end(folder: Path) -> None:
    plain = flow(folder)
    np.testing.assert_array_equal(plain[-1], plain[BATCHES - 1])


def test_next_goes_on_after_looks_at_what_was_read_before() -> None:
    x = np.arange(6, dtype=np.float32).repeat(48).reshape(6, 4, 4, 3)
    mixed = ImageDataGenerator().flow(x, batch_size=2, shuffle=False, max_queue_size=6)
    seen = []
    for look in (2, None, 2, None, None, 1, 1, None, 0, None):
        batch = next(mixed) if look is None else mixed[look]
        if look is None:
            seen.append(int(batch[0, 0, 0, 0]) // 2)
        else:
            np.testing.assert_array_equal(batch, x[2 * look : 2 * look + 2])
    assert seen == [0, 1, 2, 0, 1]


def _batches(one: Any) -> Callable[[], Any]:
    return lambda: (one[index] for index in range(len(one)))


@pytest.mark.parametrize("prefetch", [0, 3])
def test_tf_data_around_a_flow_reads_whole_epochs(folder: Path, prefetch: int) -> None:
    one = flow(folder)
    shape = tf.TensorSpec((None, 8, 8, 3), tf.float32)
    by_index = tf.data.Dataset.from_generator(_batches(one), output_signature=shape)
    for _ in range(3):
        seen = [
            sample for batch in by_index.prefetch(prefetch) for sample in numbers(batch.numpy())
        ]
        assert sorted(seen) == list(range(TOTAL))
        one.on_epoch_end()
    endless = tf.data.Dataset.from_generator(lambda: one, output_signature=shape)
    read = endless.take(BATCHES).as_numpy_iterator()
    assert sorted(sample for batch in read for sample in numbers(batch)) == list(range(TOTAL))


@pytest.mark.parametrize("step", [1, -1, 2])
def test_orders_that_can_be_foreseen_make_little_in_vain(
    folder: Path, daemon: Daemon, step: int
) -> None:
    before = made(daemon)
    wrapped = flow(folder)
    taken = 0
    for _ in range(12):
        for index in range(BATCHES)[::step]:
            taken += len(wrapped[index])
        wrapped.on_epoch_end()
    # Until it is foreseen, as fast workers go on while the first epoch is read; and after the end.
    rings = 4 * (wrapped.max_queue_size + RING_EXTRA) * wrapped.batch_size
    assert made(daemon) - before <= taken + rings


def made(daemon: Daemon) -> int:
    return sum(worker.rows for worker in daemon.snapshot().workers)
