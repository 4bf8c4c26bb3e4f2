"""``precision="fast"`` reaches the workers, and a word that there is not is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from loaderd_client import ImageDataGenerator


def test_fast_batches_are_close_to_the_exact_ones_and_others(photos: Path) -> None:
    flow: dict[str, Any] = {"target_size": (40, 50), "batch_size": 8, "seed": 3}
    exact, fast = (
        ImageDataGenerator(rotation_range=20, precision=precision).flow_from_directory(
            photos, **flow
        )
        for precision in ("exact", "fast")
    )
    one, other = next(exact)[0], next(fast)[0]
    assert (one != other).mean() > 0.1
    np.testing.assert_allclose(one, other, rtol=0, atol=0.01)


def test_there_are_two_precisions() -> None:
    with pytest.raises(ValueError, match="precision"):
        ImageDataGenerator(precision=cast(Any, "quick"))
