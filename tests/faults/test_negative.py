"""Tests of the tests: with a fault planted in loaderd, they must fail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import defects

ROOT = Path(__file__).parents[2]

JUDGES = {
    "early": ["tests/faults/test_workers.py", "-k", "never_writes_when_it_goes_on"],
    "attempt": ["tests/supervisor/test_scheduler.py", "-k", "Histories"],
    "lease": ["tests/client/test_lease.py"],
    "gap": ["tests/supervisor/test_scheduler.py", "-k", "Histories"],
    "lost": ["tests/supervisor/test_scheduler.py", "-k", "Histories"],
}


def suite(words: list[str], defect: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, defects.VARIABLE: defect}
    plain = ["-q", "-x", "-p", "tests.faults.defects", "-p", "no:cacheprovider"]
    seed = ["--hypothesis-seed=2"]  # of the histories: one in five misses a fault
    return subprocess.run(
        [sys.executable, "-m", "pytest", *plain, *seed, *words],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.mark.parametrize("defect", JUDGES)
def test_the_suite_fails_with_a_planted_fault_and_not_without(defect: str) -> None:
    healthy = suite(JUDGES[defect], "")
    assert healthy.returncode == 0, healthy.stdout
    planted = suite(JUDGES[defect], defect)
    assert planted.returncode == 1, planted.stdout
    assert " failed" in planted.stdout.splitlines()[-1]
    assert "error" not in planted.stdout.splitlines()[-1]
    assert "Timeout" not in planted.stdout
