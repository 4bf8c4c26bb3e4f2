"""Images that are in memory already."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class ArraySource:
    """Images that came with the stream; see :class:`~loaderd.sources.source.Source`.

    Args:
        images: (n, height, width, channels).
        labels: int32 (n,).

    Attributes:
        images: the same.
        labels: the same.
    """

    def __init__(self, images: NDArray[Any], labels: NDArray[np.int32]) -> None:
        self.images = images
        self.labels = labels

    def __len__(self) -> int:
        return len(self.images)

    def read(self, sample: int) -> NDArray[Any]:
        """One image, as it lies in memory."""
        image: NDArray[Any] = self.images[sample]
        return image

    def identity(self, sample: int) -> int:
        """0: what is in memory is not kept once more."""
        return 0

    def name(self, sample: int) -> str:
        """What people read about a sample."""
        return f"image {sample} of the arrays"
