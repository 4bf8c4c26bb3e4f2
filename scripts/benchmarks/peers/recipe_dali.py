"""NVIDIA DALI on the CPU, with its random crop and its RandAugment.

Operators and their order as in DALI's EfficientNet example and its guide "Automatic
augmentations": ``decoders.image_random_crop``, which decodes the rows of the part alone,
``resize`` (antialiased), ``flip`` before ``rand_augment`` (else ``crop_mirror_normalize`` flips
too), ``crop_mirror_normalize``.
"""

from __future__ import annotations

from typing import Any

from nvidia.dali import fn, types
from nvidia.dali.auto_aug.rand_augment import rand_augment
from nvidia.dali.pipeline import pipeline_def

from scripts.benchmarks.peers import recipe
from scripts.benchmarks.peers.dali import AHEAD, batches
from scripts.benchmarks.peers.protocol import Source, Task, serve


def make(task: Task) -> Source:
    """The built pipeline."""
    built = pipeline_def(_graph, enable_conditionals=True)(
        task,
        batch_size=task.batch_size,
        num_threads=task.workers,
        device_id=None,
        prefetch_queue_depth=AHEAD,
        seed=0,
    )
    built.build()
    return Source(batches(built), ahead=AHEAD + 1)


def _graph(task: Task) -> Any:
    files, labels = fn.readers.file(file_root=task.directory, random_shuffle=True)
    images = fn.decoders.image_random_crop(
        files,
        device="cpu",
        output_type=types.RGB,
        random_area=recipe.SCALE,
        random_aspect_ratio=recipe.RATIO,
    )
    images = fn.resize(
        images, size=list(task.size), interp_type=types.INTERP_LINEAR, antialias=True
    )
    mirror = fn.random.coin_flip()
    if task.recipe == "randaugment":
        images, mirror = fn.flip(images, horizontal=mirror), 0
        images = rand_augment(
            images,
            n=recipe.NUM_OPS,
            m=recipe.MAGNITUDE,
            num_magnitude_bins=recipe.BINS,
            shape=task.size,
        )
    images = fn.crop_mirror_normalize(
        images,
        mirror=mirror,
        mean=recipe.in_bytes(recipe.MEAN),
        std=recipe.in_bytes(recipe.STD),
        dtype=types.FLOAT,
        output_layout="HWC",
    )
    return images, labels


if __name__ == "__main__":
    serve(make)
