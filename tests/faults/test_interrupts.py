"""Ctrl-C at any moment: nothing hangs, nothing comes twice, and nothing leaks."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.daemons import Serve

EDGES = pytest.mark.parametrize("edge", [8, 96], ids=["copied", "leased"])


def interrupted(seed: int, times: int, edge: int, timeout: float) -> None:
    words = [sys.executable, "-m", "tests.faults.interrupted", str(seed), str(times), str(edge)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert not said["wrong"], said
    assert {"opening", "taking", "closing", "resetting"} & said["struck"].keys() >= {"taking"}
    assert said["skipped"] < sum(said["struck"].values()) / 10
    assert said["fds"] < 30, "descriptors were lost"


@EDGES
def test_a_trainer_that_is_interrupted_a_thousand_times_goes_on(serve: Serve, edge: int) -> None:
    with serve() as daemon:
        interrupted(1, 1000, edge, timeout=100)
        assert daemon.snapshot().restarts == 0


@pytest.mark.long
@pytest.mark.timeout(1800)
@EDGES
def test_a_trainer_that_is_interrupted_ten_thousand_times_goes_on(serve: Serve, edge: int) -> None:
    with serve() as daemon:
        interrupted(2, 10_000, edge, timeout=1700)
        assert daemon.snapshot().restarts == 0
