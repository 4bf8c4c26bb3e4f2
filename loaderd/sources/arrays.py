"""The source of images in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from loaderd.sources.fetches import Fetches


class ArraySource:
    """Images from the stream's bundle; see :class:`~loaderd.sources.source.Source`.

    Attributes:
        images: (n, height, width, channels).
        labels: int32 (n,).
    """

    fetches: Fetches | None = None

    def __init__(self, images: NDArray[Any], labels: NDArray[np.int32]) -> None:
        self.images = images
        self.labels = labels

    def __len__(self) -> int:
        return len(self.images)

    def read(self, sample: int) -> NDArray[Any]:
        """One image, as a view."""
        image: NDArray[Any] = self.images[sample]
        return image

    def identity(self, sample: int) -> int:
        """0, as images in memory are not cached."""
        return 0

    def name(self, sample: int) -> str:
        """The name of a sample in error texts."""
        return f"image {sample} of the arrays"
