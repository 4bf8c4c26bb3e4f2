"""The floor: loaderd's render functions alone, in as many processes as there are CPUs.

Every process renders into one array of its own, over and over: no daemon, no ring, no
trainer. The loader's job is to lose nothing of that.
"""

from __future__ import annotations

import itertools
import multiprocessing
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import cv2
import numpy as np

from loaderd.render.renderer import Renderer
from loaderd.sampling.keras_draws import BatchDraws
from loaderd.sampling.order import EpochOrder
from loaderd.spec.spec import Order, Pipeline
from loaderd.spec.transform import Transform
from scripts.benchmarks.peers.protocol import Measure, Task, class_files, describe, serve_measure
from scripts.benchmarks.ring import AUGMENT, PLAIN

STRETCH = 32  # samples between two looks at the clock


def prepare(task: Task) -> tuple[Measure, dict[str, Any]]:
    """Starts the processes and waits until all are warm."""
    context = multiprocessing.get_context("spawn")
    pipes: list[Connection] = []
    for part in range(task.workers):
        ours, theirs = context.Pipe()
        context.Process(target=_work, args=(task, part, theirs), daemon=True).start()
        theirs.close()  # so that its end is seen
        pipes.append(ours)
    looks = [pipe.recv() for pipe in pipes]

    def measure(seconds: float) -> float:
        for pipe in pipes:
            pipe.send(seconds)
        # What each does while it runs, so that none waits for the slowest.
        return sum(float(pipe.recv()) for pipe in pipes)

    return measure, looks[0]


def _work(task: Task, part: int, pipe: Connection) -> None:
    cv2.setNumThreads(1)  # as in a worker
    pipeline = _pipeline(task)
    rows = np.empty((task.batch_size, *pipeline.image_shape), pipeline.dtype)
    step = _step(task, pipeline, part, rows)
    for number in range(task.batch_size):
        step(number)
    pipe.send(describe([rows]))
    while True:
        seconds = pipe.recv()
        _rate(step, 0.2)
        pipe.send(_rate(step, seconds))


def _pipeline(task: Task) -> Pipeline:
    fields: dict[str, Any] = {"decode": "scaled"} if task.scaled else {}
    base = AUGMENT if task.augment else PLAIN
    fields |= {name: getattr(base, name) for name in base.__struct_fields__ if name not in fields}
    fields["target_size"] = task.size
    fields["interpolation"] = task.interpolation
    fields["dtype"] = task.dtype
    fields["rescale"] = 1 / 255 if task.is_float else None
    return Pipeline(**fields)


def _step(task: Task, pipeline: Pipeline, part: int, rows: Any) -> Callable[[int], None]:
    """What renders the sample of a number: from its file, or from its decoded image."""
    renderer = Renderer(pipeline)
    paths = class_files(task.directory)[0]
    order = np.random.default_rng(0).permutation(len(paths))[part :: task.workers].tolist()
    transforms = _transforms(pipeline, len(paths), len(rows))
    if not task.cached:

        def render(number: int) -> None:
            path = paths[order[number % len(order)]]
            renderer.render(path, next(transforms), rows[number % len(rows)])

        return render
    images = [renderer.load(paths[sample]).copy() for sample in order]

    def finish(number: int) -> None:
        image = images[number % len(order)]
        renderer.finish(image, next(transforms), rows[number % len(rows)])

    return finish


def _transforms(pipeline: Pipeline, samples: int, batch_size: int) -> Iterator[Transform]:
    """Drawn batch by batch, as workers do; no draw is made twice."""
    epochs = EpochOrder(Order(seed=0, draws="batch"), samples, batch_size)
    draws = BatchDraws(pipeline, epochs)
    for number in itertools.count():
        epoch, position = divmod(number, epochs.batches)
        yield from draws.rows(epoch, position, 0, epochs.rows(position))


def _rate(step: Callable[[int], None], seconds: float) -> float:
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        for number in range(done, done + STRETCH):
            step(number)
        done += STRETCH
    return done / (time.perf_counter() - start)


if __name__ == "__main__":
    serve_measure(prepare)
