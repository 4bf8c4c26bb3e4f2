"""Albumentations over OpenCV in PyTorch's ``DataLoader``.

As its guide to fast pipelines says: the crop first, bytes until ``Normalize``, which is last, and
OpenCV's own threads off. Workers as for ``torch_opencv``. ``area_for_downscale`` has the crop
shrink by OpenCV's ``INTER_AREA``, its only antialiased way, and grow bilinearly.

It has no RandAugment. The nearest is ``SomeOf``: two of torchvision's fourteen operations, with
repetition, at torchvision's strength, which is the limit of a range here: torchvision draws the
sign alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import albumentations as A
import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from scripts.benchmarks.peers import recipe
from scripts.benchmarks.peers.protocol import Source, Task, class_files, serve

AHEAD = 2  # batches for each worker: the loader's default


class Images(Dataset):  # type: ignore[misc]  # no types without PyTorch
    """One finished image and its label for each index."""

    def __init__(self, task: Task) -> None:
        self._paths, self._labels = class_files(task.directory)
        self._transform = _transform(task)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Any:
        """Loads and transforms."""
        image = cv2.imread(self._paths[index], cv2.IMREAD_COLOR_RGB)
        return self._transform(image=image)["image"], self._labels[index]


def _transform(task: Task) -> Any:
    crop = A.RandomResizedCrop(
        task.size,
        recipe.SCALE,
        recipe.RATIO,
        interpolation=cv2.INTER_LINEAR,
        area_for_downscale="image",
    )
    steps = [crop, A.HorizontalFlip(p=0.5)]
    if task.recipe == "randaugment":
        steps.append(A.SomeOf(_operations(), n=recipe.NUM_OPS, replace=True, p=1))
    return A.Compose([*steps, A.Normalize(recipe.MEAN, recipe.STD)])


def _operations() -> list[Any]:
    """Those of torchvision's RandAugment, in its order."""
    part = recipe.STRENGTH
    slope, shift, factor = math.degrees(math.atan(0.3 * part)), 150 / 331 * part, 0.9 * part
    keep, change = (1.0, 1.0), (1 - factor, 1 + factor)
    return [
        A.NoOp(p=1),
        A.Affine(shear={"x": (-slope, slope), "y": 0}, p=1),
        A.Affine(shear={"x": 0, "y": (-slope, slope)}, p=1),
        A.Affine(translate_percent={"x": (-shift, shift), "y": 0}, p=1),
        A.Affine(translate_percent={"x": 0, "y": (-shift, shift)}, p=1),
        A.Rotate(limit=30 * part, p=1),
        A.ColorJitter(change, keep, keep, (0, 0), p=1),
        A.ColorJitter(keep, keep, change, (0, 0), p=1),
        A.ColorJitter(keep, change, keep, (0, 0), p=1),
        A.Sharpen(alpha=(0, factor), lightness=(1, 1), p=1),
        A.Posterize(num_bits=8 - round(4 * part), p=1),
        A.Solarize(threshold_range=(1 - part, 1 - part), p=1),
        A.AutoContrast(p=1, method="pil"),
        A.Equalize(p=1),
    ]


def make(task: Task) -> Source:
    """The loader, with workers of its own."""
    _one_thread()
    loader = DataLoader(
        Images(task),
        batch_size=task.batch_size,
        shuffle=True,
        num_workers=task.workers,
        prefetch_factor=AHEAD,
        persistent_workers=True,
        worker_init_fn=_one_thread,
    )
    return Source(_images(loader), ahead=AHEAD * task.workers)


def _one_thread(worker: int = 0) -> None:
    del worker
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _images(loader: Any) -> Iterator[Any]:
    while True:
        for images, _ in loader:
            yield images


if __name__ == "__main__":
    serve(make)
