"""The random parameters of each sample as Keras draws them, batch by batch; pure.

Keras seeds NumPy's global generator with seed + k for batch number k, and draws the
parameters of its samples in order. So a batch's parameters are a function of (seed, k), but
a row's depend on the rows before it: a batch is drawn whole. The source is
``ImageDataGenerator.get_random_transform`` and ``Iterator._flow_index`` in
``keras/src/legacy/preprocessing/image.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from loaderd.sampling.order import EpochOrder
from loaderd.spec.operations import GeneratorFlip, Random
from loaderd.spec.spec import Spec
from loaderd.spec.transform import FLIPS, Transform, Transforms

Range = float | Sequence[float]
_Size = tuple[int, int]
_KEPT = 4  # batches whose chunks are rendered at the same time
_STILL = np.array(Transform(), np.float64)


def draw(rng: Any, ranges: Any, size: _Size) -> Transform:
    """Draws one sample's parameters, in Keras's order.

    Args:
        rng: a ``RandomState``, or the module ``numpy.random``.
        ranges: Keras's arguments: ``Ranges``, or an ``ImageDataGenerator``.
        size: (height, width) of the image.
    """
    theta = _symmetric(rng, ranges.rotation_range)
    tx = _draw_shift(rng, ranges.height_shift_range, size[0])
    ty = _draw_shift(rng, ranges.width_shift_range, size[1])
    shear = _symmetric(rng, ranges.shear_range)
    low, high = ranges.zoom_range
    zx, zy = (1.0, 1.0) if low == 1 and high == 1 else rng.uniform(low, high, 2).tolist()
    flip_horizontal = rng.random() < 0.5 and bool(ranges.horizontal_flip)
    flip_vertical = rng.random() < 0.5 and bool(ranges.vertical_flip)
    channels = ranges.channel_shift_range
    intensity = rng.uniform(-channels, channels) if channels != 0 else None
    light = ranges.brightness_range
    brightness = None if light is None else rng.uniform(light[0], light[1])
    return Transform(
        theta, tx, ty, shear, zx, zy, flip_horizontal, flip_vertical, intensity, brightness
    )


def _symmetric(rng: Any, reach: float) -> float:
    return float(rng.uniform(-reach, reach)) if reach else 0.0


def _draw_shift(rng: Any, reach: Range, size: int) -> float:
    """Draws a shift. Keras tries ``choice`` first, which takes whole numbers above 0, and lists.

    ``choice`` draws one ``randint``, which is called here directly.
    """
    if not reach:
        return 0.0
    if isinstance(reach, (int, np.integer)) and reach > 0:
        return float(rng.randint(0, reach) * _sign(rng))
    if isinstance(reach, (tuple, list, np.ndarray)):
        shift = reach[rng.randint(0, len(reach))] * _sign(rng)
        return float(shift * size if max(reach) < 1 else shift)
    shift = rng.uniform(-reach, reach)  # type: ignore[operator]  # a number
    return float(shift * size if reach < 1 else shift)  # type: ignore[operator]


def _sign(rng: Any) -> int:
    return 1 if rng.randint(0, 2) else -1


class Ranges(NamedTuple):
    """The ranges of all random operations of a spec, under Keras's names."""

    rotation_range: float = 0.0
    width_shift_range: Range = 0.0
    height_shift_range: Range = 0.0
    shear_range: float = 0.0
    zoom_range: tuple[float, float] = (1.0, 1.0)
    horizontal_flip: bool = False
    vertical_flip: bool = False
    channel_shift_range: float = 0.0
    brightness_range: tuple[float, float] | None = None

    @classmethod
    def of(cls, spec: Spec) -> Ranges:
        """The ranges of a spec that has each random operation at most once."""
        ranges = cls()
        for operation in spec.transforms:
            if isinstance(operation, GeneratorFlip):
                sideways, over = operation.horizontal, operation.vertical
                ranges = ranges._replace(horizontal_flip=sideways, vertical_flip=over)
            elif isinstance(operation, Random):
                names = {*cls._fields}.intersection(operation.__struct_fields__)
                ranges = ranges._replace(**{name: getattr(operation, name) for name in names})
        return ranges


class BatchDraws:
    """Draws the parameters of any rows of any batch.

    Args:
        spec: holds the random operations.
        epochs: the order of the samples, which Keras draws from the same generator.
    """

    def __init__(self, spec: Spec, epochs: EpochOrder) -> None:
        self._spec = spec
        self._ranges = Ranges.of(spec)
        self._size = spec.load.target_size
        self._epochs = epochs
        self._plan = None if _chooses(self._ranges) else _plan(self._ranges, self._size)
        self._rng = np.random.RandomState(0)
        self._batches: dict[tuple[int, int], Transforms] = {}

    def rows(self, epoch: int, position: int, first: int, last: int) -> Transforms:
        """The parameters of rows ``first`` to ``last`` (excluded) of a batch."""
        return self._batch(epoch, position)[first:last]

    def numbers(self, epoch: int, position: int) -> list[int]:
        """The random numbers in the names of a batch's saved pictures, one for each row.

        Keras draws them after all samples of the batch.
        """
        save = self._spec.output.save
        assert save is not None
        rows = self._epochs.layout.rows(position)
        self._seed_and_draw(epoch, position, rows)
        return [int(self._rng.randint(save.most)) for _ in range(rows)]

    def _batch(self, epoch: int, position: int) -> Transforms:
        place = (epoch, position)
        if place not in self._batches:
            if len(self._batches) == _KEPT:
                del self._batches[next(iter(self._batches))]
            rows = self._epochs.layout.rows(position)
            self._batches[place] = self._seed_and_draw(epoch, position, rows)
        return self._batches[place]

    def _seed_and_draw(self, epoch: int, position: int, rows: int) -> Transforms:
        # Seeding a generator takes a tenth of the time of creating one.
        self._epochs.seed_batch(self._rng, epoch, position)
        if self._plan is None:
            drawn = [draw(self._rng, self._ranges, self._size) for _ in range(rows)]
            return np.array(drawn, np.float64)
        return self._plan.draw(self._rng, rows)


def _chooses(ranges: Ranges) -> bool:
    """Whether a shift is a choice, which consumes an unknown number of the generator's words."""
    return any(
        isinstance(reach, tuple) or (isinstance(reach, int) and reach > 0)
        for reach in (ranges.height_shift_range, ranges.width_shift_range)
    )


class _Plan(NamedTuple):
    """Uniform draws of one sample, in Keras's order, so that one call draws a whole batch."""

    fields: list[int]
    low: list[float]
    high: list[float]
    unit: list[float]
    flips: tuple[bool, bool]

    def draw(self, rng: np.random.RandomState, rows: int) -> Transforms:
        drawn: Transforms = _STILL.repeat(rows).reshape(-1, rows).T
        uniform = rng.uniform(self.low, self.high, (rows, len(self.fields)))
        drawn[:, self.fields] = uniform * self.unit
        drawn[:, FLIPS] = (drawn[:, FLIPS] < 0.5) & self.flips
        return drawn


def _plan(ranges: Ranges, size: _Size) -> _Plan:
    """The plan of :func:`draw`, where the shifts are uniform."""
    height, width = size
    plan = _Plan([], [], [], [], (ranges.horizontal_flip, ranges.vertical_flip))
    _add_symmetric(plan, "theta", ranges.rotation_range)
    _add_symmetric(plan, "tx", ranges.height_shift_range, height)
    _add_symmetric(plan, "ty", ranges.width_shift_range, width)
    _add_symmetric(plan, "shear", ranges.shear_range)
    if ranges.zoom_range != (1, 1):
        _add(plan, "zx", *ranges.zoom_range)
        _add(plan, "zy", *ranges.zoom_range)
    _add(plan, "flip_horizontal", 0, 1)
    _add(plan, "flip_vertical", 0, 1)
    _add_symmetric(plan, "channel_shift_intensity", ranges.channel_shift_range)
    if ranges.brightness_range is not None:
        _add(plan, "brightness", *ranges.brightness_range)
    return plan


def _add(plan: _Plan, field: str, low: float, high: float, unit: float = 1.0) -> None:
    plan.fields.append(Transform._fields.index(field))
    plan.low.append(low)
    plan.high.append(high)
    plan.unit.append(unit)


def _add_symmetric(plan: _Plan, field: str, reach: Any, size: int = 1) -> None:
    """A draw between ``-reach`` and ``reach``, which is a share of ``size`` if it is below 1."""
    if reach:
        _add(plan, field, -reach, reach, size if reach < 1 else 1)
