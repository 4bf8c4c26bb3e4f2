"""PyTorch's ``DataLoader`` over a dataset of OpenCV calls.

Tuned as PyTorch's performance guide and the documentation of ``DataLoader`` say: as many
workers as CPUs, kept between epochs, two batches ahead for each; OpenCV's own threads are
off, as OpenCV advises for programs with processes of their own. The warp runs on bytes,
before the conversion. Where the images are to be cached they lie decoded in memory, which
the workers share.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from scripts.benchmarks.peers.protocol import Source, Task, class_files, serve

AHEAD = 2  # batches for each worker: the loader's default


class Images(Dataset):  # type: ignore[misc]  # no types without PyTorch
    """One finished image and its label for each index."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._paths, self._labels = class_files(task.directory)
        self._decoded: Any = None
        if task.cached:
            self._decoded = np.stack([_load(path, task) for path in self._paths])

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Any:
        """Loads, augments and converts."""
        kept = self._decoded is not None
        image = self._decoded[index] if kept else _load(self._paths[index], self._task)
        if self._task.augment:
            image = _augment(image)
        if self._task.is_float:
            image = np.multiply(image, np.float32(1 / 255), dtype=np.float32)
        return image, self._labels[index]


def make(task: Task) -> Source:
    """The images of the loader."""
    return Source(_images(loader(task)), ahead=AHEAD * task.workers)


def loader(task: Task) -> Any:
    """The loader, with workers of its own."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    return DataLoader(
        Images(task),
        batch_size=task.batch_size,
        shuffle=True,
        num_workers=task.workers,
        prefetch_factor=AHEAD,
        persistent_workers=True,
        worker_init_fn=_start_worker,
    )


def _start_worker(_: int) -> None:
    cv2.setNumThreads(0)
    random.seed(torch.initial_seed())


def _load(path: str, task: Task) -> Any:
    image: Any = cv2.imread(path, _detail(task))
    height, width = task.size
    # OpenCV's INTER_LINEAR does not antialias; INTER_AREA is what it advises to shrink with.
    how = cv2.INTER_NEAREST if task.interpolation == "nearest" else cv2.INTER_AREA
    return cv2.cvtColor(cv2.resize(image, (width, height), interpolation=how), cv2.COLOR_BGR2RGB)


def _detail(task: Task) -> int:
    """The coarsest decoding that still shrinks, if the task allows it."""
    if not task.scaled:
        return int(cv2.IMREAD_COLOR)
    return int(cv2.IMREAD_REDUCED_COLOR_8)  # 4000x3000 to 500x375


def _augment(image: Any) -> Any:
    height, width = image.shape[:2]
    angle = math.radians(random.uniform(-20, 20))
    shear = math.radians(random.uniform(-0.2, 0.2))
    across, down = random.uniform(-0.2, 0.2) * width, random.uniform(-0.2, 0.2) * height
    zoom_x, zoom_y = random.uniform(0.8, 1.2), random.uniform(0.8, 1.2)
    sin, cos = math.sin(angle), math.cos(angle)
    turn = np.array([[cos, -sin], [sin, cos]])
    matrix = turn @ np.array([[1, -math.sin(shear)], [0, math.cos(shear)]])
    matrix = matrix @ np.diag([zoom_x, zoom_y])
    center = np.array([width / 2 - 0.5, height / 2 - 0.5])
    offset = center - matrix @ center + matrix @ np.array([across, down])
    warped = cv2.warpAffine(
        image,
        np.column_stack([matrix, offset]),
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return cv2.flip(warped, 1) if random.random() < 0.5 else warped


def _images(loader: Any) -> Iterator[Any]:
    while True:
        for images, _ in loader:
            yield images


if __name__ == "__main__":
    serve(make)
