"""What the trainers of a storm read; the reference reads the same."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from types import ModuleType, SimpleNamespace
from typing import Any

SIZE = (64, 64)
BATCH = 16
WHICH = ("augmented", "validated")
"""Two trainers: one with every random change; one that evaluates after each epoch."""


def of(which: str, data: str) -> tuple[Any, Any]:
    """The flows of a trainer: what it trains on, and what it validates with, or None."""
    from loaderd_client import ImageDataGenerator

    if which == "augmented":
        changed = ImageDataGenerator(
            rescale=1 / 255,
            rotation_range=20,
            width_shift_range=0.2,
            height_shift_range=0.2,
            shear_range=0.2,
            zoom_range=0.2,
            horizontal_flip=True,
        )
        return _flow(changed, data, seed=11), None
    split = ImageDataGenerator(rescale=1 / 255, horizontal_flip=True, validation_split=0.3)
    return (
        _flow(split, data, subset="training", seed=12),
        _flow(split, data, subset="validation", seed=13, shuffle=False),
    )


def _flow(generator: Any, data: str, **more: Any) -> Any:
    return generator.flow_from_directory(data, target_size=SIZE, batch_size=BATCH, **more)


class _Sequence:
    """A base for sequences that Keras is not needed for."""


def without_keras() -> None:
    """Put a stub in Keras's place: sequences work with it, and its import takes many seconds."""
    stand_in = ModuleType("keras")
    made: Mapping[str, Any] = {
        "utils": SimpleNamespace(Sequence=_Sequence, PyDataset=_Sequence),
        "backend": SimpleNamespace(
            floatx=lambda: "float32", image_data_format=lambda: "channels_last"
        ),
    }
    vars(stand_in).update(made)
    sys.modules["keras"] = stand_in
    os.environ.pop("TF_USE_LEGACY_KERAS", None)
