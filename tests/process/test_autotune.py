"""A daemon with ``--workers auto`` under trainers of all speeds."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest

from loaderd.supervisor.autotune import CALM_SECONDS
from loaderd_client import Session
from tests.support.daemons import shared
from tests.support.streams import a_spec


@pytest.mark.long
def test_a_worker_is_given_up_under_a_slow_trainer_and_comes_back(photos: Path) -> None:
    with shared("--workers=auto") as daemon, Session(daemon.path) as session:
        most = daemon.snapshot().workers_most
        if most < 2:
            pytest.skip("one CPU alone may be used")
        stream, number = session.open(a_spec(photos), slots=6), itertools.count()

        def train_until_wanted(count: int, pause: float) -> None:
            end = time.monotonic() + 4 * CALM_SECONDS
            while daemon.snapshot().workers_wanted != count:
                assert time.monotonic() < end
                stream.take(divmod(next(number), stream.batches))
                time.sleep(pause)

        train_until_wanted(most - 1, 0.1)
        assert "rings stay full" in daemon.log
        train_until_wanted(most, 0.0)
        assert "as a trainer waits" in daemon.log
