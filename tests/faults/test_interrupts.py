"""Ctrl-C at any moment: nothing hangs, nothing comes twice, and nothing leaks."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.process.test_streams import Serve


def interrupted(seed: int, times: int, timeout: float) -> None:
    words = [sys.executable, "-m", "tests.faults.interrupted", str(seed), str(times)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert not said["wrong"], said
    assert {"opening", "taking", "closing", "resetting"} & said["struck"].keys() >= {"taking"}
    assert said["skipped"] < sum(said["struck"].values()) / 10
    assert said["fds"] < 60, "descriptors were lost"


def test_a_trainer_that_is_interrupted_a_thousand_times_goes_on(serve: Serve) -> None:
    with serve() as daemon:
        interrupted(seed=1, times=1000, timeout=100)
        assert daemon.snapshot().restarts == 0


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [2, 3])
def test_a_trainer_that_is_interrupted_ten_thousand_times_goes_on(serve: Serve, seed: int) -> None:
    with serve() as daemon:
        interrupted(seed, times=10_000, timeout=1700)
        assert daemon.snapshot().restarts == 0
