"""The random parameters of each sample, drawn from (seed, epoch, sample); pure.

This is :class:`~loaderd.spec.spec.Order`'s source ``sample``; Keras's own draws are in
:mod:`loaderd.sampling.keras_draws`.

Philox is a counter-based generator: its output at a counter needs no earlier output,
so any worker can draw for any sample, in any order, any number of times. The key is
(seed, epoch), the counter's second word is the sample, and the first word counts the
blocks of one sample's draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from loaderd.spec.spec import Pipeline
from loaderd.spec.transform import Transform

_DRAWS = 12
_NOTHING = Transform()

_Shift = Callable[[float, float], float]


SUBSTITUTES = 32
"""So many others are tried in place of a sample that cannot be read."""

_SUBSTITUTE = 2**64 - 2
"""The last word of Philox's counter for these draws, which no other use of a key has."""


def substitutes(seed: int, epoch: int, sample: int, candidates: int) -> Iterator[int]:
    """Which of the candidates stand in for a sample that cannot be read, the first choice first.

    They come from (seed, epoch, sample) by ``RandomState``, whose draws NumPy has frozen
    (NEP 19); one may come more than once.
    """
    key = np.array([seed, epoch], np.uint64)
    counter = np.array([0, 0, sample, _SUBSTITUTE], np.uint64)
    draws = np.random.RandomState(np.random.Philox(key=key, counter=counter))
    yield from draws.randint(0, candidates, SUBSTITUTES, np.int64).tolist()


class SampleDraws:
    """Draws the transform of any sample.

    The distributions are those of ``ImageDataGenerator.get_random_transform`` in
    ``keras/src/legacy/preprocessing/image.py``, for images of the target size. Every
    sample uses the same number of uniforms, each for one purpose: whether a parameter
    is random never changes another parameter's draw.

    Args:
        pipeline: says which parameters are random, and how far they go.
        seed: from 0 to 2**63 - 1.
    """

    def __init__(self, pipeline: Pipeline, seed: int) -> None:
        height, width = pipeline.target_size
        self._seed = seed
        self._rotation = pipeline.rotation_range
        self._shift_x = _shift(pipeline.height_shift_range, height)
        self._shift_y = _shift(pipeline.width_shift_range, width)
        self._shear = pipeline.shear_range
        self._zoom_from, zoom_to = pipeline.zoom_range
        self._zoom_by = zoom_to - self._zoom_from
        self._flip_horizontal = 0.5 if pipeline.horizontal_flip else 0.0
        self._flip_vertical = 0.5 if pipeline.vertical_flip else 0.0
        self._channel_shift = pipeline.channel_shift_range
        self._brightness = pipeline.brightness_range
        self._still = not pipeline.is_random
        self._philox = np.random.Philox(0)
        self._random = np.random.Generator(self._philox).random

    def __call__(self, epoch: int, sample: int) -> Transform:
        """The transform of a sample in an epoch (both from 0)."""
        if self._still:
            return _NOTHING
        turn, x, x_sign, y, y_sign, shear, zx, zy, flip, flip_over, channels, light = (
            self._uniforms(epoch, sample)
        )
        return Transform(
            (2 * turn - 1) * self._rotation,
            self._shift_x(x, x_sign),
            self._shift_y(y, y_sign),
            (2 * shear - 1) * self._shear,
            self._zoom_from + zx * self._zoom_by,
            self._zoom_from + zy * self._zoom_by,
            flip < self._flip_horizontal,
            flip_over < self._flip_vertical,
            (2 * channels - 1) * self._channel_shift if self._channel_shift else None,
            _between(light, *self._brightness) if self._brightness else None,
        )

    def _uniforms(self, epoch: int, sample: int) -> list[float]:
        # Setting the whole state costs 1 µs, making a generator 16 µs.
        state: Any = {
            "bit_generator": "Philox",
            "state": {"counter": (0, sample, 0, 0), "key": (self._seed, epoch)},
            "buffer": (0, 0, 0, 0),
            "buffer_pos": 4,  # the buffer is empty
            "has_uint32": 0,
            "uinteger": 0,
        }
        self._philox.state = state
        numbers: list[float] = self._random(_DRAWS).tolist()
        return numbers


def _between(uniform: float, low: float, high: float) -> float:
    return low + uniform * (high - low)


def _shift(shift_range: float | tuple[float, ...], size: int) -> _Shift:
    """How two uniforms become one shift in pixels; ``size`` is the image's on that axis.

    Keras asks ``np.random.choice`` first: a positive int is a choice of ``range(v)``, a
    sequence one of its values, both with a random sign; what it refuses is uniform.
    """
    if not shift_range:
        return _no_shift
    if isinstance(shift_range, tuple | list):
        unit = size if max(shift_range) < 1 else 1
        return _choice([value * unit for value in shift_range])
    if isinstance(shift_range, int) and shift_range > 0:
        return _choice(list(range(shift_range)))
    return _uniform(shift_range * (size if shift_range < 1 else 1))


def _no_shift(uniform: float, sign: float) -> float:
    return 0.0


def _uniform(reach: float) -> _Shift:
    return lambda uniform, sign: (2 * uniform - 1) * reach


def _choice(values: list[float] | list[int]) -> _Shift:
    count = len(values)

    def choose(uniform: float, sign: float) -> float:
        value = values[int(uniform * count)]
        return -value if sign < 0.5 else value

    return choose
