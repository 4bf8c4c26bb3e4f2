"""The random numbers of each sample, from (seed, epoch, sample); pure.

This is :class:`~loaderd.spec.output.Order`'s source ``sample``; Keras's own draws are in
:mod:`loaderd.sampling.keras_draws`.

Philox is a counter-based generator: each output depends on key and counter alone, so any
worker can draw for any sample, in any order, any number of times. The key is (seed, epoch),
the counter's second word is the sample, the fourth how often it came before in the epoch, and the
first counts the blocks of one sample's draws.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

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
        self._seed = seed
        self._count = count
        self._philox = np.random.Philox(0)
        self._random = np.random.Generator(self._philox).random

    def __call__(self, epoch: int, sample: int, occurrence: int = 0) -> list[float]:
        """Numbers from 0 to 1 for an occurrence of a sample in an epoch (all from 0)."""
        # Setting the whole state takes 1 µs, creating a generator 16 µs.
        state: Any = {
            "bit_generator": "Philox",
            "state": {"counter": (0, sample, 0, occurrence), "key": (self._seed, epoch)},
            "buffer": (0, 0, 0, 0),
            "buffer_pos": 4,  # the buffer is empty
            "has_uint32": 0,
            "uinteger": 0,
        }
        self._philox.state = state
        numbers: list[float] = self._random(self._count).tolist()
        return numbers
