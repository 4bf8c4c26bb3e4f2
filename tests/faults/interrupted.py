"""A trainer that is interrupted again and again, at random moments: run by test_interrupts.

Prints one line of JSON: how often it was interrupted in each phase, and what is wrong.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from loaderd_client import ImageDataGenerator

BATCHES = 40
LONGEST_S = {"opening": 0.1, "taking": 0.004, "resetting": 0.001, "closing": 0.001}
"""Of the times after which an interrupt strikes: some come early, some in the midst, some late."""


class Interrupter:
    """Runs actions, and strikes now and then while they run."""

    def __init__(self, seed: int, wanted: int) -> None:
        self.struck: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._wanted = wanted
        signal.signal(signal.SIGALRM, self._strike)

    @property
    def over(self) -> bool:
        return self.struck.total() >= self._wanted

    def _strike(self, *_: object) -> None:
        raise KeyboardInterrupt

    def run(self, phase: str, action: Callable[[], Any]) -> Any:
        """Until the action ends; in a notebook that is the same cell, run again."""
        while True:
            try:
                signal.setitimer(signal.ITIMER_REAL, self._random.uniform(1e-5, LONGEST_S[phase]))
                result = action()
                signal.setitimer(signal.ITIMER_REAL, 0)
                return result
            except KeyboardInterrupt:
                self.struck[phase] += 1
                signal.setitimer(signal.ITIMER_REAL, 0)


def flow(images: Any) -> Any:
    return ImageDataGenerator(rescale=0.5).flow(images, batch_size=2, shuffle=False)


def main(seed: int, wanted: int, edge: int) -> None:
    numbers = np.arange(2 * BATCHES, dtype=np.float32)
    images = numbers[:, None, None, None] * np.ones((1, edge, edge, 3))
    next(flow(images))  # what is imported is imported
    interrupter = Interrupter(seed, wanted)
    wrong: list[str] = []
    skipped = turn = 0
    iterator = interrupter.run("opening", lambda: flow(images))
    expected = 0
    while not interrupter.over and not wrong:
        turn += 1
        before = interrupter.struck.total()
        batch = interrupter.run("taking", lambda: next(iterator))  # noqa: B023
        number = int(batch[0, 0, 0, 0])
        missing = (number - expected) % BATCHES
        # A batch is lost if the interrupt strikes after ``next`` has returned it.
        if missing > interrupter.struck.total() - before or not (batch[1] == number + 0.5).all():
            wrong.append(f"batch {number} in place of {expected}")
        skipped += missing
        expected = (number + 1) % BATCHES
        if turn % 50 == 0:
            interrupter.run("resetting", iterator.reset)
            expected = 0
        if turn % 70 == 0:
            interrupter.run("closing", iterator.close)
            iterator = interrupter.run("opening", lambda: flow(images))
            expected = 0
    state = {
        "struck": interrupter.struck,
        "skipped": skipped,
        "wrong": wrong,
        "fds": len(os.listdir("/proc/self/fd")),
    }
    print(json.dumps(state))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
