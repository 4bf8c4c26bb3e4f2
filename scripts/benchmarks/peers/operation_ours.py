"""One operation of loaderd, drawn and applied as a worker does, from pictures that are decoded.

The task's variant is its name. The finished image is written to a row of a batch.
"""

from __future__ import annotations

import time
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from loaderd.spec.load import Load
from loaderd.spec.output import Batching, Order, Output
from loaderd.spec.source import Files
from loaderd.spec.spec import Spec
from loaderd_client import augment as A
from scripts.benchmarks.file_renderer import FileRenderer
from scripts.benchmarks.operations import FLOATS, PAIRS, SIZED
from scripts.benchmarks.peers.protocol import (
    POOL,
    Measure,
    Task,
    class_files,
    describe,
    pace,
    serve_measure,
)


def prepare(task: Task) -> tuple[Measure, dict[str, Any]]:
    """Decodes the pictures, and applies the operation to each once."""
    cv2.setNumThreads(1)  # as in a worker
    spec = _spec(task)
    renderer = FileRenderer(spec)
    pictures = [renderer.load_file(path).copy() for path in class_files(task.directory)[0][:POOL]]
    rows: NDArray[Any] = np.empty((task.batch_size, *spec.image_shape), spec.output.dtype)

    def step(number: int) -> None:
        picture, row = pictures[number % len(pictures)], rows[number % len(rows)]
        renderer.finish_one(picture, (0, number, 0), row)

    for number in range(max(POOL, len(rows))):
        step(number)
    return lambda seconds: pace(step, seconds, time.process_time), describe([rows])


def _spec(task: Task) -> Spec:
    keeps = task.variant in SIZED
    return Spec(
        source=Files(),
        load=Load(
            target_size=task.size,
            interpolation="bilinear",
            aspect="keep" if keeps else "stretch",
            reading="decode_image",
        ),
        transforms=(),
        output=Output(
            dtype="float32" if task.variant in FLOATS else "uint8",
            image_size=task.size if keeps else None,
        ),
        batch=Batching(batch_size=task.batch_size),
        order=Order(seed=0),
        augment=(PAIRS[task.variant].ours.made_from(A),),
    )


if __name__ == "__main__":
    serve_measure(prepare)
