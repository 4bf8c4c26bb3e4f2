"""``scripts/bench steps``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_the_steps_of_a_sample_are_timed_for_every_kind_of_work(photos: Path) -> None:
    words = [sys.executable, "-m", "scripts.benchmarks", "steps", f"--data={photos}", "--batches=1"]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    rows = [line.split("│")[1:-1] for line in done.stdout.splitlines() if line.startswith("│")]
    kinds = ["plain", "bytes", "augment", "fast", "scaled", "bilinear, 224"]
    assert [row[0].strip() for row in rows] == kinds
    assert all(float(step) >= 0 for row in rows for step in row[1:-1])
