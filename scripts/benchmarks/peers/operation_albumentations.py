"""Albumentations' operation for one of loaderd's, in one thread, from pictures that are decoded.

The task's variant is the name of loaderd's. The operation is called by itself, which is faster than
a ``Compose`` with it. The finished image is copied to a row of a batch.
"""

from __future__ import annotations

import time
from typing import Any

import albumentations as A
import cv2
import numpy as np

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
    cv2.setNumThreads(0)
    theirs = PAIRS[task.variant].theirs
    if theirs is None:
        raise LookupError(f"it has no {task.variant}")
    operation = theirs.made_from(A)
    pictures = [_picture(path, task) for path in class_files(task.directory)[0][:POOL]]
    dtype = np.float32 if task.variant in FLOATS else np.uint8
    rows = np.empty((task.batch_size, *task.size, 3), dtype)

    def step(number: int) -> None:
        picture = pictures[number % len(pictures)]
        rows[number % len(rows)] = operation(image=picture)["image"]

    for number in range(max(POOL, len(rows))):
        step(number)
    return lambda seconds: pace(step, seconds, time.process_time), describe([rows])


def _picture(path: str, task: Task) -> Any:
    image: Any = cv2.imread(path, cv2.IMREAD_COLOR_RGB)
    if task.variant in SIZED:
        return image
    return cv2.resize(image, task.size[::-1], interpolation=cv2.INTER_AREA)


if __name__ == "__main__":
    serve_measure(prepare)
