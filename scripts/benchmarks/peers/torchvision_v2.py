"""torchvision's transforms v2 in PyTorch's ``DataLoader``.

As in torchvision's training reference (``references/classification/presets.py``), and as
"Performance considerations" of its documentation recommends: bytes until ``ToDtype``, and an
antialiased bilinear resize. Workers as for ``torch_opencv``.

Variants: ``tensors`` decodes with ``torchvision.io.decode_jpeg`` and transforms tensors;
``pil-decoder`` does so with tensors that PIL decodes; ``pil`` transforms PIL images, which become
tensors after the last operation on bytes. Batches are channels first, and are looked at with
channels last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import io
from torchvision.transforms import v2

from scripts.benchmarks.peers import recipe
from scripts.benchmarks.peers.protocol import Source, Task, class_files, serve

AHEAD = 2  # batches for each worker: the loader's default


class Images(Dataset):  # type: ignore[misc]  # no types without PyTorch
    """One finished image and its label for each index."""

    def __init__(self, task: Task) -> None:
        self._paths, self._labels = class_files(task.directory)
        self._load = LOADERS[task.variant]
        self._transform = _transform(task)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Any:
        """Loads and transforms."""
        return self._transform(self._load(self._paths[index])), self._labels[index]


def _tensor(path: str) -> Any:
    return io.decode_jpeg(io.read_file(path), mode=io.ImageReadMode.RGB)


def _picture(path: str) -> Any:
    with open(path, "rb") as file:
        return Image.open(file).convert("RGB")


def _tensor_by_pil(path: str) -> Any:
    return v2.functional.pil_to_tensor(_picture(path))


LOADERS: dict[str, Callable[[str], Any]] = {
    "tensors": _tensor,
    "pil-decoder": _tensor_by_pil,
    "pil": _picture,
}


def _transform(task: Task) -> Any:
    crop = v2.RandomResizedCrop(
        task.size,
        recipe.SCALE,
        recipe.RATIO,
        interpolation=v2.InterpolationMode.BILINEAR,
        antialias=True,
    )
    steps = [crop, v2.RandomHorizontalFlip()]
    if task.recipe == "randaugment":
        steps.append(v2.RandAugment(recipe.NUM_OPS, recipe.MAGNITUDE, recipe.BINS))
    if task.variant == "pil":
        steps.append(v2.PILToTensor())
    steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(recipe.MEAN, recipe.STD)]
    return v2.Compose(steps)


def make(task: Task) -> Source:
    """The loader, with workers of its own."""
    torch.set_num_threads(1)
    loader = DataLoader(
        Images(task),
        batch_size=task.batch_size,
        shuffle=True,
        num_workers=task.workers,
        prefetch_factor=AHEAD,
        persistent_workers=True,
    )
    return Source(_images(loader), ahead=AHEAD * task.workers)


def _images(loader: Any) -> Iterator[Any]:
    while True:
        for images, _ in loader:
            yield images.permute(0, 2, 3, 1)


if __name__ == "__main__":
    serve(make)
