"""Read again, undisturbed, the batches that trainers got: all epochs, or as many as time allows.

usage: python -m scripts.faults.reference DATA SECONDS LOG LOG

The logs are the trainers', in the order of ``flows.WHICH``; this one's own is
``LOADERD_HISTORY``. First come the first and the last epochs of every spec, then others at
random.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
import time
from collections.abc import Iterator

import msgspec

from loaderd.ipc.bundle import Bundle, Parts
from loaderd.ipc.prefetch import UNKNOWN, Run
from loaderd.spec.spec import Spec
from loaderd_client import connect
from loaderd_client.core.session import Session
from scripts.faults import flows
from scripts.faults.batch_log import VARIABLE, History
from scripts.faults.history import Line


def epochs_of(log: str) -> int:
    """How many epochs a trainer has begun."""
    with open(log, "rb") as file:
        whole = (text for text in file if text.endswith(b"\n"))
        return max((msgspec.json.decode(text, type=Line).epoch + 1 for text in whole), default=0)


def order(epochs: int) -> list[int]:
    """The first, the last, and the others at random."""
    ends = [epoch for epoch in dict.fromkeys((0, epochs - 1)) if epoch >= 0]
    others = list(range(1, epochs - 1))
    random.Random(epochs).shuffle(others)
    return [*ends, *others]


def specs(which: str, data: str) -> Iterator[tuple[Spec, Parts]]:
    """The specs of a trainer, each with the parts of its bundle."""
    for flow in flows.of(which, data):
        if flow is not None:
            yield flow._supply.spec, flow._supply.parts
            flow.close()


def read(session: Session, spec: Spec, parts: Parts, epoch: int) -> None:
    """One epoch, as a stream of its own."""
    history = History(os.environ[VARIABLE])
    stream = session.open(spec, 12, Run((epoch, 0), UNKNOWN), [Bundle(parts)])
    try:
        for position in range(stream.batches):
            batch = stream.take((epoch, position))
            history.note(batch, spec, parts, stream.batches)
    finally:
        stream.close()


def main() -> None:
    """Read the epochs of all trainers in turn, until the time is over."""
    data, seconds, *logs = sys.argv[1:]
    end = time.monotonic() + float(seconds)
    flows.without_keras()
    with connect("auto") as session:
        turns = [
            [(spec, parts, epoch) for epoch in order(epochs_of(log))]
            for which, log in zip(flows.WHICH, logs, strict=True)
            for spec, parts in specs(which, data)
        ]
        for turn in itertools.zip_longest(*turns):
            for spec, parts, epoch in filter(None, turn):
                if time.monotonic() < end:
                    read(session, spec, parts, epoch)


if __name__ == "__main__":
    main()
