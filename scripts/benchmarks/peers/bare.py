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
from typing import Any, cast

import cv2
import numpy as np

from loaderd.sampling.keras_draws import BatchDraws
from loaderd.sampling.order import EpochOrder
from loaderd.spec.base import DType, Interpolation
from loaderd.spec.load import Load
from loaderd.spec.operations import GeneratorRescaling
from loaderd.spec.output import Batching, Order, Output
from loaderd.spec.source import Files
from loaderd.spec.spec import Spec
from scripts.benchmarks.file_renderer import FileRenderer
from scripts.benchmarks.peers.protocol import (
    Measure,
    Task,
    class_files,
    describe,
    pace,
    serve_measure,
)
from scripts.benchmarks.recipes import recipe_spec
from scripts.benchmarks.ring import AUGMENT, PLAIN


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
    spec = spec_of(task)
    rows = np.empty((task.batch_size, *spec.image_shape), spec.output.dtype)
    step = _step(task, spec, part, rows)
    for number in range(task.batch_size):
        step(number)
    pipe.send(describe([rows]))
    while True:
        seconds = pipe.recv()
        pace(step, 0.2, time.perf_counter)
        pipe.send(pace(step, seconds, time.perf_counter))


def spec_of(task: Task) -> Spec:
    """What a task asks for, of files that somebody else names."""
    if task.recipe:
        return recipe_spec(task)
    transforms = AUGMENT if task.augment else PLAIN
    if not task.is_float:
        transforms = tuple(one for one in transforms if not isinstance(one, GeneratorRescaling))
    return Spec(
        source=Files(),
        load=Load(
            target_size=task.size,
            interpolation=cast(Interpolation, task.interpolation),
            decode="scaled" if task.scaled else "exact",
        ),
        transforms=transforms,
        output=Output(dtype=cast(DType, task.dtype)),
        batch=Batching(batch_size=task.batch_size),
        order=Order(seed=0, draws="batch"),
    )


def _step(task: Task, spec: Spec, part: int, rows: Any) -> Callable[[int], None]:
    """What renders the sample of a number: from its file, or from its decoded image."""
    renderer = FileRenderer(spec)
    paths = class_files(task.directory)[0]
    order = np.random.default_rng(0).permutation(len(paths))[part :: task.workers].tolist()
    parameters = _parameters(spec, len(paths), len(rows))
    if not task.cached:

        def render(number: int) -> None:
            path = paths[order[number % len(order)]]
            renderer.render(path, next(parameters), rows[number % len(rows)])

        return render
    images = [renderer.load_file(paths[sample]).copy() for sample in order]

    def finish(number: int) -> None:
        image = images[number % len(order)]
        renderer.finish_one(image, next(parameters), rows[number % len(rows)])

    return finish


def _parameters(spec: Spec, samples: int, batch_size: int) -> Iterator[Any]:
    """As workers draw them; no draw is made twice."""
    if spec.augment:
        yield from ((*divmod(number, samples), 0) for number in itertools.count())
    epochs = EpochOrder(spec.order, samples, batch_size)
    draws = BatchDraws(spec, epochs)
    for number in itertools.count():
        epoch, position = divmod(number, epochs.batches)
        yield from draws.rows(epoch, position, 0, epochs.layout.rows(position))


if __name__ == "__main__":
    serve_measure(prepare)
