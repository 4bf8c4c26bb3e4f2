"""The benchmark of the supervisor runs, and counts."""

from __future__ import annotations

from scripts.benchmarks.coordination import measure


def test_what_a_chunk_costs_the_supervisor_is_measured() -> None:
    cost = measure(workers=2, row_us=100, pace_ms=0, seconds=0.3)
    assert cost.rows >= 1
    assert cost.chunks_s > 0
    assert cost.chunk_us > 0
