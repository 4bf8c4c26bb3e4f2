"""Small photos, the same for the same number."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


def write_photo(path: Path, number: int, size: tuple[int, int] = (60, 80)) -> None:
    """A small JPEG: a gradient of its own colours, with some grain."""
    rng = np.random.default_rng(number)
    corners = rng.integers(0, 256, (2, 2, 3)).astype(np.float32)
    photo = cv2.resize(corners, size[::-1]) + rng.normal(0, 8, (*size, 3))
    assert cv2.imwrite(str(path), np.clip(photo, 0, 255).astype(np.uint8))
