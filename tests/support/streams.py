"""Specs, and streams that are read to their end."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from loaderd.spec.base import Cache
from loaderd.spec.output import Batching, Order
from loaderd.spec.source import Directory
from loaderd.spec.spec import Spec
from loaderd_client import Session
from loaderd_client.core.batch import Batch as Taken
from loaderd_client.core.stream import Stream
from tests.support.daemons import Daemon, eventually
from tests.support.specs import stages, with_load

T = TypeVar("T")


def a_spec(photos: Path, shuffle: bool = True, batch_size: int = 8) -> Spec:
    return Spec(
        source=Directory(directory=str(photos), extensions=(".jpg",)),
        **stages(
            target_size=(40, 50),
            rotation_range=20.0,
            width_shift_range=0.2,
            height_shift_range=0.2,
            shear_range=0.2,
            zoom_range=(0.8, 1.2),
            horizontal_flip=True,
            rescale=1 / 255,
        ),
        batch=Batching(batch_size=batch_size),
        order=Order(shuffle=shuffle, seed=11),
    )


def slow(spec: Spec) -> Spec:
    """The same with much larger images, so that there is time to kill and to interrupt."""
    return with_load(spec, target_size=(500, 600), interpolation="lanczos")


def run_of(stream: Stream, epochs: int = 2) -> Iterator[Taken]:
    for epoch in range(epochs):
        for position in range(stream.batches):
            yield stream.take((epoch, position))


def digest(batch: Taken) -> str:
    assert batch.labels is not None
    sha = hashlib.sha256(repr(batch.place).encode())
    for array in (batch.images, batch.labels, batch.ids):
        sha.update(array.tobytes())
    return sha.hexdigest()


def check_epochs(batches: list[np.ndarray], samples: int, per_epoch: int) -> None:
    """Every sample exactly once per epoch, and the epochs in different orders."""
    epochs = [
        np.concatenate(batches[i : i + per_epoch]) for i in range(0, 2 * per_epoch, per_epoch)
    ]
    for ids in epochs:
        assert sorted(ids.tolist()) == list(range(samples))
    assert (epochs[0] != epochs[1]).any()


def killing_one(daemon: Daemon, batches: Iterable[T], every: int = 3) -> Iterator[T]:
    """Kills one worker with SIGKILL as each so many batches were read."""
    kills = 0

    def all_replaced() -> bool:
        return daemon.snapshot().restarts == kills

    for count, batch in enumerate(batches, 1):
        yield batch
        if count % every == 0:
            workers = daemon.workers()
            os.kill(workers[kills % len(workers)], signal.SIGKILL)
            kills += 1
            eventually(all_replaced)
    assert kills >= 3


def cached(spec: Spec, cache: Cache) -> Spec:
    return msgspec.structs.replace(spec, cache=cache)


def with_errors(spec: Spec, on_error: str) -> Spec:
    return msgspec.structs.replace(spec, on_error=on_error)


def read_all(path: str, spec: Spec) -> list[str]:
    """Two epochs, of which every sample came once."""
    with Session(path) as session:
        stream = session.open(spec, slots=6)
        batches = [(batch.ids, digest(batch)) for batch in run_of(stream)]
        check_epochs([ids for ids, _ in batches], 96, stream.batches)
        stream.close()
    return [one for _, one in batches]
