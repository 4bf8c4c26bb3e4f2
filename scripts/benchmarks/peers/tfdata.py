"""tf.data through ``keras.utils.image_dataset_from_directory`` and Keras's augmentation layers.

As the TensorFlow tutorials "Load and preprocess images" and "Data augmentation" recommend: layers
mapped with ``AUTOTUNE``, ``prefetch(AUTOTUNE)`` last. Where images are to be cached: ``cache``
behind the decoder (of bytes, where bytes are wanted), behind it ``shuffle`` over all images, then
``batch``. A cache of the function's own batches would hand out the same batches in every epoch.
The function resizes bilinearly without antialiasing, which is faster and is left so; the
variant ``antialias`` maps ``tf.image.resize(antialias=True)`` over the files instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from scripts.benchmarks.peers.protocol import Source, Task, class_files, serve


def make(task: Task) -> Source:
    """The whole pipeline; the first epoch is over when it is to be cached."""
    dataset = _antialiased(task) if task.variant == "antialias" else _as_documented(task)
    if not task.is_float:
        dataset = dataset.map(_as(task.dtype), num_parallel_calls=tf.data.AUTOTUNE)
    if task.cached:
        dataset = dataset.cache().shuffle(len(dataset))
        dataset = dataset.batch(task.batch_size, num_parallel_calls=tf.data.AUTOTUNE)
    batches = len(dataset)
    dataset = dataset.repeat()
    if task.is_float:
        dataset = dataset.map(_finish(task), num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.prefetch(tf.data.AUTOTUNE)
    return Source(_images(dataset), ahead=16, warm=batches if task.cached else 8)


def _as_documented(task: Task) -> Any:
    return keras.utils.image_dataset_from_directory(
        task.directory,
        label_mode="categorical",
        batch_size=None if task.cached else task.batch_size,
        image_size=task.size,
        interpolation=task.interpolation,
    )


def _antialiased(task: Task) -> Any:
    paths, labels = class_files(task.directory)

    def load(path: Any, label: Any) -> Any:
        image = tf.image.decode_jpeg(tf.io.read_file(path), channels=3)
        image = tf.image.resize(image, task.size, task.interpolation, antialias=True)
        return tf.ensure_shape(image, (*task.size, 3)), tf.one_hot(label, max(labels) + 1)

    dataset = tf.data.Dataset.from_tensor_slices((paths, labels)).shuffle(len(paths))
    images = dataset.map(load, num_parallel_calls=tf.data.AUTOTUNE)
    return images if task.cached else images.batch(task.batch_size)


def _as(dtype: str) -> Any:
    return lambda images, labels: (tf.cast(images, dtype), labels)


def _finish(task: Task) -> Any:
    layers = keras.Sequential([*(_augmentation() if task.augment else []), _rescaling()])
    return lambda images, labels: (layers(images, training=True), labels)


def _rescaling() -> Any:
    return keras.layers.Rescaling(1 / 255)


def _augmentation() -> list[Any]:
    shear = math.radians(0.2)  # ImageDataGenerator's is in degrees
    return [
        keras.layers.RandomFlip("horizontal"),
        keras.layers.RandomRotation(20 / 360, fill_mode="nearest"),
        keras.layers.RandomTranslation(0.2, 0.2, fill_mode="nearest"),
        keras.layers.RandomShear(x_factor=shear, fill_mode="nearest"),
        keras.layers.RandomZoom(0.2, 0.2, fill_mode="nearest"),
    ]


def _images(dataset: Any) -> Iterator[Any]:
    for images, _ in dataset:
        yield images


if __name__ == "__main__":
    serve(make)
