"""The random numbers of an operation for one sample; pure.

Philox (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011) is a counter-based
generator: each output depends on key and counter alone, so any worker can draw for any sample, in
any order, any number of times. The key is (seed, epoch). The counter's words are, in their order:
the number of the block that is drawn; the sample; the number of the operation in the list, from 1,
or 0 for all operations of ``ImageDataGenerator`` (:data:`GENERATOR`,
:class:`loaderd.sampling.draws.Uniforms`); how often the sample came before in the epoch.

All distributions are made here from uniform numbers, the upper 53 bits of Philox's words: NumPy
may change its own between versions (NEP 19).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import log, prod
from statistics import NormalDist
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

Key = tuple[int, int, int]
"""(epoch, sample, occurrence): what the draws of a sample depend on, beside the seed."""

_Level = TypeVar("_Level", np.float32, np.uint8)
_NORMAL = NormalDist()
_SMALLEST = 2.0**-54
_LEVELS = 2**16


GENERATOR = -1
"""In the place of an operation's number: all operations of ``ImageDataGenerator``."""


class Draws:
    """Draws for one operation and one sample at a time. One for each thread.

    Args:
        seed: of the stream, from 0 to 2**63 - 1.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._philox = np.random.Philox(0)
        self._words: dict[str, tuple[int, ...]] = {}
        self._state: Any = {
            "bit_generator": "Philox",
            "state": self._words,
            "buffer": (0, 0, 0, 0),
            "buffer_pos": 4,  # the buffer is empty
            "has_uint32": 0,
            "uinteger": 0,
        }
        generator = np.random.Generator(self._philox)
        self._random: Callable[[], float] = generator.random
        self._many: Callable[[int], NDArray[np.float64]] = generator.random

    def begin(self, epoch: int, sample: int, operation: int, occurrence: int = 0) -> None:
        """Goes to the first number of an operation for a sample.

        Args:
            epoch: from 0.
            sample: its number.
            operation: its number in the list, from 0, or ``GENERATOR``.
            occurrence: how often the sample came before in the epoch.
        """
        # Setting the whole state takes 0.5 µs, creating a generator 16 µs.
        self._words["counter"] = (0, sample, operation + 1, occurrence)
        self._words["key"] = (self._seed, epoch)
        self._philox.state = self._state

    def uniforms(self, count: int) -> list[float]:
        """So many numbers from 0 to 1."""
        numbers: list[float] = self._many(count).tolist()
        return numbers

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A number from ``low`` to ``high``, which is excluded unless they are equal."""
        return low + (high - low) * self._random()

    def integer(self, count: int) -> int:
        """A whole number from 0 to ``count - 1``."""
        return int(count * self._random())

    def happens(self, probability: float) -> bool:
        """Whether an event of this probability happens."""
        return self._random() < probability

    def normal(self) -> float:
        """A number of the standard normal distribution, by inversion."""
        return _NORMAL.inv_cdf(max(self._random(), _SMALLEST))

    def normals(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Independent numbers of the standard normal distribution, in 65,536 levels.

        By inversion, as the quantiles (k + 1/2) / 65,536: within 4.3 standard deviations.
        """
        return self.picks(normal_quantiles(), shape)

    def picks(self, levels: NDArray[_Level], shape: tuple[int, ...]) -> NDArray[_Level]:
        """Independent picks of 65,536 levels, each as likely as the others."""
        import cv2  # which looks them up in a third of NumPy's time

        count = prod(shape)
        words: NDArray[np.uint64] = self._philox.random_raw(-(-count // 4))
        if not count:  # which OpenCV refuses
            return np.empty(shape, levels.dtype)
        picked: Any = cv2.LUT(words.view(np.uint16)[:count], levels)
        return cast(NDArray[_Level], picked.reshape(shape))

    def gamma(self, shape: float) -> float:
        """A number of the gamma distribution of scale 1.

        By Marsaglia and Tsang, "A simple method for generating gamma variables", 2000.
        """
        if shape < 1:
            root = float(max(self._random(), _SMALLEST) ** (1 / shape))
            return self.gamma(shape + 1) * root
        third = shape - 1 / 3
        while True:
            x = self.normal()
            cube: float = (1 + x / (9 * third) ** 0.5) ** 3
            u = max(self._random(), _SMALLEST)
            if cube > 0 and log(u) < x * x / 2 + third * (1 - cube + log(cube)):
                return float(third * cube)

    def beta(self, a: float, b: float) -> float:
        """A number of the beta distribution."""
        if a == b == 1:
            return self._random()
        first, second = self.gamma(a), self.gamma(b)
        total = first + second
        # Both underflow where a and b are very small; then it is 0 or 1.
        return first / total if total > 0 else float(self._random() < a / (a + b))

    def dirichlet(self, alpha: float, count: int) -> list[float]:
        """Numbers of the symmetric Dirichlet distribution, with sum 1."""
        parts = [self.gamma(alpha) for _ in range(count)]
        total = sum(parts)
        return [part / total for part in parts] if total > 0 else [1 / count] * count


@cache
def normal_quantiles() -> NDArray[np.float32]:
    """The levels of ``Draws.normals``."""
    levels = [_NORMAL.inv_cdf((level + 0.5) / _LEVELS) for level in range(_LEVELS)]
    return np.array(levels, np.float32)
