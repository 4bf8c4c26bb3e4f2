"""FFCV, from a file of its own with the decoded pixels.

As in FFCV's guides "Writing a dataset" and "Making dataloaders": mode ``raw``, one size for
all, random order, the file in the page cache. Its augmentation here is a flip and a
translation only, so it does less than what it is compared with; ``NormalizeImage`` divides
and converts through a table.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from ffcv.fields import IntField, RGBImageField
from ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.transforms import NormalizeImage, RandomHorizontalFlip, RandomTranslate, ToTensor
from ffcv.writer import DatasetWriter

from scripts.benchmarks.peers.protocol import Source, Task, class_files, serve

AHEAD = 3  # FFCV's default


def make(task: Task) -> Source:
    """Writes the file, and opens it; the first epoch compiles the pipeline."""
    path = os.path.join(task.scratch, f"{task.size[0]}x{task.size[1]}.beton")
    fields = {"image": RGBImageField(write_mode="raw"), "label": IntField()}
    images = Decoded(task)
    DatasetWriter(path, fields, num_workers=task.workers).from_indexed_dataset(images)
    loader = Loader(
        path,
        batch_size=task.batch_size,
        num_workers=task.workers,
        order=OrderOption.RANDOM,
        os_cache=True,
        batches_ahead=AHEAD,
        pipelines={"image": _pipeline(task), "label": [IntDecoder(), ToTensor()]},
    )
    return Source(_images(loader), ahead=AHEAD + 1, warm=len(loader))


class Decoded:
    """The images in their final size, as FFCV's writer takes them."""

    def __init__(self, task: Task) -> None:
        self._size = task.size
        self._paths, self._labels = class_files(task.directory)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Any:
        """The pixels, and the label."""
        height, width = self._size
        image: Any = cv2.imread(self._paths[index], cv2.IMREAD_COLOR)
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_NEAREST)
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB), self._labels[index]


def _pipeline(task: Task) -> list[Any]:
    steps: list[Any] = [SimpleRGBImageDecoder()]
    if task.augment:
        steps += [RandomHorizontalFlip(), RandomTranslate(padding=int(0.2 * task.size[0]))]
    if task.is_float:
        steps.append(NormalizeImage(np.zeros(3), np.full(3, 255.0), np.float32))
    return [*steps, ToTensor()]


def _images(loader: Any) -> Iterator[Any]:
    while True:
        for images, _ in loader:
            yield images


if __name__ == "__main__":
    serve(make)
