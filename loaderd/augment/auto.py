"""Policies that draw which operations an image gets: RandAugment, TrivialAugment, AugMix.

Their operations and strengths are those of torchvision's ``transforms/v2/_auto_augment.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from loaderd.augment import color_changes as color
from loaderd.augment import filters, warps
from loaderd.augment.draws import Draws
from loaderd.augment.operation import ImageOperation, Size
from loaderd.augment.warps import WarpStyle

if TYPE_CHECKING:
    from loaderd.augment.canvas import Canvas

Strengths = Callable[[float, Size], float]
"""From a magnitude, 0 to 1, and (height, width) of the image, to an operation's strength."""

_MOST = 100
"""Operations of an image, so that no mistake makes a worker busy for ever."""
_CORNER = (0.0, 0.0)
_ENOUGH_BITS = 8


class Kind(NamedTuple):
    """One operation that a policy may draw.

    Attributes:
        name: of a function in ``_APPLY``.
        strength: of a magnitude.
        is_signed: whether the strength is negative in half of all cases.
    """

    name: str
    strength: Strengths
    is_signed: bool = False


class Drawn(NamedTuple):
    """An operation with its strength."""

    name: str
    strength: float


class Chain(NamedTuple):
    """Operations in a row, and the weight of their result."""

    weight: float
    operations: list[Drawn]


def _up_to(most: float) -> Strengths:
    return lambda magnitude, size: magnitude * most


def _of_width(share: float) -> Strengths:
    return lambda magnitude, size: magnitude * share * size[1]


def _of_height(share: float) -> Strengths:
    return lambda magnitude, size: magnitude * share * size[0]


def _bits(best: int, lost: int) -> Strengths:
    return lambda magnitude, size: best - round(magnitude * lost)


def _none(magnitude: float, size: Size) -> float:
    return 0.0


def _threshold(magnitude: float, size: Size) -> float:
    return 255 * (1 - magnitude)


def _signed(names: str, strength: Strengths) -> list[Kind]:
    return [Kind(name, strength, True) for name in names.split()]


_ENHANCING = "Brightness Color Contrast Sharpness"
_LEVELS = [Kind("AutoContrast", _none), Kind("Equalize", _none)]

_RAND_AUGMENT = [
    Kind("Identity", _none),
    *_signed("ShearX ShearY", _up_to(0.3)),
    Kind("TranslateX", _of_width(150 / 331), True),
    Kind("TranslateY", _of_height(150 / 331), True),
    Kind("Rotate", _up_to(30.0), True),
    *_signed(_ENHANCING, _up_to(0.9)),
    Kind("Posterize", _bits(8, 4)),
    Kind("Solarize", _threshold),
    *_LEVELS,
]
_TRIVIAL_AUGMENT = [
    Kind("Identity", _none),
    *_signed("ShearX ShearY", _up_to(0.99)),
    *_signed("TranslateX TranslateY", _up_to(32.0)),
    Kind("Rotate", _up_to(135.0), True),
    *_signed(_ENHANCING, _up_to(0.99)),
    Kind("Posterize", _bits(8, 6)),
    Kind("Solarize", _threshold),
    *_LEVELS,
]
_AUG_MIX = [
    *_signed("ShearX ShearY", _up_to(0.3)),
    Kind("TranslateX", _of_width(1 / 3), True),
    Kind("TranslateY", _of_height(1 / 3), True),
    Kind("Rotate", _up_to(30.0), True),
    Kind("Posterize", _bits(4, 4)),
    Kind("Solarize", _threshold),
    *_LEVELS,
]
_AUG_MIX_ALL = [*_AUG_MIX, *_signed(_ENHANCING, _up_to(0.9))]
_AUG_MIX_BINS = 10


def _shear_x(canvas: Canvas, strength: float, style: WarpStyle) -> None:
    canvas.warp(warps.shear(strength, 0.0, _CORNER), style)


def _shear_y(canvas: Canvas, strength: float, style: WarpStyle) -> None:
    canvas.warp(warps.shear(0.0, strength, _CORNER), style)


def _translate_x(canvas: Canvas, strength: float, style: WarpStyle) -> None:
    canvas.warp(warps.translation(int(strength), 0), style)


def _translate_y(canvas: Canvas, strength: float, style: WarpStyle) -> None:
    canvas.warp(warps.translation(0, int(strength)), style)


def _rotate(canvas: Canvas, strength: float, style: WarpStyle) -> None:
    canvas.warp(warps.rotation(strength, canvas.size), style)


def _posterize(canvas: Canvas, strength: float, style: WarpStyle) -> None:
    if strength < _ENOUGH_BITS:
        color.posterized(canvas, int(strength))


_APPLY: dict[str, Callable[[Canvas, float, WarpStyle], None]] = {
    "Identity": lambda canvas, strength, style: None,
    "ShearX": _shear_x,
    "ShearY": _shear_y,
    "TranslateX": _translate_x,
    "TranslateY": _translate_y,
    "Rotate": _rotate,
    "Brightness": lambda canvas, strength, style: color.scaled_brightness(canvas, 1 + strength),
    "Color": lambda canvas, strength, style: color.blended_color(canvas, 1 + strength),
    "Contrast": lambda canvas, strength, style: color.blended_contrast(canvas, 1 + strength),
    "Sharpness": lambda canvas, strength, style: filters.sharpened(canvas, 1 + strength),
    "Posterize": _posterize,
    "Solarize": lambda canvas, strength, style: color.solarized(canvas, strength),
    "AutoContrast": lambda canvas, strength, style: color.autocontrasted(canvas),
    "Equalize": lambda canvas, strength, style: color.equalized(canvas),
}


def _drawn(kind: Kind, magnitude: float, draws: Draws, size: Size) -> Drawn:
    strength = kind.strength(magnitude, size)
    if kind.is_signed and draws.happens(0.5):
        strength = -strength
    return Drawn(kind.name, strength)


class _Policy(ImageOperation, frozen=True, kw_only=True):
    """Arguments of all policies."""

    interpolation: Literal["nearest", "bilinear"] = "nearest"
    fill_value: float = 0.0

    def check(self) -> None:
        """Raises InvalidArgument for a grey level that there is not."""
        if not 0 <= self.fill_value <= 255:
            raise self.refusal("fill_value", "must be from 0 to 255")

    def _apply_each(self, canvas: Canvas, operations: list[Drawn]) -> None:
        style = WarpStyle(self.interpolation, "constant", self.fill_value)
        for name, strength in operations:
            _APPLY[name](canvas, strength, style)


class RandAugment(_Policy, frozen=True):
    """Applies some of 14 operations, all of one strength; as torchvision's ``RandAugment``.

    Cubuk et al., "RandAugment: Practical automated data augmentation with a reduced search space",
    2020. ``keras.layers.RandAugment`` has other operations and strengths, and draws one list for a
    whole batch.

    Args:
        num_ops: how many operations an image gets; one may come twice.
        magnitude: strength, from 0 to ``num_magnitude_bins - 1``.
        num_magnitude_bins: how many strengths there are.
        interpolation: ``nearest`` or ``bilinear``, of shears, translations and rotations.
        fill_value: the grey level of points from outside of the image.
    """

    num_ops: int = 2
    magnitude: int = 9
    num_magnitude_bins: int = 31

    def check(self) -> None:
        """Raises InvalidArgument for numbers out of their range."""
        super().check()
        if not 0 <= self.num_ops <= _MOST:
            raise self.refusal("num_ops", f"must be from 0 to {_MOST}")
        if self.num_magnitude_bins < 2:
            raise self.refusal("num_magnitude_bins", "must be at least 2")
        if not 0 <= self.magnitude < self.num_magnitude_bins:
            raise self.refusal("magnitude", "must be from 0 to num_magnitude_bins - 1")

    def draw(self, draws: Draws, size: Size) -> list[Drawn]:
        """The operations."""
        magnitude = self.magnitude / (self.num_magnitude_bins - 1)
        kinds = [_RAND_AUGMENT[draws.integer(len(_RAND_AUGMENT))] for _ in range(self.num_ops)]
        return [_drawn(kind, magnitude, draws, size) for kind in kinds]

    def apply(self, canvas: Canvas, parameters: list[Drawn]) -> None:
        """Applies them in their order."""
        self._apply_each(canvas, parameters)


class TrivialAugment(_Policy, frozen=True):
    """Applies one of 14 operations with a random strength; as torchvision's ``TrivialAugmentWide``.

    Müller and Hutter, "TrivialAugment: Tuning-free yet state-of-the-art data augmentation", 2021.

    Args:
        num_magnitude_bins: how many strengths there are.
        interpolation: ``nearest`` or ``bilinear``, of shears, translations and rotations.
        fill_value: the grey level of points from outside of the image.
    """

    num_magnitude_bins: int = 31

    def check(self) -> None:
        """Raises InvalidArgument for fewer than two strengths."""
        super().check()
        if self.num_magnitude_bins < 2:
            raise self.refusal("num_magnitude_bins", "must be at least 2")

    def draw(self, draws: Draws, size: Size) -> list[Drawn]:
        """The operation."""
        kind = _TRIVIAL_AUGMENT[draws.integer(len(_TRIVIAL_AUGMENT))]
        magnitude = draws.integer(self.num_magnitude_bins) / (self.num_magnitude_bins - 1)
        return [_drawn(kind, magnitude, draws, size)]

    def apply(self, canvas: Canvas, parameters: list[Drawn]) -> None:
        """Applies it."""
        self._apply_each(canvas, parameters)


class _SmoothPolicy(_Policy, frozen=True, kw_only=True):
    interpolation: Literal["nearest", "bilinear"] = "bilinear"


class AugMix(_SmoothPolicy, frozen=True):
    """The weighted mean of an image and of results of chains of operations; as torchvision's.

    Hendrycks et al., "AugMix: A simple data processing method to improve robustness and
    uncertainty", 2020. ``keras.layers.AugMix`` has other operations and strengths.

    Args:
        severity: strength of the operations, from 1 to 10.
        mixture_width: how many chains.
        chain_depth: operations in a chain; -1 draws 1 to 3.
        alpha: parameter of the Dirichlet distributions that the weights are drawn from.
        all_ops: whether to draw brightness, colour, contrast and sharpness too.
        interpolation: ``nearest`` or ``bilinear``, of shears, translations and rotations.
        fill_value: the grey level of points from outside of the image.
    """

    severity: int = 3
    mixture_width: int = 3
    chain_depth: int = -1
    alpha: float = 1.0
    all_ops: bool = True

    def check(self) -> None:
        """Raises InvalidArgument for numbers out of their range."""
        super().check()
        if not 1 <= self.severity <= _AUG_MIX_BINS:
            raise self.refusal("severity", f"must be from 1 to {_AUG_MIX_BINS}")
        if not 1 <= self.mixture_width <= _MOST:
            raise self.refusal("mixture_width", f"must be from 1 to {_MOST}")
        if self.chain_depth > _MOST:
            raise self.refusal("chain_depth", f"must be at most {_MOST}")
        if not 0 < self.alpha < float("inf"):
            raise self.refusal("alpha", "must be positive")

    def draw(self, draws: Draws, size: Size) -> list[Chain]:
        """The chains; the rest of the weights to 1 is the image's own."""
        changed = draws.beta(self.alpha, self.alpha)  # the Dirichlet distribution of two
        weights = draws.dirichlet(self.alpha, self.mixture_width)
        return [Chain(changed * weight, self._chain(draws, size)) for weight in weights]

    def _chain(self, draws: Draws, size: Size) -> list[Drawn]:
        kinds = _AUG_MIX_ALL if self.all_ops else _AUG_MIX
        depth = self.chain_depth if self.chain_depth > 0 else 1 + draws.integer(3)
        chosen = [kinds[draws.integer(len(kinds))] for _ in range(depth)]
        magnitudes = [draws.integer(self.severity) / (_AUG_MIX_BINS - 1) for _ in chosen]
        return [
            _drawn(kind, magnitude, draws, size)
            for kind, magnitude in zip(chosen, magnitudes, strict=True)
        ]

    def apply(self, canvas: Canvas, parameters: list[Chain]) -> None:
        """Mixes the results of the chains with the image."""
        image = canvas.image
        mixed = image * np.float32(1 - sum(chain.weight for chain in parameters))
        chained = canvas.another()  # so that targets stay where they are
        for chain in parameters:
            chained.begin(image)
            self._apply_each(chained, chain.operations)
            mixed += chained.image * np.float32(chain.weight)
        canvas.image = np.rint(mixed).clip(0, 255).astype(np.uint8)
