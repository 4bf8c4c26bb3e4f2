"""tf.data with TensorFlow's random crop and Keras's augmentation layers.

Keras has no RandomResizedCrop, so the crop is that of TensorFlow's ImageNet example: the part by
``sample_distorted_bounding_box``, which ``decode_and_crop_jpeg`` alone decodes, then
``tf.image.resize``. Keras's layers follow for whole batches, as in the guide "Data augmentation":
``RandAugment`` draws one list of operations for a batch, and computes all eleven of its
operations for it. ``AUTOTUNE`` everywhere, ``prefetch(AUTOTUNE)`` last.

As in the example the resize does not antialias, which is faster; the variant ``antialias`` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from scripts.benchmarks.peers import recipe
from scripts.benchmarks.peers.protocol import Source, Task, class_files, serve

ATTEMPTS = 10  # torchvision's, too


def make(task: Task) -> Source:
    """The whole pipeline."""
    paths, labels = class_files(task.directory)
    dataset = tf.data.Dataset.from_tensor_slices((paths, labels)).shuffle(len(paths)).repeat()
    dataset = dataset.map(_load(task), num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.batch(task.batch_size, num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.map(_finish(task), num_parallel_calls=tf.data.AUTOTUNE)
    # With RandAugment batches are so slow that few are made ahead.
    ahead = 4 if task.recipe == "randaugment" else 16
    return Source(_images(dataset.prefetch(tf.data.AUTOTUNE)), ahead=ahead, warm=ahead)


def _load(task: Task) -> Callable[[Any, Any], Any]:
    def load(path: Any, label: Any) -> Any:
        data = tf.io.read_file(path)
        image = tf.image.decode_and_crop_jpeg(data, _window(data), channels=3)
        image = tf.image.resize(image, task.size, antialias=task.variant == "antialias")
        return tf.ensure_shape(image, (*task.size, 3)), label

    return load


def _window(data: Any) -> Any:
    """A random part of a JPEG: top, left, height, width."""
    begin, size, _ = tf.image.sample_distorted_bounding_box(
        tf.image.extract_jpeg_shape(data),
        bounding_boxes=tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
        min_object_covered=0.0,
        aspect_ratio_range=recipe.RATIO,
        area_range=recipe.SCALE,
        max_attempts=ATTEMPTS,
        use_image_if_no_bounding_boxes=True,
    )
    return tf.concat([begin[:2], size[:2]], axis=0)


def _finish(task: Task) -> Callable[[Any, Any], Any]:
    layers = keras.Sequential(_layers(task))
    return lambda images, labels: (layers(images, training=True), labels)


def _layers(task: Task) -> list[Any]:
    layers: list[Any] = [keras.layers.RandomFlip("horizontal")]
    if task.recipe == "randaugment":
        layers.append(keras.layers.RandAugment(num_ops=recipe.NUM_OPS, factor=recipe.STRENGTH))
    variance = [one**2 for one in recipe.in_bytes(recipe.STD)]
    mean = recipe.in_bytes(recipe.MEAN)
    return [*layers, keras.layers.Normalization(mean=mean, variance=variance)]


def _images(dataset: Any) -> Iterator[Any]:
    for images, _ in dataset:
        yield images


if __name__ == "__main__":
    serve(make)
