"""Grain, through ``keras.utils.image_dataset_from_directory(format="grain")``.

Variants: ``threads`` is what that function returns, which reads with Grain's default
threads; ``processes`` is the same with ``mp_prefetch``, which Grain's guide recommends
where Python code is the slow part. Keras runs on JAX here, for which Grain is made.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"

import grain
import keras
from absl import flags

from scripts.benchmarks.peers.protocol import Source, Task, serve


def make(task: Task) -> Source:
    """The whole pipeline."""
    flags.FLAGS(["bench"], known_only=True)  # Grain's processes want them parsed
    dataset = keras.utils.image_dataset_from_directory(
        task.directory,
        label_mode="categorical",
        batch_size=task.batch_size,
        image_size=task.size,
        interpolation=task.interpolation,
        format="grain",
    )
    dataset = dataset.map(Finish(task))
    if task.variant == "processes":
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=task.workers))
    return Source(_images(dataset), ahead=8)


class Finish(grain.transforms.Map):  # type: ignore[misc]  # no types in Grain
    """Augments and rescales a batch; the layers are made in the process that runs them."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._layers: list[Any] | None = None

    def map(self, element: Any) -> Any:
        """Keras calls its layers so in a Grain pipeline."""
        images, labels = element
        if self._layers is None:
            self._layers = _layers(self._task)
        for layer in self._layers:
            images = layer(images)
        return images, labels


def _layers(task: Task) -> list[Any]:
    rescaling = keras.layers.Rescaling(1 / 255)
    if not task.augment:
        return [rescaling]
    shear = math.radians(0.2)  # ImageDataGenerator's is in degrees
    return [
        keras.layers.RandomFlip("horizontal"),
        keras.layers.RandomRotation(20 / 360, fill_mode="nearest"),
        keras.layers.RandomTranslation(0.2, 0.2, fill_mode="nearest"),
        keras.layers.RandomShear(x_factor=shear, fill_mode="nearest"),
        keras.layers.RandomZoom(0.2, 0.2, fill_mode="nearest"),
        rescaling,
    ]


def _images(dataset: Any) -> Iterator[Any]:
    while True:
        for images, _ in dataset:
            yield images


if __name__ == "__main__":
    serve(make)
