"""Workers that know nothing of one another agree on the number of their epoch."""

from __future__ import annotations

import copy
import multiprocessing
from typing import Any

import pytest

from loaderd.errors import InvalidArgument
from loaderd_client.core.worker_epochs import MAX_WORKERS, DataLoaderWorker, WorkerEpochs


class Loader:
    """A DataLoader's workers: each has the object as it was in the trainer."""

    def __init__(self, shared: WorkerEpochs, workers: int, seed: int) -> None:
        self.workers = [DataLoaderWorker(number, workers, seed) for number in range(workers)]
        self.epochs = [forked(shared) for _ in range(workers)]

    def begin(self) -> list[int]:
        return [one.begin(worker) for one, worker in zip(self.epochs, self.workers, strict=True)]


def forked(shared: WorkerEpochs) -> WorkerEpochs:
    """The object in another process: the same memory, and its own count."""
    child = WorkerEpochs()
    vars(child).update(vars(shared))
    return child


def test_the_workers_of_an_epoch_have_its_number_and_the_next_ones_the_next() -> None:
    shared = WorkerEpochs()
    assert shared.last == 0
    assert [Loader(shared, 3, seed).begin() for seed in (7, 8, 9)] == [[1] * 3, [2] * 3, [3] * 3]
    assert shared.last == 3


def test_workers_that_persist_begin_epoch_after_epoch() -> None:
    loader = Loader(WorkerEpochs(), 2, seed=5)
    assert [loader.begin() for _ in range(3)] == [[1, 1], [2, 2], [3, 3]]


def test_a_program_may_seed_its_loaders_alike() -> None:
    shared = WorkerEpochs()
    assert [Loader(shared, 2, seed=0).begin() for _ in range(3)] == [[1, 1], [2, 2], [3, 3]]


def test_loaders_may_have_other_numbers_of_workers() -> None:
    shared = WorkerEpochs()
    begun = [Loader(shared, workers, seed=0).begin() for workers in (2, 4, 1, 3)]
    assert begun == [[1] * 2, [2] * 4, [3], [4] * 3]


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_processes_share_the_count_however_they_are_started(method: str) -> None:
    shared, context = WorkerEpochs(), multiprocessing.get_context(method)
    for seed in (4, 5):
        children: list[Any] = [
            context.Process(target=shared.begin, args=(DataLoaderWorker(number, 2, seed),))  # type: ignore[attr-defined]
            for number in range(2)
        ]
        for child in children:
            child.start()
        for child in children:
            child.join()
            assert child.exitcode == 0
    assert shared.last == 2


def test_a_copy_counts_for_itself() -> None:
    shared = WorkerEpochs()
    Loader(shared, 1, seed=1).begin()
    other = copy.deepcopy(shared)
    assert other.last == 0
    Loader(other, 1, seed=1).begin()
    Loader(other, 1, seed=2).begin()
    assert (shared.last, other.last) == (1, 2)


def test_too_many_workers_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="`num_workers` should be at most 1024"):
        WorkerEpochs().begin(DataLoaderWorker(0, MAX_WORKERS + 1, 0))
