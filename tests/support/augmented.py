"""Lists of augmenting operations, and specs with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from loaderd.augment.operation import ImageOperation
from loaderd.spec.spec import Spec
from loaderd_client import augment as A
from loaderd_client.keras.augment_list import augmented
from tests.support import listed_functions
from tests.support.specs import with_load
from tests.support.streams import a_spec

SIZE = (40, 50)

SIZED: dict[str, ImageOperation] = {
    "Resize": A.Resize(*SIZE),
    "CenterCrop": A.CenterCrop(*SIZE),
    "RandomCrop": A.RandomCrop(*SIZE),
    "RandomResizedCrop": A.RandomResizedCrop(*SIZE),
}
GROUPS: dict[str, Any] = {
    "RandomApply": A.RandomApply([A.RandomFlip()]),
    "RandomChoice": A.RandomChoice([A.RandomFlip("vertical"), A.RandomFlip("horizontal")]),
    "RandomMix": A.RandomMix([A.MixUp(), A.CutMix()]),
    "Function": A.Function(listed_functions.add_noise),
    "Rescaling": A.Rescaling(1 / 255),
    "GaussianNoise": A.GaussianNoise(10.0),
    "JPEG": A.JPEG((20, 90)),
    "RandomBrightness": A.RandomBrightness(0.4),
    "RandomColorDegeneration": A.RandomColorDegeneration(0.8),
    "RandomColorJitter": A.RandomColorJitter(0.3, 0.3, 0.3, 0.2),
    "RandomContrast": A.RandomContrast(0.4),
    "RandomHue": A.RandomHue(0.3),
    "RandomPosterization": A.RandomPosterization(3),
    "RandomRotation": A.RandomRotation(0.1),
    "RandomSaturation": A.RandomSaturation((0.2, 0.9)),
    "RandomSharpness": A.RandomSharpness(0.8),
    "RandomShear": A.RandomShear(0.3, 0.2),
    "RandomTranslation": A.RandomTranslation(0.2, 0.2),
    "RandomZoom": A.RandomZoom(0.3),
    "Solarization": A.Solarization(0.3, 0.7),
}
"""The operations that have arguments without a default."""


def every_operation() -> dict[str, Any]:
    """One of each public operation, by its name."""
    known = SIZED | GROUPS
    return {
        name: known[name] if name in known else getattr(A, name)()
        for name in A.__all__
        if name != "RepeatedAugmentation"  # which is no operation on images
    }


def every_list() -> dict[str, list[Any]]:
    """Each public operation alone, and all that fit one list in a row."""
    one = every_operation()
    keep = [op for op in one.values() if isinstance(op, ImageOperation) and not op.sets_size]
    rest = [op for op in one.values() if not isinstance(op, ImageOperation)]
    alone = {name: [op] for name, op in one.items()}
    return alone | {"all": [A.RandomResizedCrop(*SIZE), *keep, *rest]}


def augmenting(photos: Path, operations: list[Any], batch_size: int = 8) -> Spec:
    """A spec with a list of operations."""
    plain = with_load(
        a_spec(photos, batch_size=batch_size), target_size=SIZE, interpolation="bilinear"
    )
    parts = augmented(operations, plain.load, plain.output, plain.batch)
    assert not parts.packed.parts, "functions with state need a bundle"
    return msgspec.structs.replace(
        plain,
        order=msgspec.structs.replace(plain.order, repeats=parts.repeats),
        load=parts.load,
        output=parts.output,
        batch=parts.batch,
        transforms=(),
        augment=parts.operations,
        code=parts.packed.code,
    )
