"""Whether what was measured has grown.

The first quarter of the flows is a warm-up: imports, pools of memory, first traces of TensorFlow,
and what is kept on purpose, which is bounded, all come in it. The median of the second quarter is
compared with the median of the last one. A median is not moved by what a single flow needs for a
moment, and between the two medians lies half of all flows: what each flow leaves behind shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scripts.growth.gauges import Sample

MIN_SAMPLES = 5
"""In each of the two quarters; with fewer nothing is judged."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """One figure of one part, over the run.

    Attributes:
        part: the process or group.
        what: the figure.
        first: its first value.
        last: its last value.
        most: its highest value.
        slope: growth per 1000 flows after the warm-up: the median of the slopes between all
            pairs of samples.
        early: the median of the second quarter of the flows.
        late: the median of the last quarter.
        allowed: how much ``late`` may be above ``early``; None if too little was measured.
    """

    part: str
    what: str
    first: float
    last: float
    most: float
    slope: float
    early: float
    late: float
    allowed: float | None

    @property
    def flat(self) -> bool:
        """Whether it has not grown."""
        return self.allowed is not None and self.late - self.early <= self.allowed


def rows(samples: Sequence[Sample], allowances: Mapping[str, Mapping[str, float]]) -> list[Row]:
    """Judge all figures.

    Args:
        samples: in the order of time.
        allowances: by part and figure: what it may grow from the second quarter to the last.
            What is not in it is not judged.
    """
    return [
        _row(part, what, samples, allowed)
        for part, figures in allowances.items()
        for what, allowed in figures.items()
    ]


def _row(part: str, what: str, samples: Sequence[Sample], allowed: float) -> Row:
    flows, values = _series(part, what, samples)
    total = max((sample.flows for sample in samples), default=0)
    early = values[(flows >= total / 4) & (flows < total / 2)]
    late = values[flows >= total * 3 / 4]
    if min(len(early), len(late)) < MIN_SAMPLES:
        first, last, most = (values[0], values[-1], values.max()) if len(values) else (0, 0, 0)
        return Row(part, what, float(first), float(last), float(most), 0, 0, 0, None)
    return Row(
        part,
        what,
        first=float(values[0]),
        last=float(values[-1]),
        most=float(values.max()),
        slope=1000 * _slope(flows[flows >= total / 4], values[flows >= total / 4]),
        early=float(np.median(early)),
        late=float(np.median(late)),
        allowed=allowed,
    )


def _series(part: str, what: str, samples: Sequence[Sample]) -> tuple[Array, Array]:
    found = [
        (sample.flows, sample.readings[part][what]) for sample in samples if part in sample.readings
    ]
    flows, values = np.array(found, np.float64).reshape(-1, 2).T
    return flows, values


def _slope(flows: Array, values: Array) -> float:
    """The median slope between all pairs (Theil and Sen)."""
    one, other = np.triu_indices(len(flows), 1)
    along = flows[other] - flows[one]
    apart = along > 0
    if not apart.any():
        return 0.0
    return float(np.median((values[other] - values[one])[apart] / along[apart]))


def grown(judged: Sequence[Row]) -> Iterator[str]:
    """What has grown, one sentence each."""
    for row in judged:
        if row.allowed is None:
            yield f"{row.part}: too few samples of {row.what} to judge it"
        elif not row.flat:
            yield (
                f"{row.part}: {row.what} grew from {row.early:.1f} to {row.late:.1f}, by "
                f"{row.late - row.early:.1f}, and {row.allowed:g} are allowed"
            )
