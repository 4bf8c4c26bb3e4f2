"""NVIDIA DALI on the CPU.

Operators and their order as in DALI's guides "Data loading" and "Augmentations": one
combined affine matrix, and ``crop_mirror_normalize`` for flip, scale and conversion at once.
DALI resizes with antialiasing by itself. It keeps no decoded images on a CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali.pipeline import Pipeline

from scripts.benchmarks.peers.protocol import Source, Task, serve

AHEAD = 2  # DALI's default depth


def make(task: Task) -> Source:
    """The built pipeline."""
    pipeline = Pipeline(
        batch_size=task.batch_size,
        num_threads=task.workers,
        device_id=None,
        prefetch_queue_depth=AHEAD,
        seed=0,
    )
    with pipeline:
        files, labels = fn.readers.file(file_root=task.directory, random_shuffle=True)
        images = fn.decoders.image(files, device="cpu", output_type=types.RGB)
        pipeline.set_outputs(_finish(task, _resize(task, images)), labels)
    pipeline.build()
    return Source(batches(pipeline), ahead=AHEAD + 1)


def _resize(task: Task, images: Any) -> Any:
    nearest = task.interpolation == "nearest"
    how = types.INTERP_NN if nearest else types.INTERP_LINEAR
    return fn.resize(images, size=list(task.size), interp_type=how, antialias=not nearest)


def _finish(task: Task, images: Any) -> Any:
    if task.augment:
        images = fn.warp_affine(images, _matrix(task), fill_value=None)
    return fn.crop_mirror_normalize(
        images,
        mirror=fn.random.coin_flip() if task.augment else 0,
        std=[255.0] * 3,
        dtype=types.FLOAT,
        output_layout="HWC",
    )


def _matrix(task: Task) -> Any:
    height, width = task.size
    center = [width / 2, height / 2]
    shift = fn.random.uniform(range=[-0.2, 0.2], shape=[2]) * np.array(
        [width, height], dtype=np.float32
    )
    parts = fn.transforms.rotation(angle=fn.random.uniform(range=[-20.0, 20.0]), center=center)
    parts = fn.transforms.shear(
        parts, angles=fn.random.uniform(range=[-0.2, 0.2], shape=[2]), center=center
    )
    parts = fn.transforms.scale(
        parts, scale=fn.random.uniform(range=[0.8, 1.2], shape=[2]), center=center
    )
    return fn.transforms.translation(parts, offset=shift)


def batches(pipeline: Any) -> Iterator[Any]:
    """The images of a built pipeline, batch after batch."""
    while True:
        images, _ = pipeline.run()
        yield np.asarray(images.as_tensor())  # a view


if __name__ == "__main__":
    serve(make)
