"""The benchmark of archives and tables measures all of them."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from scripts.benchmarks.sources import FOLDER, measure


def test_every_source_is_measured(photos: Path, tmp_path: Path) -> None:
    rates = measure(photos, tmp_path, Namespace(workers=2, runs=1, seconds=0.02, peers=False))
    assert next(iter(rates)) == FOLDER
    assert len(rates) == 10
    assert all(len(found) == 1 and min(found) > 0 for found in rates.values())
