"""Workers that know nothing of one another agree on the number of their epoch."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from typing import Any

import pytest

from loaderd.errors import InvalidArgument, StateError
from loaderd_client.core.worker_epochs import MAX_WORKERS, DataLoaderWorker, WorkerEpochs


class Loader:
    """A DataLoader's workers: each has the object as it was in the trainer."""

    def __init__(self, shared: WorkerEpochs, workers: int, seed: int) -> None:
        self.workers = [DataLoaderWorker(number, workers, seed) for number in range(workers)]
        self.epochs = [forked(shared) for _ in range(workers)]

    def begin(self) -> list[int]:
        return [self.begin_one(number) for number in range(len(self.workers))]

    def begin_one(self, number: int, first: int = 0, resumed: bool = False) -> int:
        return self.epochs[number].begin(self.workers[number], first, resumed)


def forked(shared: WorkerEpochs) -> WorkerEpochs:
    """The object in another process: the same memory, and its own count."""
    child = WorkerEpochs()
    vars(child).update(vars(shared))
    return child


def test_the_workers_of_an_epoch_have_its_number_and_the_next_ones_the_next() -> None:
    shared = WorkerEpochs()
    assert shared.next == 0
    assert [Loader(shared, 3, seed).begin() for seed in (7, 8, 9)] == [[0] * 3, [1] * 3, [2] * 3]
    assert shared.next == 3


def test_they_begin_behind_what_the_trainer_has_read() -> None:
    shared = WorkerEpochs()
    assert Loader(shared, 1, seed=1).begin_one(0, first=5) == 5
    persistent = Loader(shared, 1, seed=2)
    assert persistent.begin() == [6]
    shared.note(7)
    assert shared.next == 7  # by workers
    assert persistent.begin() == [8]


def test_those_that_are_resumed_begin_where_they_were_and_the_next_ones_after_them() -> None:
    shared = WorkerEpochs()
    for seed in (1, 2, 3):
        Loader(shared, 3, seed).begin()
    resumed = Loader(shared, 2, seed=4)
    assert [resumed.begin_one(number, first=1, resumed=True) for number in range(2)] == [1, 1]
    assert shared.next == 2
    assert Loader(shared, 2, seed=5).begin() == [2, 2]


def test_those_that_persist_are_refused_after_a_state_was_loaded() -> None:
    shared = WorkerEpochs()
    loader = Loader(shared, 2, seed=1)
    loader.begin()
    shared.expire()
    with pytest.raises(StateError, match="make another DataLoader"):
        loader.begin_one(1)


def test_workers_that_persist_begin_epoch_after_epoch() -> None:
    loader = Loader(WorkerEpochs(), 2, seed=5)
    assert [loader.begin() for _ in range(3)] == [[0, 0], [1, 1], [2, 2]]


def test_a_program_may_seed_its_loaders_alike() -> None:
    shared = WorkerEpochs()
    assert [Loader(shared, 2, seed=0).begin() for _ in range(3)] == [[0, 0], [1, 1], [2, 2]]


def test_loaders_may_have_other_numbers_of_workers() -> None:
    shared = WorkerEpochs()
    begun = [Loader(shared, workers, seed=0).begin() for workers in (2, 4, 1, 3)]
    assert begun == [[0] * 2, [1] * 4, [2], [3] * 3]


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_processes_share_the_count_however_they_are_started(method: str) -> None:
    shared, context = WorkerEpochs(), multiprocessing.get_context(method)
    for seed in (4, 5):
        children: list[Any] = [
            context.Process(target=shared.begin, args=(DataLoaderWorker(number, 2, seed), 0))  # type: ignore[attr-defined]
            for number in range(2)
        ]
        for child in children:
            child.start()
        for child in children:
            child.join()
            assert child.exitcode == 0
    assert shared.next == 2


@pytest.mark.parametrize("copying", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_counts_for_itself(copying: Any) -> None:
    shared = WorkerEpochs()
    Loader(shared, 1, seed=1).begin()
    other = copying(shared)
    for seed in (2, 3):
        Loader(other, 1, seed).begin()
    assert (shared.next, other.next) == (1, 3)


def test_too_many_workers_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="`num_workers` should be at most 1024"):
        WorkerEpochs().begin(DataLoaderWorker(0, MAX_WORKERS + 1, 0), 0)
