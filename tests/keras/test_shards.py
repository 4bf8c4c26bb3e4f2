"""Every function that makes datasets takes ``shard``, and nobody divides such a dataset again."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pandas
import pytest
from PIL import Image

from loaderd.errors import InvalidArgument, StateError
from loaderd.spec.output import Shard
from loaderd_client import (
    Session,
    image_dataset_from_arrays,
    image_dataset_from_coco,
    image_dataset_from_dataframe,
    image_dataset_from_directory,
    segmentation_dataset_from_directory,
)
from loaderd_client import augment as A
from tests.support.daemons import Daemon, Serve

SIZE = (24, 32)
CROPS = [A.RandomResizedCrop(*SIZE)]


@pytest.fixture
def daemon(serve: Serve) -> Iterator[Daemon]:
    with serve(workers=2) as daemon, Session(daemon.path):
        yield daemon


def of_directory(photos: Path, **options: Any) -> Any:
    return image_dataset_from_directory(photos, image_size=SIZE, **options)


def of_masks(photos: Path, **options: Any) -> Any:
    return segmentation_dataset_from_directory(photos, masks_of(photos), image_size=SIZE, **options)


def of_table(photos: Path, **options: Any) -> Any:
    paths = sorted(map(str, photos.glob("*/*.jpg")))
    table = pandas.DataFrame({"path": paths, "size": np.arange(96.0), "p": np.arange(96) % 5 + 1.0})
    return image_dataset_from_dataframe(
        table, image="path", label="size", sampling_weight="p", image_size=SIZE, **options
    )


def of_arrays(photos: Path, **options: Any) -> Any:
    images = np.random.default_rng(0).integers(0, 256, (96, 30, 40, 3), np.uint8)
    return image_dataset_from_arrays(images, labels=np.arange(96) % 3, image_size=SIZE, **options)


def of_boxes(photos: Path, **options: Any) -> Any:
    paths = sorted(photos.glob("*/*.jpg"))
    table = {
        "images": [
            {"id": at, "file_name": str(path.relative_to(photos))} for at, path in enumerate(paths)
        ],
        "categories": [{"id": 7, "name": "thing"}],
        "annotations": [
            {"id": at, "image_id": at, "category_id": 7, "bbox": [3 + at % 9, 5, 30, 20]}
            for at in range(len(paths))
        ],
    }
    file = photos.parent / "boxes.json"
    file.write_text(json.dumps(table))
    return image_dataset_from_coco(file, photos, image_size=SIZE, **options)


def masks_of(photos: Path) -> Path:
    folder = photos.parent / "masks"
    if folder.exists():
        return folder
    for photo in photos.glob("*/*.jpg"):
        mask = folder / photo.parent.name / f"{photo.stem}.png"
        mask.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(photo) as image:
            values = np.arange(image.height * image.width, dtype=np.uint8) % 5
            Image.fromarray(values.reshape(image.height, image.width)).save(mask)
    return folder


def leaves(batch: Any) -> list[Any]:
    """The arrays of a batch, in a fixed order."""
    if isinstance(batch, dict):
        return [leaf for name in sorted(batch) for leaf in leaves(batch[name])]
    if isinstance(batch, tuple):
        return [leaf for one in batch for leaf in leaves(one)]
    return [batch]


@pytest.mark.parametrize("make", [of_directory, of_masks, of_table, of_arrays, of_boxes])
def test_trainers_of_any_dataset_have_side_by_side_the_batches_of_one(
    daemon: Daemon, photos: Path, make: Callable[..., Any]
) -> None:
    options: dict[str, Any] = {"seed": 5, "augment": CROPS, "verbose": False}
    with closing(make(photos, batch_size=15, **options)) as alone:
        whole = [leaves(batch) for batch in alone]
    trainers = [make(photos, batch_size=5, shard=(index, 3), **options) for index in range(3)]
    assert [len(trainer) for trainer in trainers] == [len(whole)] * 3
    for expected, *parts in zip(whole, *trainers, strict=True):
        for one, *pieces in zip(expected, *map(leaves, parts), strict=True):
            assert np.concatenate(pieces).tobytes() == one.tobytes()
    for trainer in trainers:
        trainer.close()


def test_both_parts_of_a_split_are_shared(daemon: Daemon, photos: Path) -> None:
    found = [
        of_directory(
            photos,
            batch_size=4,
            seed=5,
            validation_split=0.25,
            subset="both",
            shard=(index, 2),
            verbose=False,
        )
        for index in range(2)
    ]
    for part, samples in enumerate((72, 24)):
        ids = [
            sample
            for trainer in found
            for position in range(len(trainer[part]))
            for sample in trainer[part].fetch(position).ids.tolist()
        ]
        assert sorted(ids) == [*range(samples)]


def test_auto_takes_what_the_environment_says(
    daemon: Daemon, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(InvalidArgument, match="`shard` needs a `seed`"):
        of_directory(photos, shard="auto")
    with pytest.raises(InvalidArgument, match="`shard` needs a `seed`"):
        of_arrays(photos, shard="auto")
    with closing(of_directory(photos, seed=1, shard="auto", verbose=False)) as train:
        assert train.spec.order.shard == Shard(1, 3, found="RANK")
        assert [one.shard_text for one in daemon.snapshot().streams] == ["1/3 by RANK"]


def test_a_rest_without_a_sample_for_every_trainer_is_refused_when_the_dataset_is_made(
    daemon: Daemon, photos: Path
) -> None:
    with pytest.raises(InvalidArgument, match='use remainder="drop"'):
        of_directory(photos, batch_size=19, seed=1, shard=(0, 5))
    for remainder, length in (("drop", 1), ("pad", 2)):
        options: dict[str, Any] = {"batch_size": 19, "seed": 1, "verbose": False}
        made = of_directory(photos, shard=(4, 5), remainder=remainder, **options)
        with closing(made) as train:
            assert [len(images) for images, _ in train] == [19] * length


def test_a_state_of_eight_trainers_continues_with_three(daemon: Daemon, photos: Path) -> None:
    options: dict[str, Any] = {"seed": 5, "augment": CROPS, "verbose": False}

    def trainers(count: int) -> list[Any]:
        return [
            of_directory(photos, batch_size=24 // count, shard=(index, count), **options)
            for index in range(count)
        ]

    def batch(found: list[Any]) -> list[bytes]:
        parts = [leaves(next(trainer)) for trainer in found]
        return [np.concatenate(pieces).tobytes() for pieces in zip(*parts, strict=True)]

    with closing(of_directory(photos, batch_size=24, **options)) as alone:
        whole = [[leaf.tobytes() for leaf in leaves(next(alone))] for _ in range(6)]
    eight = trainers(8)
    assert [batch(eight) for _ in range(3)] == whole[:3]
    states = [trainer.state_dict() for trainer in eight]
    assert all(state == states[0] for state in states)
    three = trainers(3)
    for trainer in three:
        trainer.load_state_dict(states[0])
    assert [batch(three) for _ in range(3)] == whole[3:]
    with (
        closing(of_directory(photos, batch_size=4, shard=(0, 3), **options)) as smaller,
        pytest.raises(StateError, match=r"`batch_size` \(of all trainers together\)"),
    ):
        smaller.load_state_dict(states[0])
    for trainer in (*eight, *three):
        trainer.close()


# -- Keras and TensorFlow that divide datasets themselves --------------------------------

ADAPTER = """
class PyDatasetAdapter:
    def __init__(self, py_dataset, count, index):
        self.py_dataset = py_dataset
        self._num_data_shards, self._data_shard_id = count, index

    def _finite_generator(self):
        num_batches = self.py_dataset.num_batches
        indices = list(range(num_batches))
        for i in range(self._data_shard_id, num_batches, self._num_data_shards):
            yield self.py_dataset[indices[i]]

    @property
    def num_batches(self):
        return (
            self.py_dataset.num_batches - self._data_shard_id + self._num_data_shards - 1
        ) // self._num_data_shards
"""
"""What Keras 3.16 does where a distribution of several processes shards datasets."""


def read_by_keras_316(dataset: Any, index: int, count: int) -> tuple[int, list[Any]]:
    scope: dict[str, Any] = {
        "__name__": "keras.src.trainers.data_adapters.py_dataset_adapter",
    }
    exec(ADAPTER, scope)
    adapter = scope["PyDatasetAdapter"](dataset, count, index)
    length = adapter.num_batches
    return length, list(adapter._finite_generator())


def test_keras_316_reads_all_batches_of_a_dataset_that_is_sharded(
    daemon: Daemon, photos: Path
) -> None:
    options: dict[str, Any] = {"batch_size": 5, "seed": 1, "verbose": False}
    with closing(of_directory(photos, shard=(1, 2), **options)) as train:
        expected = [images.tobytes() for images, _ in train]
    with closing(of_directory(photos, shard=(1, 2), **options)) as train:
        length, batches = read_by_keras_316(train, 1, 2)
    assert length == len(batches) == 10
    assert [images.tobytes() for images, _ in batches] == expected


@pytest.mark.parametrize("shard", [None, (0, 2), (1, 4)])
def test_where_keras_316_divides_datasets_otherwise_it_is_said_which_shard_fits(
    daemon: Daemon, photos: Path, shard: Any
) -> None:
    with (
        closing(of_directory(photos, seed=1, shard=shard, verbose=False)) as train,
        pytest.raises(InvalidArgument, match=r"among 2 processes: give this one shard=\(1, 2\)"),
    ):
        read_by_keras_316(train, 1, 2)


def test_without_several_processes_keras_316_reads_everything(daemon: Daemon, photos: Path) -> None:
    with closing(of_directory(photos, seed=1, verbose=False)) as train:
        assert read_by_keras_316(train, 0, 1)[0] == 3


class Strategy:
    """A ``MultiWorkerMirroredStrategy`` of workers with one device each."""

    def __init__(self, workers: int) -> None:
        self.num_replicas_in_sync = workers
        self.extended = SimpleNamespace(worker_devices=("/device:CPU:0",))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_strategy_that_would_leave_out_a_part_of_each_batch_is_refused(
    daemon: Daemon, photos: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    import tensorflow as tf

    model = keras.Sequential([keras.Input((*SIZE, 3)), keras.layers.Flatten()])
    model.compile("sgd", lambda truth, found: keras.ops.mean(found))
    train = of_directory(photos, seed=1, shard=(0, 2), verbose=False)
    assert sys.modules["tensorflow"] is tf
    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", Strategy)
    monkeypatch.setattr(tf.distribute, "get_strategy", lambda: Strategy(workers))
    with closing(train):
        if workers == 1:
            train[0]
            return
        with pytest.raises(InvalidArgument, match="give `fit` what strategy"):
            model.fit(train, verbose=0)
