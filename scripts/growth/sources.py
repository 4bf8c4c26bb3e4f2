"""The ways of making a flow: arrays, folders, tables and datasets, with all that they may have."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from loaderd_client import ImageDataGenerator, image_dataset_from_directory

CLASSES = ("cats", "dogs", "fish")
PER_CLASS = 8
SIZE = (32, 32)
BATCH = 8

NEW, LARGE_NEW = "arrays, new ones", "arrays, large new ones"
MULTI_OUTPUT = "table, multi-output"

Array = NDArray[Any]
Make = Callable[[], Any]


def draw_images(folder: Path) -> None:
    """The small images that all flows of files read: to decode them should cost next to nothing.

    Args:
        folder: a new folder; its subfolders are the classes.
    """
    rng = np.random.default_rng(0)
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for number in range(PER_CLASS):
            pixels = rng.integers(0, 256, (*SIZE, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.jpg")


@dataclass
class Inputs:
    """What flows are made of.

    Args:
        images: the folder with the classes.
        scratch: a folder for what flows write.
    """

    images: Path
    scratch: Path
    labels: Array = field(default_factory=lambda: np.arange(24) % 3)

    @cached_property
    def small(self) -> Array:
        """(24, 32, 32, 3), 288 KiB."""
        return np.random.default_rng(1).random((24, *SIZE, 3), np.float32) * 255

    @cached_property
    def large(self) -> Array:
        """(64, 80, 80, 3), 4.7 MiB: more than a client keeps in memory of its own."""
        return np.random.default_rng(2).random((64, 80, 80, 3), np.float32) * 255

    @cached_property
    def whole(self) -> Array:
        """The small ones as whole numbers."""
        return self.small.astype(np.uint8)

    @cached_property
    def table(self) -> Any:
        """A DataFrame of all images."""
        import pandas as pd

        names = sorted(str(path) for path in self.images.glob("*/*.jpg"))
        count = len(names)
        return pd.DataFrame(
            {
                "filename": names,
                "class": [Path(name).parent.name for name in names],
                "angle": np.linspace(0, 1, count),
                "weight": np.linspace(1, 2, count),
            }
        )

    def saved(self) -> str:
        """A folder for images that a flow saves; what was there is removed."""
        folder = self.scratch / "saved"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return str(folder)


def halved(image: Array) -> Array:
    """A function of a module, for ``preprocessing_function``."""
    return image / 2


def _plain() -> ImageDataGenerator:
    return ImageDataGenerator(rescale=1 / 255)


def _augmented() -> ImageDataGenerator:
    return ImageDataGenerator(rotation_range=20, zoom_range=0.2, horizontal_flip=True)


def _split() -> ImageDataGenerator:
    return ImageDataGenerator(validation_split=0.5)


def _featurewise(inputs: Inputs) -> ImageDataGenerator:
    generator = ImageDataGenerator(featurewise_center=True, featurewise_std_normalization=True)
    generator.fit(inputs.small)
    return generator


def _arrays(generator: ImageDataGenerator, x: Array, y: Any = None, **more: Any) -> Any:
    return generator.flow(x, y, batch_size=BATCH, seed=3, **more)


def _folder(generator: ImageDataGenerator, inputs: Inputs, **more: Any) -> Any:
    return generator.flow_from_directory(
        inputs.images, target_size=SIZE, batch_size=BATCH, seed=3, **more
    )


def _table(generator: ImageDataGenerator, inputs: Inputs, **more: Any) -> Any:
    return generator.flow_from_dataframe(
        inputs.table, target_size=SIZE, batch_size=BATCH, seed=3, **more
    )


def _dataset(inputs: Inputs, **more: Any) -> Any:
    return image_dataset_from_directory(
        inputs.images, image_size=SIZE, batch_size=BATCH, seed=3, verbose=False, **more
    )


SOURCES: dict[str, Callable[[Inputs], Any]] = {
    "arrays": lambda i: _arrays(_plain(), i.small),
    "arrays, labels": lambda i: _arrays(_plain(), i.small, i.labels),
    "arrays, labels, weights": lambda i: _arrays(
        _plain(), i.small, i.labels, sample_weight=i.labels + 1.0
    ),
    NEW: lambda i: _arrays(_plain(), i.small + 1, i.labels),
    "arrays, large": lambda i: _arrays(_plain(), i.large),
    LARGE_NEW: lambda i: _arrays(_plain(), i.large + 1),
    "arrays, uint8": lambda i: _arrays(_plain(), i.whole, i.labels),
    "arrays, augmented": lambda i: _arrays(_augmented(), i.small, i.labels),
    "arrays, subset": lambda i: _arrays(_split(), i.small, i.labels, subset="training"),
    "arrays, saved": lambda i: _arrays(_plain(), i.small, save_to_dir=i.saved()),
    "arrays, featurewise": lambda i: _arrays(_featurewise(i), i.small),
    "folder, categorical": lambda i: _folder(_augmented(), i),
    "folder, binary": lambda i: _folder(_plain(), i, class_mode="binary", classes=CLASSES[:2]),
    "folder, sparse": lambda i: _folder(_plain(), i, class_mode="sparse", shuffle=False),
    "folder, input": lambda i: _folder(_plain(), i, class_mode="input"),
    "folder, no labels": lambda i: _folder(_plain(), i, class_mode=None),
    "folder, training": lambda i: _folder(_split(), i, subset="training"),
    "folder, validation": lambda i: _folder(_split(), i, subset="validation"),
    "folder, cache in memory": lambda i: _folder(_augmented(), i, cache="memory"),
    "folder, cache on disk": lambda i: _folder(_augmented(), i, cache="disk"),
    "folder, saved": lambda i: _folder(_plain(), i, save_to_dir=i.saved(), save_format="jpg"),
    "folder, lambda": lambda i: _folder(
        ImageDataGenerator(preprocessing_function=lambda image: image + 1), i
    ),
    "folder, function": lambda i: _folder(ImageDataGenerator(preprocessing_function=halved), i),
    "table, categorical": lambda i: _table(_plain(), i),
    "table, raw": lambda i: _table(_plain(), i, class_mode="raw", y_col="angle"),
    "table, weights": lambda i: _table(_plain(), i, class_mode="sparse", weight_col="weight"),
    MULTI_OUTPUT: lambda i: _table(
        _augmented(), i, class_mode="multi_output", y_col=["angle", "weight"]
    ),
    "dataset, int": lambda i: _dataset(i),
    "dataset, no labels": lambda i: _dataset(i, label_mode=None, shuffle=False),
    "dataset, validation": lambda i: _dataset(i, validation_split=0.5, subset="validation"),
    "dataset, cache in memory": lambda i: _dataset(i, label_mode="categorical", cache="memory"),
}
"""By name; each makes a flow whose batches begin with images of three channels."""
