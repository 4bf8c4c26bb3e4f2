"""The attributes of a sequence that describe its samples: count, files, classes."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from loaderd.ipc.text import printable
from loaderd.spec.spec import Spec
from loaderd_client.core.supply import Supply

_INSTEAD = {
    "map": "use the argument `augment`, or layers of the model",
    "prefetch": "it makes `max_queue_size` batches ahead by itself",
    "cache": 'use the argument `cache="memory"` or `cache="disk"`',
    "batch": "use the argument `batch_size`",
    "take": "use `itertools.islice(sequence, count)`",
}
"""What to use in place of a method of ``tf.data.Dataset``."""


class Samples:
    """The samples of a spec, from the manifest of its supply.

    Attributes:
        n: samples in an epoch (also ``samples``).
        samples: the same as ``n``.
        batch_size: samples in a batch.
        seed: decides order and augmentation, whether it was given or picked.
        shuffle: whether every epoch has a new order.
        target_size: (height, width) in pixels.
        color_mode: ``rgb``, ``rgba`` or ``grayscale``.
        dtype: dtype of the images.
        interpolation: filter that images are resized with.
        class_names: names of the classes in label order; None without labels.
        class_indices: class name → class number.
        num_classes: number of classes.
        directory: the folder that was listed.
        spec: everything that decides the bytes, and the ``cache``, as one frozen value.
    """

    spec: Spec
    _supply: Supply

    if not TYPE_CHECKING:  # which would take it for any attribute

        def __getattr__(self, name: str) -> Any:
            if name in _INSTEAD:
                raise AttributeError(
                    f"{type(self).__name__!r} object has no attribute {name!r}: {_INSTEAD[name]}"
                )
            return super().__getattribute__(name)  # raises what led here

    def _describe(self) -> None:
        """Sets the attributes from the spec and the manifest."""
        manifest, load = self._supply.manifest, self.spec.load
        self.n = self.samples = len(manifest)
        self.batch_size = self.spec.batch.batch_size
        self.seed: Any = self._supply.spec.order.seed
        self.shuffle = self.spec.order.shuffle
        self.directory: Any = manifest.root
        self.class_names: Any = list(manifest.class_names) or None
        self.class_indices = {name: index for index, name in enumerate(manifest.class_names)}
        self.num_classes = len(manifest.class_names)
        self.target_size = load.target_size
        self.color_mode = load.color_mode
        self.dtype: Any = self.spec.output.dtype
        self.interpolation = load.interpolation

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape of one image, in its data format."""
        return self.spec.image_shape

    @property
    def classes(self) -> NDArray[np.int32]:
        """The class of every sample, int32 (n,)."""
        return self._supply.manifest.labels

    @property
    def labels(self) -> Any:
        """The same as ``classes``."""
        return self.classes

    @cached_property
    def filenames(self) -> list[str]:
        """Every sample's path below ``directory``, in the order of ``classes``."""
        return self._supply.manifest.filenames()

    @cached_property
    def filepaths(self) -> list[str]:
        """Every sample's path, in the order of ``classes``."""
        return [os.path.join(self.directory, name) for name in self.filenames]

    @property
    def file_paths(self) -> list[str]:
        """``filepaths`` under the name that ``image_dataset_from_directory`` gives it."""
        return self.filepaths

    def __len__(self) -> int:
        return self._supply.batches

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.n} images in {len(self)} batches{self._origin()}>"

    def _origin(self) -> str:
        """The end of ``repr``: classes and directory."""
        classes = f", {self.num_classes} classes" if self.num_classes else ""
        return f"{classes}, of {printable(os.fsdecode(self.directory))}"
