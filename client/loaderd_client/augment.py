"""Operations for ``augment=[...]``, usually imported as ``A``.

Each is drawn for each sample from (seed, epoch, sample, number of the operation in the list), and
from how often the sample came before in the epoch.
"""

from __future__ import annotations

from loaderd.augment.auto import AugMix, RandAugment, TrivialAugment
from loaderd.augment.color import (
    AutoContrast,
    Equalization,
    RandomBrightness,
    RandomColorDegeneration,
    RandomColorJitter,
    RandomContrast,
    RandomGamma,
    RandomGrayscale,
    RandomHue,
    RandomInvert,
    RandomPosterization,
    RandomSaturation,
    Solarization,
)
from loaderd.augment.crops import CenterCrop, RandomCrop, RandomResizedCrop, Resize
from loaderd.augment.erasing import RandomErasing
from loaderd.augment.filters import JPEG, GaussianNoise, RandomGaussianBlur, RandomSharpness
from loaderd.augment.function import Function
from loaderd.augment.geometry import (
    RandomElasticTransform,
    RandomFlip,
    RandomPerspective,
    RandomRotation,
    RandomShear,
    RandomTranslation,
    RandomZoom,
)
from loaderd.augment.mixing import CutMix, MixUp
from loaderd.augment.policies import RandomApply, RandomChoice, RandomMix
from loaderd.augment.repeated import RepeatedAugmentation
from loaderd.augment.values import Normalization, Rescaling

__all__ = [
    "AugMix",
    "AutoContrast",
    "CenterCrop",
    "CutMix",
    "Equalization",
    "Function",
    "GaussianNoise",
    "JPEG",
    "MixUp",
    "Normalization",
    "RandAugment",
    "RandomApply",
    "RandomBrightness",
    "RandomChoice",
    "RandomColorDegeneration",
    "RandomColorJitter",
    "RandomContrast",
    "RandomCrop",
    "RandomElasticTransform",
    "RandomErasing",
    "RandomFlip",
    "RandomGamma",
    "RandomGaussianBlur",
    "RandomGrayscale",
    "RandomHue",
    "RandomInvert",
    "RandomMix",
    "RandomPerspective",
    "RandomPosterization",
    "RandomResizedCrop",
    "RandomRotation",
    "RandomSaturation",
    "RandomSharpness",
    "RandomShear",
    "RandomTranslation",
    "RandomZoom",
    "RepeatedAugmentation",
    "Rescaling",
    "Resize",
    "Solarization",
    "TrivialAugment",
]
