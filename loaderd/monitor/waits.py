"""Quantiles of counted waits."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from loaderd.ipc.snapshot import WAIT_BOUNDS_S


def quantiles(counts: Sequence[int], shares: Sequence[float]) -> list[float] | None:
    """Waits that shares of all batches did not exceed.

    Within a bucket waits are taken as evenly spread, as Prometheus's ``histogram_quantile`` does;
    those of the last bucket, which has no bound, as its lower one.

    Args:
        counts: batches by their waits, in the buckets of ``WAIT_BOUNDS_S``.
        shares: from 0 to 1, such as 0.95.

    Returns:
        Seconds, for each share; None if there are no batches.
    """
    total = sum(counts)
    return [_quantile(counts, share * total) for share in shares] if total else None


def _quantile(counts: Sequence[int], rank: float) -> float:
    lower = 0.0
    for bound, count, upto in zip(WAIT_BOUNDS_S, counts, accumulate(counts), strict=False):
        if count and upto >= rank:
            return lower + (bound - lower) * max(0.0, rank - (upto - count)) / count
        lower = bound
    return lower


def grown(now: Sequence[int], before: Sequence[int]) -> list[int]:
    """The batches that came since; all of them if the counts do not belong together."""
    if len(now) != len(before):
        return list(now)
    return [max(0, later - earlier) for later, earlier in zip(now, before, strict=True)]
