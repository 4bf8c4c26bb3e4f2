"""The trainer that makes and drops flows.

usage: python -m scripts.growth.maker IMAGES SCRATCH FLOWS SECONDS KEPT

Every way of making a flow meets every way of using it, in an order in which any stretch has all
of both. For each use a line of JSON is appended to the file that ``LOADERD_HISTORY`` names.
"""

from __future__ import annotations

import faulthandler
import gc
import itertools
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from scripts.faults.batch_log import VARIABLE
from scripts.growth.sources import LARGE_NEW, MULTI_OUTPUT, NEW, SOURCES, Inputs
from scripts.growth.uses import FIT, PREDICT, TF_KEPT, TF_READ, USES, Keeper

LEFT_OUT = {
    *itertools.product([NEW, LARGE_NEW], [FIT, PREDICT, TF_KEPT, TF_READ]),
    *itertools.product([MULTI_OUTPUT], [FIT, PREDICT]),
}
"""TensorFlow keeps what it reads for ever, also Keras's own iterators with their arrays: new ones
would add up. And it refuses labels that are a list."""

stopped = threading.Event()


class Line(msgspec.Struct, frozen=True):
    """One use of a flow.

    Attributes:
        flows: how many were made so far.
        what: how the flow was made, and how it was used.
        seconds: how long that took.
        error: what went wrong; empty if nothing did.
    """

    flows: int
    what: str
    seconds: float
    error: str = ""


def combinations() -> Iterator[tuple[str, str]]:
    """All ways of making with all ways of using, endlessly; neighbours have neither in common."""
    sources, uses = list(SOURCES), list(USES)
    shift = math.lcm(len(sources), len(uses))
    for number in itertools.count():
        skew = number // shift  # where the two numbers have a divisor, else each pair comes again
        pair = sources[number % len(sources)], uses[(number + skew) % len(uses)]
        if pair not in LEFT_OUT:
            yield pair


class Maker:
    """Makes flows, and counts them."""

    def __init__(self, inputs: Inputs, keeper: Keeper) -> None:
        self.flows = 0
        self._inputs, self._keeper = inputs, keeper

    def use(self, source: str, use: str) -> Line:
        """One use of one flow, or of a few."""

        def make() -> Any:
            self.flows += 1
            return SOURCES[source](self._inputs)

        begin, error = time.monotonic(), ""
        try:
            USES[use](make, self._keeper)
        except Exception as caught:  # a finding; the next flow is made all the same
            error = f"{type(caught).__name__}: {caught}"
        return Line(self.flows, f"{source}; {use}", round(time.monotonic() - begin, 4), error)


def main() -> None:
    """Make flows at an even pace, and hold what is kept until SIGTERM."""
    images, scratch, *numbers = sys.argv[1:]
    flows, seconds, kept = int(numbers[0]), float(numbers[1]), int(numbers[2])
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    faulthandler.register(signal.SIGUSR1)  # where it is, if it hangs
    history = os.environ.pop(VARIABLE)  # its lines are of another sort than the sequences'
    keeper = Keeper(kept)
    keeper.model.count_params()  # Keras is loaded before the first flow
    maker, begin = Maker(Inputs(Path(images), Path(scratch)), keeper), time.monotonic()
    with open(history, "a", buffering=1) as log:
        for number, (source, use) in enumerate(combinations(), 1):
            log.write(json.dumps(msgspec.to_builtins(maker.use(source, use))) + "\n")
            if number % len(USES) == 0:
                gc.collect()  # what only a cycle holds goes now, and not at some time or other
            ahead = begin + maker.flows / flows * seconds - time.monotonic()
            if maker.flows >= flows or stopped.wait(max(0.0, ahead)):
                break
    stopped.wait()


if __name__ == "__main__":
    main()
