"""How fast batches come while workers are killed, against undisturbed, in turns of one run."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator
from typing import NamedTuple

from loaderd.ipc.prefetch import Place
from loaderd.spec.load import Load
from loaderd.spec.operations import GeneratorFlip, GeneratorRescaling, RandomAffine
from loaderd.spec.output import Batching, Order, Output
from loaderd.spec.source import Directory
from loaderd.spec.spec import Spec
from loaderd_client.core.session import Session
from loaderd_client.core.stream import Stream
from scripts.faults.storm import DEADLY, Storm

SLOTS = 6
SHARE = 0.3
"""Share of a run's time for all rounds."""
ROUNDS = 9
MAX_SECONDS = 3.0
"""Seconds of one half of a round, at most."""


class Round(NamedTuple):
    """Images per second."""

    undisturbed: float
    storm: float

    @property
    def ratio(self) -> float:
        """Throughput under kills, as a share of the undisturbed one."""
        return self.storm / self.undisturbed


class Pace(NamedTuple):
    """All rounds."""

    rounds: list[Round]

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios."""
        return statistics.median(one.ratio for one in self.rounds)

    def __str__(self) -> str:
        ratios = [one.ratio for one in self.rounds]
        return f"{self.ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})"

    @property
    def undisturbed(self) -> float:
        """Images per second, in the median."""
        return statistics.median(one.undisturbed for one in self.rounds)


def half(seconds: float) -> float:
    """How long each half of a round lasts in a run of ``seconds``."""
    return min(MAX_SECONDS, SHARE * seconds / (2 * ROUNDS))


def measure(path: str, data: str, storm: Storm, seconds: float) -> Iterator[Round]:
    """Measures, in a share of ``seconds``; yields every round when it is over."""
    turn = half(seconds)
    with Session(path) as session:
        stream = session.open(a_spec(data), SLOTS)
        places = (divmod(number, stream.batches) for number in itertools.count())
        _rate(stream, places, min(1.0, turn))  # what is new costs more
        for _ in range(ROUNDS):
            with storm.raging({}):
                undisturbed = _rate(stream, places, turn)
            with storm.raging(DEADLY):
                yield Round(undisturbed, _rate(stream, places, turn))


def _rate(stream: Stream, places: Iterator[Place], seconds: float) -> float:
    """Images per second: what was made ahead before is used up first."""
    for _ in range(SLOTS):
        stream.take(next(places))
    begin, images = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        images += len(stream.take(next(places)).images)
    return images / (time.perf_counter() - begin)


def a_spec(data: str) -> Spec:
    """What the reader reads."""
    return Spec(
        source=Directory(directory=data, extensions=(".jpg",)),
        load=Load(target_size=(150, 150)),
        transforms=(
            RandomAffine(
                rotation_range=20.0,
                width_shift_range=0.2,
                height_shift_range=0.2,
                shear_range=0.2,
                zoom_range=(0.8, 1.2),
            ),
            GeneratorFlip(horizontal=True),
            GeneratorRescaling(scale=1 / 255),
        ),
        output=Output(),
        batch=Batching(batch_size=16),
        order=Order(shuffle=True, seed=5, draws="batch"),
    )
