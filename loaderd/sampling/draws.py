"""The random numbers of each sample, from (seed, epoch, sample); pure.

This is :class:`~loaderd.spec.output.Order`'s source ``sample``; Keras's own draws are in
:mod:`loaderd.sampling.keras_draws`. :mod:`loaderd.augment.draws` describes the generator and its
counter.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from loaderd.augment.draws import GENERATOR, Draws

SUBSTITUTES = 32
"""Number of substitutes that are tried for a sample that cannot be read."""

_SUBSTITUTE = 2**64 - 2
"""The last word of Philox's counter for these draws; no other use of a key has it."""


def substitutes(seed: int, epoch: int, sample: int, candidates: int) -> Iterator[int]:
    """The indices of candidates to substitute for an unreadable sample, in order of preference.

    Drawn from (seed, epoch, sample) by ``RandomState``, whose draws NumPy has frozen (NEP 19);
    an index may repeat.
    """
    draws = generator(seed, epoch, sample, _SUBSTITUTE)
    yield from draws.randint(0, candidates, SUBSTITUTES, np.int64).tolist()


def generator(seed: int, epoch: int, sample: int, use: int) -> np.random.RandomState:
    """The generator of (seed, epoch), for one use of it: the last two words of its counter."""
    key = np.array([seed, epoch], np.uint64)
    counter = np.array([0, 0, sample, use], np.uint64)
    return np.random.RandomState(np.random.Philox(key=key, counter=counter))


class Uniforms:
    """The uniform numbers of each sample, from which its random parameters are drawn.

    Args:
        seed: from 0 to 2**63 - 1.
        count: numbers per sample.
    """

    def __init__(self, seed: int, count: int) -> None:
        self._draws = Draws(seed)
        self._count = count

    def __call__(self, epoch: int, sample: int, occurrence: int = 0) -> list[float]:
        """Numbers from 0 to 1 for an occurrence of a sample in an epoch (all from 0)."""
        self._draws.begin(epoch, sample, GENERATOR, occurrence)
        return self._draws.uniforms(self._count)
