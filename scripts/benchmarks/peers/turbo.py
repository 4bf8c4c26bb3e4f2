"""TurboLoader, from a tar of the JPEGs, or from a file of its own with decoded images.

As its README says: ``DataLoader`` with ``image_size`` and ``output_format="pytorch"`` for a tar;
where epochs after the first are measured, ``preprocess_to_tbl`` once and the ``.tbl`` file, with
the images' channels last, as ours are. Values are from 0 to 1.

From a tar it always decodes scaled: at the least M/8 of a picture's size that still covers the
target (its pixels are those of ``decode_jpeg_scaled``, resized, with ``antialias`` and without).

Its augmentation is ``train_aug``, a random crop and a flip, so it does less than what it is
compared with; from a tar it decodes the rows and columns of the crop only. The variant
``transforms`` decodes the picture and applies its own ``RandomAffine`` and
``RandomHorizontalFlip``, with the ranges of the task; pixels outside are black.

For the recipe ``crop``, which is what ``train_aug`` is made for, it has ``ImageNetNormalize`` and
``antialias``.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import turboloader

from scripts.benchmarks.peers.protocol import Source, Task, class_files, serve

AHEAD = 4  # batches: the loader's default


def make(task: Task) -> Source:
    """Writes the tar, and the file of decoded images if it is asked for."""
    if not task.is_float:
        raise ValueError("it gives float32 and float16 only")
    tar = os.path.join(task.scratch, "images.tar")
    paths = class_files(task.directory)[0]
    # A second name of a file would be a link, which TurboLoader takes for a black picture.
    with tarfile.open(tar, "w", dereference=True) as archive:
        for number, path in enumerate(paths):
            archive.add(os.path.realpath(path), f"{number:07}.jpg")
    options: dict[str, Any] = {
        "batch_size": task.batch_size,
        "image_size": task.size,
        "shuffle": True,
        "drop_last": True,
        "num_workers": task.workers,
        "prefetch_batches": AHEAD,
    }
    if task.variant == "transforms":
        options |= {"output_format": "numpy", "transform": _transforms()}
        return Source(map(_floats, _batches(turboloader.DataLoader(tar, **options))), AHEAD + 1)
    options |= {"output_format": "pytorch", "train_aug": task.augment or bool(task.recipe)}
    if task.recipe:
        options |= {"transform": turboloader.ImageNetNormalize(), "antialias": True}
    if not task.cached:
        batches = _batches(turboloader.DataLoader(tar, **options))
        return Source((batch.transpose(0, 2, 3, 1) for batch in batches), AHEAD + 1)
    decoded = os.path.join(task.scratch, f"{task.size[0]}x{task.size[1]}.tbl")
    turboloader.preprocess_to_tbl(tar, decoded, image_size=task.size, num_workers=task.workers)
    loader = turboloader.DataLoader(decoded, channels_last=True, **options)
    warm = len(paths) // task.batch_size
    return Source(_batches(loader), AHEAD + 1, warm=warm)


def _transforms() -> Any:
    affine = turboloader.RandomAffine(
        degrees=20.0, translate_x=0.2, translate_y=0.2, scale_min=0.8, scale_max=1.2, shear=0.2
    )
    return turboloader.RandomHorizontalFlip(0.5) | affine


def _floats(images: Any) -> Any:
    return np.multiply(images, np.float32(1 / 255), dtype=np.float32)


def _batches(loader: Any) -> Iterator[Any]:
    epoch = 0
    while True:
        loader.set_epoch(epoch)
        for images, _ in loader:
            yield images
        epoch += 1


if __name__ == "__main__":
    serve(make)
