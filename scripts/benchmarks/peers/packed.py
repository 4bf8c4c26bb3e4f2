"""Loaders of packed images: WebDataset, Hugging Face's datasets, and LitData, with OpenCV.

All have as many workers as CPUs, kept between epochs, in PyTorch's ``DataLoader`` or their own
class of it, and the same function that makes an image: so what differs is how its bytes come.

- WebDataset reads the tars of samples, whose shards and samples it shuffles in a buffer of 1000.
- datasets reads its own Arrow files by random access, undecoded (``Image(decode=False)``), as its
  own decoder, Pillow, is slower than OpenCV.
- LitData converts the images once (``optimize``), and shuffles within its chunks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from scripts.benchmarks.peers.protocol import Source, Task, class_files, serve

AHEAD = 2  # batches for each worker: the loader's default
BUFFER = 1000


class Picture:
    """Makes an image of the bytes of a sample; a class, as workers may be started anew.

    Args:
        key: of the bytes in a sample.
        size: height and width of the image.
    """

    def __init__(self, key: str, size: tuple[int, int]) -> None:
        self._key = key
        self._size = size

    def __call__(self, sample: Any) -> Any:
        """One finished image."""
        data = sample[self._key]
        data = data["bytes"] if isinstance(data, dict) else data
        image: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        height, width = self._size
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_NEAREST)
        return cv2.cvtColor(small, cv2.COLOR_BGR2RGB)


class Undecoded:
    """A dataset of Hugging Face as one of PyTorch.

    Args:
        dataset: the dataset.
        picture: makes its images.
    """

    def __init__(self, dataset: Any, picture: Picture) -> None:
        self._dataset = dataset
        self._picture = picture

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Any:
        """One image."""
        return self._picture(self._dataset[index])


def make(task: Task) -> Source:
    """The images of the loader that the variant names."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    makers = {"webdataset": webdataset, "huggingface": huggingface, "litdata": litdata}
    return Source(_images(makers[task.variant](task)), ahead=AHEAD * task.workers)


def _options(task: Task) -> dict[str, Any]:
    return {
        "batch_size": task.batch_size,
        "num_workers": task.workers,
        "prefetch_factor": AHEAD,
        "persistent_workers": True,
    }


def webdataset(task: Task) -> Any:
    """The tars of samples."""
    import webdataset as wds

    tars = sorted(
        os.path.join(task.scratch, name)
        for name in os.listdir(task.scratch)
        if name.startswith("shard-") and name.endswith(".tar")
    )
    stream = wds.WebDataset(tars, shardshuffle=len(tars), empty_check=False)
    stream = stream.shuffle(BUFFER).map(Picture("jpg", task.size))
    return DataLoader(stream, **_options(task))


def huggingface(task: Task) -> Any:
    """The Arrow files of a saved dataset."""
    import datasets

    saved = datasets.load_from_disk(os.path.join(task.scratch, "arrow"))
    saved = saved.cast_column("image", datasets.Image(decode=False))
    images = Undecoded(saved, Picture("image", task.size))
    return DataLoader(images, shuffle=True, **_options(task))


class Bytes:
    """Reads a file for LitData's conversion; a class, as it is sent to other processes."""

    def __call__(self, path: str) -> dict[str, bytes]:
        """A sample."""
        with open(path, "rb") as file:
            return {"image": file.read()}


def litdata(task: Task) -> Any:
    """Chunks that it has made of the files."""
    import litdata as ld

    chunks = os.path.join(task.scratch, "litdata")
    paths = class_files(task.directory)[0]
    ld.optimize(
        fn=Bytes(), inputs=paths, output_dir=chunks, chunk_bytes="64MB", num_workers=task.workers
    )
    picture = Picture("image", task.size)
    stream = ld.StreamingDataset(chunks, shuffle=True, transform=picture)
    return ld.StreamingDataLoader(stream, **_options(task))


def _images(loader: Any) -> Iterator[Any]:
    while True:
        yield from loader


if __name__ == "__main__":
    serve(make)
