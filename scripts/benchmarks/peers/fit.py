"""``model.fit`` with a model that costs nothing: what a trainer can take at most.

Variants: ``loaderd`` feeds it with images from the daemon's cache; ``arrays`` and ``aligned``
with a ``PyDataset`` whose batches are views of one array in memory. TensorFlow copies what
does not begin at a multiple of 64 bytes, and NumPy's arrays do not: ``aligned`` ones are as
fast as Keras goes. Batches of uint8 go through a ``Rescaling`` layer in the step.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import time
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
import tensorflow as tf

from loaderd_client import Session
from scripts.benchmarks.file_renderer import FileRenderer
from scripts.benchmarks.peers import ours
from scripts.benchmarks.peers.bare import spec_of
from scripts.benchmarks.peers.protocol import (
    LEAD,
    LEAST,
    Measure,
    Task,
    class_files,
    describe,
    serve_measure,
)

EPOCHS = 100_000  # more than any measurement takes
_kept = contextlib.ExitStack()
atexit.register(_kept.close)


class Nothing(keras.Model):  # type: ignore[misc]  # no types in Keras
    """A network whose step takes the batch and does nothing with it, but rescale bytes."""

    def __init__(self) -> None:
        super().__init__()
        self._rescaling = keras.layers.Rescaling(1 / 255)

    def train_step(self, data: Any) -> dict[str, Any]:
        """Keras calls this for every batch."""
        images, labels = data
        loss = tf.cast(tf.reduce_sum(labels), tf.float32)
        if images.dtype == tf.uint8:
            loss += tf.reduce_max(self._rescaling(images))
        return {"loss": loss}


class Arrays(keras.utils.PyDataset):  # type: ignore[misc]  # no types in Keras
    """All images of a directory, finished, in one array."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        paths, labels = class_files(task.directory)
        self._batch = task.batch_size
        shape = (len(paths), *task.size, 3)
        make = np.empty if task.variant == "arrays" else _aligned
        self._images: Any = make(shape, task.dtype)
        renderer = FileRenderer(spec_of(task))
        factor = np.asarray(1 / 255 if task.is_float else 1, task.dtype)
        for row, path in zip(self._images, paths, strict=True):
            np.multiply(renderer.load_file(path), factor, out=row)
        self._labels = np.eye(max(labels) + 1, dtype=np.float32)[labels]

    def __len__(self) -> int:
        return -(-len(self._images) // self._batch)

    def __getitem__(self, index: int) -> Any:
        """Views, without a copy."""
        rows = slice(index * self._batch, (index + 1) * self._batch)
        return self._images[rows], self._labels[rows]


class Clock(keras.callbacks.Callback):  # type: ignore[misc]  # no types in Keras
    """Counts the batches of some seconds, after those that were made ahead; then stops."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds
        self._begin = time.perf_counter()
        self._start = 0.0
        self._taken = -ours.RING
        self.batches_a_second = 0.0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Looks at the clock."""
        now = time.perf_counter()
        self._taken += 1
        if not self._start:
            if self._taken >= 0 and now - self._begin >= LEAD:
                self._start, self._taken = now, 0
        elif self._taken >= LEAST and now - self._start >= self._seconds:
            self.batches_a_second = self._taken / (now - self._start)
            self.model.stop_training = True


def _aligned(shape: tuple[int, ...], dtype: str) -> Any:
    """An array at a multiple of 64 bytes: TensorFlow copies batches that are not."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    room = np.empty(size + 64, np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + size].view(dtype).reshape(shape)


def prepare(task: Task) -> tuple[Measure, dict[str, Any]]:
    """One epoch to fill the cache, and some steps for Keras to build its function."""
    batches = _batches(task)
    looks = describe([batches[0][0], batches[1][0]])
    model = Nothing()
    model.compile(optimizer="sgd", loss="mse", jit_compile=False)
    model.fit(batches, epochs=2, verbose=0)
    images = len(class_files(task.directory)[0]) / len(batches)  # in a batch, on average

    def measure(seconds: float) -> float:
        clock = Clock(seconds)
        model.fit(batches, epochs=EPOCHS, verbose=0, callbacks=[clock])
        return images * clock.batches_a_second

    return measure, looks


def _batches(task: Task) -> Any:
    if task.variant != "loaderd":
        return Arrays(task)
    Session(_kept.enter_context(ours.daemon(task.workers)))
    return ours.flow(task)


if __name__ == "__main__":
    serve_measure(prepare)
