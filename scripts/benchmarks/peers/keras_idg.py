"""Keras's own ``ImageDataGenerator``, loaded as ``model.fit`` loads it.

Keras documents ``workers`` and ``use_multiprocessing`` of ``keras.utils.PyDataset`` for
this: threads, or processes that a pool forks anew for every epoch. ``fit`` runs them
through the adapter that is used here, and so leaves out what TensorFlow adds to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from keras.src.legacy.preprocessing.image import ImageDataGenerator
from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

from scripts.benchmarks.peers.protocol import Source, Task, serve


def make(task: Task) -> Source:
    """Two threads, or two processes; the queue has the default length."""
    batches = _generator(task).flow_from_directory(
        task.directory,
        target_size=task.size,
        batch_size=task.batch_size,
        interpolation=task.interpolation,
        class_mode="categorical",
    )
    batches.workers = task.workers
    batches.use_multiprocessing = task.variant == "processes"
    return Source(_images(batches), ahead=batches.max_queue_size + task.workers)


def _generator(task: Task) -> Any:
    rescale = 1 / 255 if task.is_float else None
    if not task.augment:
        return ImageDataGenerator(rescale=rescale, dtype=task.dtype)
    return ImageDataGenerator(
        rescale=rescale,
        dtype=task.dtype,
        rotation_range=20,
        width_shift_range=0.2,
        height_shift_range=0.2,
        shear_range=0.2,
        zoom_range=0.2,
        horizontal_flip=True,
        fill_mode="nearest",
    )


def _images(batches: Any) -> Iterator[Any]:
    adapter = PyDatasetAdapter(batches)
    while True:
        adapter.on_epoch_begin()
        for images, _ in adapter.get_numpy_iterator():
            yield images
        adapter.on_epoch_end()


if __name__ == "__main__":
    serve(make)
