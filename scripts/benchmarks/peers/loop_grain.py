"""Grain's ``DataLoader`` in a loop of JAX, with the recipe by PIL and NumPy.

As in Grain's guide for ``DataLoader``: an ``IndexSampler``, transformations of one record each, a
``Batch``, and as many worker processes as CPUs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grain
import jax
import numpy as np
from absl import flags

from scripts.benchmarks.peers.pil_crop import cropped
from scripts.benchmarks.peers.protocol import Source, Task, class_files, serve_loop

AHEAD = 2  # batches for each worker, beside the one it makes


class Files:
    """One path and its label for each index."""

    def __init__(self, directory: str) -> None:
        self._paths, self._labels = class_files(directory)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: Any) -> tuple[str, int]:
        return self._paths[index], self._labels[index]


class Crop(grain.transforms.RandomMap):  # type: ignore[misc]  # no types in Grain
    """Loads and transforms one picture."""

    def __init__(self, size: tuple[int, int]) -> None:
        self._size = size

    def random_map(self, element: tuple[str, int], rng: np.random.Generator) -> Any:
        """The picture and its label."""
        path, label = element
        return cropped(path, self._size, rng), np.int32(label)


def prepare(task: Task) -> None:
    """Grain's processes want the flags parsed."""
    del task
    flags.FLAGS(["bench"], known_only=True)
    jax.devices()


def make(task: Task) -> Source:
    """The loop over the epochs."""
    files = Files(task.directory)
    loader = grain.DataLoader(
        data_source=files,
        sampler=grain.samplers.IndexSampler(
            len(files), shard_options=grain.sharding.NoSharding(), shuffle=True, seed=0
        ),
        operations=[Crop(task.size), grain.transforms.Batch(task.batch_size)],
        worker_count=task.workers,
        worker_buffer_size=AHEAD,
    )
    return Source(_images(loader), ahead=(AHEAD + 1) * task.workers)


def _images(loader: Any) -> Iterator[Any]:
    while True:
        for images, _ in loader:
            yield jax.device_put(images)


if __name__ == "__main__":
    serve_loop(prepare, make)
