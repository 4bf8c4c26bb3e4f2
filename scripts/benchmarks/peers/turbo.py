"""TurboLoader, from a tar of the JPEGs, or from a file of its own with decoded images.

As its README says: ``DataLoader`` with ``image_size`` and ``output_format="pytorch"`` for a tar;
where epochs after the first are measured, ``preprocess_to_tbl`` once and the ``.tbl`` file, with
the images' channels last, as ours are. Its augmentation here is ``train_aug``, a random crop
and a flip, so it does less than what it is compared with. Values are from 0 to 1.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from typing import Any

import turboloader

from scripts.benchmarks.peers.protocol import Source, Task, class_files, serve

AHEAD = 4  # batches: the loader's default


def make(task: Task) -> Source:
    """Writes the tar, and the file of decoded images if it is asked for."""
    if not task.is_float:
        raise ValueError("it gives float32 and float16 only")
    tar = os.path.join(task.scratch, "images.tar")
    paths = class_files(task.directory)[0]
    with tarfile.open(tar, "w") as archive:
        for number, path in enumerate(paths):
            archive.add(os.path.realpath(path), f"{number:07}.jpg")
    options: dict[str, Any] = {
        "batch_size": task.batch_size,
        "image_size": task.size,
        "output_format": "pytorch",
        "shuffle": True,
        "drop_last": True,
        "num_workers": task.workers,
        "train_aug": task.augment,
        "prefetch_batches": AHEAD,
    }
    if not task.cached:
        return Source(_batches(turboloader.DataLoader(tar, **options), planar=True), AHEAD + 1)
    decoded = os.path.join(task.scratch, f"{task.size[0]}x{task.size[1]}.tbl")
    turboloader.preprocess_to_tbl(tar, decoded, image_size=task.size, num_workers=task.workers)
    loader = turboloader.DataLoader(decoded, channels_last=True, **options)
    warm = len(paths) // task.batch_size
    return Source(_batches(loader, planar=False), AHEAD + 1, warm=warm)


def _batches(loader: Any, *, planar: bool) -> Iterator[Any]:
    epoch = 0
    while True:
        loader.set_epoch(epoch)
        for images, _ in loader:
            yield images.transpose(0, 2, 3, 1) if planar else images
        epoch += 1


if __name__ == "__main__":
    serve(make)
