"""Operations that mix each image with another of its batch.

The partner of a row is the row before it, of the first row the last: as torchvision's ``MixUp``
and ``CutMix``, which roll a batch by one row. With ``RepeatedAugmentation(n)`` it is the row n
before, as the row before is mostly the same image. It follows from the epoch's order alone, so that
a batch is the same however it was divided among workers.
"""

from __future__ import annotations

from math import inf, sqrt
from typing import NamedTuple

from loaderd.augment.draws import Draws
from loaderd.augment.operation import Operation, Size


class Mix(NamedTuple):
    """How one row is mixed with its partner.

    Attributes:
        weight: the share of the row's own image and label, from 0 to 1.
        box: (left, top, right, bottom) in pixels: where the partner's pixels are; None where all
            pixels are the weighted mean of both.
    """

    weight: float
    box: tuple[int, int, int, int] | None = None


class MixOperation(Operation, frozen=True):
    """Mixes each image, and its label, with another of its batch."""

    @property
    def keeps_pixels(self) -> bool:
        """Whether every pixel is one of the two images', so that masks can be mixed alike."""
        return False

    def draw(self, draws: Draws, size: Size) -> Mix | None:
        """How one row is mixed; None for not at all.

        Args:
            draws: at the operation's first number for the row's sample.
            size: (height, width) of the images.
        """
        raise NotImplementedError


class MixUp(MixOperation, frozen=True):
    """The weighted mean of each image and its partner, and of their labels.

    As ``keras.layers.MixUp`` (Zhang et al., "mixup: Beyond empirical risk minimization", 2018): the
    weights are drawn for each image from the beta distribution.

    Args:
        alpha: both parameters of the beta distribution; positive.
    """

    alpha: float = 0.2

    def check(self) -> None:
        """Raises InvalidArgument for an alpha that is not positive."""
        if not 0 < self.alpha < inf:
            raise self.refusal("alpha", "must be positive")

    def draw(self, draws: Draws, size: Size) -> Mix:
        """The weight."""
        return Mix(draws.beta(self.alpha, self.alpha))


class CutMix(MixOperation, frozen=True):
    """Replaces a part of each image, and of its mask, by that of its partner.

    Labels have the shares of the areas.

    As torchvision's ``CutMix`` (Yun et al., "CutMix: Regularization strategy to train strong
    classifiers with localizable features", 2019), drawn for each image instead of for the batch.
    ``keras.layers.CutMix`` calls ``alpha`` ``factor``.

    Args:
        alpha: both parameters of the beta distribution of the part's area; positive.
    """

    alpha: float = 1.0

    @property
    def keeps_pixels(self) -> bool:
        """True."""
        return True

    def check(self) -> None:
        """Raises InvalidArgument for an alpha that is not positive."""
        if not 0 < self.alpha < inf:
            raise self.refusal("alpha", "must be positive")

    def draw(self, draws: Draws, size: Size) -> Mix:
        """The part and the weight."""
        height, width = size
        half = 0.5 * sqrt(1.0 - draws.beta(self.alpha, self.alpha))
        x, y = draws.integer(width), draws.integer(height)
        across, down = int(half * width), int(half * height)
        left, right = max(x - across, 0), min(x + across, width)
        top, bottom = max(y - down, 0), min(y + down, height)
        share = (right - left) * (bottom - top) / (width * height)
        return Mix(1.0 - share, (left, top, right, bottom))
