"""PyTorch's ``DataLoader`` with torchvision's transforms v2, as in ``torchvision_v2``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from scripts.benchmarks.peers import torchvision_v2
from scripts.benchmarks.peers.protocol import Source, Task, serve_loop


def prepare(task: Task) -> None:
    """Nothing: the library is loaded."""
    del task
    torch.set_num_threads(1)


def make(task: Task) -> Source:
    """The loop over the epochs."""
    loader = DataLoader(
        torchvision_v2.Images(task),
        batch_size=task.batch_size,
        shuffle=True,
        num_workers=task.workers,
        prefetch_factor=torchvision_v2.AHEAD,
        persistent_workers=True,
    )
    return Source(_images(loader), ahead=torchvision_v2.AHEAD * task.workers)


def _images(loader: Any) -> Iterator[Any]:
    while True:
        for images, _ in loader:
            yield images.permute(0, 2, 3, 1)  # a view, in the shape of the others


if __name__ == "__main__":
    serve_loop(prepare, make)
