"""The operations that ``scripts/bench augment`` measures, as loaderd and Albumentations name them.

Ranges are as equal as both allow, and both always apply what they draw, but for flips. Nothing but
the standard library is imported here: each side runs in an environment of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

SIZE = (224, 224)
LINEAR, AREA = 1, 3
"""OpenCV's interpolations; ``INTER_AREA`` is its only antialiased one."""
CONSTANT, REFLECT = 0, 2
"""OpenCV's borders."""


@dataclass(frozen=True)
class Call:
    """A class of a library, with its arguments."""

    name: str
    arguments: dict[str, Any]

    def __str__(self) -> str:
        """As in a program."""
        shown = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        return f"{self.name}({shown})"

    def made_from(self, library: Any) -> Any:
        """An instance."""
        return getattr(library, self.name)(**self.arguments)


class Pair(NamedTuple):
    """One operation.

    Attributes:
        ours: of ``loaderd_client.augment``.
        theirs: of ``albumentations``; None where it has none.
    """

    ours: Call
    theirs: Call | None = None


def _call(name: str, **arguments: Any) -> Call:
    return Call(name, arguments)


def _always(name: str, **arguments: Any) -> Call:
    return Call(name, {**arguments, "p": 1})


def _jitter(**ranges: tuple[float, float]) -> Call:
    """A ColorJitter that changes what is named alone."""
    kept = {"brightness": (1, 1), "contrast": (1, 1), "saturation": (1, 1), "hue": (0, 0)}
    return Call("ColorJitter", {**kept, **ranges, "p": 1})


_TARGET = {"height": SIZE[0], "width": SIZE[1]}
_SHRINK = {"interpolation": LINEAR, "area_for_downscale": "image"}
_SURE = (1.0, 1.0)

_CROPS = (
    Pair(_call("Resize", **_TARGET), _always("Resize", **_TARGET, **_SHRINK)),
    Pair(_call("CenterCrop", **_TARGET), _always("CenterCrop", **_TARGET)),
    Pair(_call("RandomCrop", **_TARGET), _always("RandomCrop", **_TARGET)),
    Pair(_call("RandomResizedCrop", **_TARGET), _always("RandomResizedCrop", size=SIZE, **_SHRINK)),
)
_GEOMETRY = (
    Pair(_call("RandomFlip", mode="horizontal"), _call("HorizontalFlip", p=0.5)),
    Pair(_call("RandomRotation", factor=0.1), _always("Rotate", limit=36, border_mode=REFLECT)),
    Pair(
        _call("RandomTranslation", height_factor=0.2, width_factor=0.2),
        _always("Affine", translate_percent=(-0.2, 0.2), border_mode=REFLECT),
    ),
    Pair(
        _call("RandomZoom", height_factor=0.2, width_factor=0.2),
        _always("Affine", scale={"x": (0.8, 1.2), "y": (0.8, 1.2)}, border_mode=REFLECT),
    ),
    Pair(
        _call("RandomShear", x_factor=0.2, y_factor=0.2),
        _always("Affine", shear={"x": (-11.3, 11.3), "y": (-11.3, 11.3)}, border_mode=REFLECT),
    ),
    Pair(
        _call("RandomPerspective", factor=_SURE, scale=0.2),
        _always("Perspective", scale=(0.05, 0.1), border_mode=CONSTANT),
    ),
    Pair(
        _call("RandomElasticTransform", factor=_SURE, scale=(0.5, 0.5)),
        _always("ElasticTransform", alpha=63, sigma=5.6, border_mode=REFLECT),
    ),
)
_COLORS = (
    Pair(
        _call("RandomBrightness", factor=0.2),
        _always("RandomBrightnessContrast", brightness_limit=0.2, contrast_limit=0),
    ),
    Pair(_call("RandomContrast", factor=(0.2, 0.2)), _jitter(contrast=(0.8, 1.2))),
    Pair(
        _call("RandomSaturation", factor=(0.4, 0.6)),
        _always("HueSaturationValue", hue_shift_limit=0, sat_shift_limit=30, val_shift_limit=0),
    ),
    Pair(
        _call("RandomHue", factor=0.1),
        _always("HueSaturationValue", hue_shift_limit=9, sat_shift_limit=0, val_shift_limit=0),
    ),
    Pair(
        _call(
            "RandomColorJitter",
            brightness_factor=0.2,
            contrast_factor=(0.2, 0.2),
            saturation_factor=(0.4, 0.6),
            hue_factor=0.1,
        ),
        _jitter(
            brightness=(0.8, 1.2), contrast=(0.8, 1.2), saturation=(0.8, 1.2), hue=(-0.05, 0.05)
        ),
    ),
    Pair(_call("RandomGrayscale", factor=1.0), _always("ToGray")),
    Pair(_call("RandomColorDegeneration", factor=0.5), _jitter(saturation=(0.5, 1.5))),
    Pair(_call("RandomGamma", gamma=(0.8, 1.2)), _always("RandomGamma", gamma_limit=(80, 120))),
    Pair(_call("AutoContrast"), _always("AutoContrast", method="pil")),
    Pair(_call("Equalization"), _always("Equalize")),
    Pair(_call("RandomPosterization", factor=(4, 4)), _always("Posterize", num_bits=4)),
    Pair(
        _call("Solarization", threshold_factor=0.5),
        _always("Solarize", threshold_range=(0, 0.5)),
    ),
    Pair(_call("RandomInvert", factor=_SURE), _always("InvertImg")),
)
_FILTERS = (
    Pair(_call("RandomSharpness", factor=(0.6, 0.8)), _always("Sharpen", kernel_size=3)),
    Pair(
        _call("RandomGaussianBlur", factor=_SURE, kernel_size=5, sigma=(0.5, 2.0)),
        _always("GaussianBlur", blur_limit=(5, 5), sigma_limit=(0.5, 2.0)),
    ),
    Pair(_call("GaussianNoise", stddev=25.5), _always("GaussNoise", std_range=(0.1, 0.1))),
    Pair(_call("JPEG", quality=(50, 90)), _always("ImageCompression", quality_range=(50, 90))),
    Pair(_call("RandomErasing", factor=_SURE), _always("Erasing", fill="random")),
)
_POLICIES = tuple(Pair(_call(name)) for name in ("RandAugment", "TrivialAugment", "AugMix"))
_VALUES = (
    Pair(_call("Rescaling", scale=1 / 255), _always("ToFloat", max_value=255)),
    Pair(_call("Normalization", mean="imagenet"), _always("Normalize")),
)

SIZED = tuple(pair.ours.name for pair in _CROPS)
"""Those that begin with photos in their own size; all others get and make images of ``SIZE``."""
FLOATS = tuple(pair.ours.name for pair in _VALUES)
"""Those that make float32 images; all others make bytes."""
PAIRS = {
    pair.ours.name: pair
    for pair in (*_CROPS, *_GEOMETRY, *_COLORS, *_FILTERS, *_POLICIES, *_VALUES)
}
