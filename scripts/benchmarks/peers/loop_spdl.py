"""SPDL's pipeline of threads in a loop of PyTorch, with the recipe by PIL and NumPy.

As in SPDL's guide: a source of paths, a stage that loads and transforms in as many threads as
CPUs, ``aggregate``, and a stage that stacks.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from spdl.pipeline import PipelineBuilder

from scripts.benchmarks.peers.pil_crop import cropped
from scripts.benchmarks.peers.protocol import Source, Task, class_files, serve_loop

AHEAD = 4


def prepare(task: Task) -> None:
    """Nothing: the library is loaded."""
    del task
    torch.set_num_threads(1)


def make(task: Task) -> Source:
    """The loop, over the ends of epochs."""
    paths = class_files(task.directory)[0]
    order = np.random.default_rng(0)
    samples = (paths[index] for _ in itertools.count() for index in order.permutation(len(paths)))
    seeds = itertools.count()

    def load(path: str) -> Any:
        return cropped(path, task.size, np.random.default_rng(next(seeds)))

    builder = PipelineBuilder().add_source(samples)
    builder = builder.pipe(load, concurrency=task.workers).aggregate(task.batch_size)
    pipeline = builder.pipe(np.stack).add_sink(AHEAD).build(num_threads=task.workers)
    return Source(_images(pipeline), ahead=AHEAD + task.workers)


def _images(pipeline: Any) -> Iterator[Any]:
    with pipeline.auto_stop():
        for images in pipeline.get_iterator():
            yield torch.from_numpy(images)


if __name__ == "__main__":
    serve_loop(prepare, make)
