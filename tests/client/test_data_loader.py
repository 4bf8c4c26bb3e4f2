"""Sequences in a ``DataLoader`` of PyTorch; runs where that is installed."""

from __future__ import annotations

import copy
import itertools
import multiprocessing
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loaderd_client import (
    ImageDataGenerator,
    LoaderSequence,
    Session,
    image_dataset_from_directory,
)
from tests.support.daemons import Daemon, Serve

torch = pytest.importorskip("torch")
data = pytest.importorskip("torch.utils.data")

BATCHES = 12


@pytest.fixture
def daemon(serve: Serve) -> Iterator[Daemon]:
    with serve(workers=2) as daemon, Session(daemon.path):
        yield daemon


def dataset(photos: Path, **options: Any) -> LoaderSequence:
    known: dict[str, Any] = {"image_size": (40, 40), "batch_size": 8, "seed": 3, "verbose": False}
    found = image_dataset_from_directory(photos, **(known | options))
    assert isinstance(found, LoaderSequence)
    return found


def flow(photos: Path) -> Any:
    return ImageDataGenerator(rotation_range=20).flow_from_directory(
        photos, target_size=(40, 40), batch_size=8, class_mode="sparse", seed=3
    )


def loader_of(batches: Any, **options: Any) -> Any:
    return data.DataLoader(batches, batch_size=None, **options)


def marks_of(batches: Any) -> list[tuple[float, list[int]]]:
    """What tells a batch from others: its pixels' sum, and its labels."""
    return [
        (float(np.asarray(images, np.float64).sum()), np.asarray(labels).tolist())
        for images, labels in batches
    ]


def epochs_of(batches: Any, count: int) -> list[list[tuple[float, list[int]]]]:
    """The marks of some epochs, no two of which are alike."""
    epochs = [marks_of(batches) for _ in range(count)]
    assert len({str(sorted(epoch)) for epoch in epochs}) == count
    return epochs


# -- train.torch() ---------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_workers_read_each_batch_once(method: str, photos: Path, daemon: Daemon) -> None:
    expected = epochs_of(dataset(photos).numpy(), 3)
    batches = dataset(photos).torch()
    loader = loader_of(batches, num_workers=2, multiprocessing_context=method)
    assert [marks_of(loader) for _ in range(2)] == expected[:2]
    assert marks_of(batches) == expected[2]  # without workers, after them


def test_whoever_reads_an_epoch_the_next_one_has_another_order(
    photos: Path, daemon: Daemon
) -> None:
    train = dataset(photos)
    batches = train.torch()
    persistent = loader_of(batches, num_workers=3, persistent_workers=True)
    readers = [
        batches, loader_of(batches, num_workers=2), batches, loader_of(batches),
        loader_of(train.torch(), num_workers=1), persistent, train.numpy(), persistent,
        loader_of(train, num_workers=2), loader_of(batches, num_workers=5), loader_of(train), train,
    ]  # fmt: skip
    expected = epochs_of(dataset(photos).numpy(), len(readers))
    assert [marks_of(one) for one in readers] == expected


def test_a_worker_makes_no_tensors_on_a_device(photos: Path, daemon: Daemon) -> None:
    loader = loader_of(dataset(photos).torch("meta"), num_workers=1)
    with pytest.raises(ValueError, match="leave `num_workers` at 0"):
        next(iter(loader))


def test_a_copy_counts_for_itself(photos: Path, daemon: Daemon) -> None:
    batches = dataset(photos).torch()
    loader = loader_of(batches, num_workers=1)
    first = marks_of(loader)
    other = copy.deepcopy(batches)
    second = marks_of(loader)
    assert epochs_of(loader_of(other, num_workers=1), 2)[0] == second != first
    assert marks_of(loader) not in (first, second)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_program_that_is_started_from_the_trainer_counts_for_itself(
    method: str, photos: Path, daemon: Daemon
) -> None:
    train = dataset(photos)
    context: Any = multiprocessing.get_context(method)
    other = context.Process(target=epochs_of, args=(train, 3))
    other.start()
    other.join()
    assert other.exitcode == 0
    loader = loader_of(train.torch(), num_workers=1, persistent_workers=True)
    assert epochs_of(loader, 2) == epochs_of(dataset(photos).numpy(), 2)


# -- the sequence itself, by index -----------------------------------------------------


@pytest.mark.parametrize("kind", [dataset, flow])
@pytest.mark.parametrize(
    "options",
    [{}, {"num_workers": 2}, {"num_workers": 3, "persistent_workers": True}],
    ids=["no workers", "workers", "persistent workers"],
)
def test_each_pass_over_a_sequence_is_one_epoch(
    kind: Any, options: dict[str, Any], photos: Path, daemon: Daemon
) -> None:
    expected = epochs_of(kind(photos).numpy(), 3)
    train = kind(photos)
    loader = loader_of(train, **options)
    assert [marks_of(loader) for _ in range(2)] == expected[:2]
    state = train.state_dict()
    assert (state["epoch"], state["samples"]) == (2, 0)
    assert marks_of(train.numpy()) == expected[2]


def test_workers_that_are_not_forked_know_the_epoch(photos: Path, daemon: Daemon) -> None:
    loader = loader_of(dataset(photos), num_workers=1, multiprocessing_context="forkserver")
    assert epochs_of(loader, 2) == epochs_of(dataset(photos).numpy(), 2)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_sampler_decides_the_order_within_an_epoch(
    workers: int, photos: Path, daemon: Daemon
) -> None:
    expected = epochs_of(dataset(photos).numpy(), 2)
    train = dataset(photos)

    class Drawn(data.Sampler):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.order = list(range(len(train)))

        def __iter__(self) -> Iterator[int]:
            return iter(self.order)

    sampler = Drawn()
    loader = loader_of(train, sampler=sampler, num_workers=workers)
    for epoch in expected:
        random.Random(str(epoch)).shuffle(sampler.order)
        assert marks_of(loader) == [epoch[index] for index in sampler.order]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_dataset_around_a_sequence_is_followed_too(
    workers: int, photos: Path, daemon: Daemon
) -> None:
    expected = epochs_of(dataset(photos).numpy(), 2)
    part = data.Subset(dataset(photos), range(4, 9))
    loader = loader_of(part, num_workers=workers)
    assert [marks_of(loader) for _ in range(2)] == [epoch[4:9] for epoch in expected]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_pass_that_is_left_early_is_over(workers: int, photos: Path, daemon: Daemon) -> None:
    expected = epochs_of(dataset(photos).numpy(), 2)
    loader = loader_of(dataset(photos), num_workers=workers)
    assert marks_of(itertools.islice(loader, 3)) == expected[0][:3]
    assert marks_of(loader) == expected[1]


def test_what_was_looked_at_before_takes_no_epoch(photos: Path, daemon: Daemon) -> None:
    train = dataset(photos)
    train[0], train[3]
    first = marks_of(dataset(photos).numpy())
    assert [labels for _, labels in marks_of(loader_of(train, num_workers=2))] == [
        labels for _, labels in first
    ]


# -- states ----------------------------------------------------------------------------


def test_a_state_counts_the_epochs_that_workers_have_begun(photos: Path, daemon: Daemon) -> None:
    batches = dataset(photos).torch()
    loader = loader_of(batches, num_workers=2)
    first = marks_of(loader)
    state = batches.state_dict()
    assert (state["epoch"], state["samples"]) == (1, 0)
    other = dataset(photos).torch()
    other.load_state_dict(state)
    assert marks_of(other) == marks_of(loader) != first


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("by_index", [False, True], ids=["torch()", "by index"])
def test_a_loader_goes_back_to_a_state_that_the_trainer_has_loaded(
    by_index: bool, workers: int, photos: Path, daemon: Daemon
) -> None:
    train = dataset(photos)
    batches = train if by_index else train.torch()
    loader = loader_of(batches, num_workers=workers)
    epochs = [marks_of(loader)]
    saved = batches.state_dict()
    epochs += [marks_of(loader) for _ in range(2)]
    batches.load_state_dict(saved)
    assert batches.state_dict() == saved
    assert [marks_of(loader) for _ in range(2)] == epochs[1:]


def test_workers_begin_in_the_middle_of_an_epoch_that_the_trainer_has_loaded(
    photos: Path, daemon: Daemon
) -> None:
    expected = epochs_of(dataset(photos).numpy(), 2)
    first, second = dataset(photos).torch(), dataset(photos).torch()
    for _ in itertools.islice(first, 5):
        pass
    second.load_state_dict(first.state_dict())
    loader = loader_of(second, num_workers=2)
    assert [marks_of(loader) for _ in range(2)] == [expected[0][5:], expected[1]]


@pytest.mark.parametrize("by_index", [False, True], ids=["torch()", "by index"])
def test_workers_that_persist_are_refused_after_a_state_was_loaded(
    by_index: bool, photos: Path, daemon: Daemon
) -> None:
    train = dataset(photos)
    batches = train if by_index else train.torch()
    loader = loader_of(batches, num_workers=2, persistent_workers=True)
    marks_of(loader)
    batches.load_state_dict(batches.state_dict())
    with pytest.raises(ValueError, match="make another DataLoader"):
        marks_of(loader)


# -- StatefulDataLoader ----------------------------------------------------------------


def stateful(batches: Any, **options: Any) -> Any:
    module = pytest.importorskip("torchdata.stateful_dataloader")
    return module.StatefulDataLoader(batches, batch_size=None, **options)


STATEFUL: list[dict[str, Any]] = [
    {},
    {"num_workers": 1},
    {"num_workers": 2, "snapshot_every_n_steps": 4},
    {"num_workers": 2, "persistent_workers": True},
]


@pytest.mark.parametrize("options", STATEFUL, ids=str)
def test_a_stateful_loader_reads_epoch_after_epoch(
    options: dict[str, Any], photos: Path, daemon: Daemon
) -> None:
    expected = epochs_of(dataset(photos).numpy(), 3)
    loader = stateful(dataset(photos).torch(), **options)
    assert [marks_of(loader) for _ in range(3)] == expected


@pytest.mark.parametrize("options", STATEFUL, ids=str)
@pytest.mark.parametrize("count", [5, 12, 19])
def test_a_stateful_loader_goes_on_with_exactly_what_is_left(
    count: int, options: dict[str, Any], photos: Path, daemon: Daemon
) -> None:
    expected = [*itertools.chain(*epochs_of(dataset(photos).numpy(), 3))]

    def batches(loader: Any) -> Iterator[Any]:
        while True:
            yield from loader

    first, second = (stateful(dataset(photos).torch(), **options) for _ in range(2))
    for _ in itertools.islice(batches(first), count):
        pass
    second.load_state_dict(first.state_dict())
    assert marks_of(itertools.islice(batches(second), 36 - count)) == expected[count:]


def test_a_stateful_loader_goes_back_within_one_program(photos: Path, daemon: Daemon) -> None:
    expected = epochs_of(dataset(photos).numpy(), 2)
    loader = stateful(dataset(photos).torch(), num_workers=2)
    for _ in itertools.islice(loader, 5):
        pass
    saved = loader.state_dict()
    for _ in range(2):
        marks_of(loader)
    loader.load_state_dict(saved)
    assert [marks_of(loader) for _ in range(2)] == [expected[0][5:], expected[1]]


def test_a_worker_does_not_go_back_behind_the_trainer(photos: Path, daemon: Daemon) -> None:
    batches = dataset(photos).torch()
    loader = stateful(batches, num_workers=1)
    next(iter(loader))
    saved = loader.state_dict()
    marks_of(batches)
    loader.load_state_dict(saved)
    with pytest.raises(ValueError, match="make the sequence anew"):
        next(iter(loader))


def test_a_worker_takes_no_state_where_the_trainer_counts_otherwise(
    photos: Path, daemon: Daemon
) -> None:
    first = stateful(dataset(photos).torch(), num_workers=1)
    next(iter(first))
    others = dataset(photos, share="all").torch()
    marks_of(others)
    late = dataset(photos, share="all")
    assert late.state_dict()["epoch"] > 0
    second = stateful(late.torch(), num_workers=1)
    second.load_state_dict(first.state_dict())
    with pytest.raises(ValueError, match="joined its shared stream at another epoch"):
        next(iter(second))


def test_workers_of_a_shared_stream_go_on_too(photos: Path, daemon: Daemon) -> None:
    expected = epochs_of(dataset(photos).numpy(), 2)
    first, second = (
        stateful(dataset(photos, share=name).torch(), num_workers=2) for name in ("one", "other")
    )
    for _ in itertools.islice(first, 5):
        pass
    second.load_state_dict(first.state_dict())
    assert [marks_of(second) for _ in range(2)] == [expected[0][5:], expected[1]]


def test_a_worker_takes_its_own_state_only(photos: Path, daemon: Daemon) -> None:
    first, second = (stateful(dataset(photos).torch(), num_workers=1) for _ in range(2))
    next(iter(first))
    saved = first.state_dict()
    [worker] = saved["_snapshot"]["_worker_snapshots"].values()
    worker["dataset_state"]["number"] = 1
    second.load_state_dict(saved)
    with pytest.raises(ValueError, match="keep `num_workers` as it was"):
        next(iter(second))


def test_a_stateful_loader_of_a_sequence_is_right_without_workers(
    photos: Path, daemon: Daemon
) -> None:
    expected = epochs_of(dataset(photos).numpy(), 3)
    first, second = (stateful(dataset(photos)) for _ in range(2))
    marks_of(first)
    for _ in itertools.islice(first, 5):
        pass
    second.load_state_dict(first.state_dict())
    assert [marks_of(second) for _ in range(2)] == [expected[1][5:], expected[2]]


def test_a_worker_has_no_state_of_a_sequence(photos: Path, daemon: Daemon) -> None:
    loader = stateful(dataset(photos), num_workers=1)
    with pytest.raises(ValueError, match=r"give a StatefulDataLoader `sequence.torch\(\)`"):
        next(iter(loader))
