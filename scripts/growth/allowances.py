"""How much each figure may grow from the second quarter of a run to its last.

They are for growth that is no leak: memory that an allocator keeps because its free parts lie
between used ones, a pool of threads that TensorFlow completes late, a table that doubles. None
depends on the number of flows. So a run of F flows finds what leaves more than allowance / (F / 2)
behind for each flow: with 5,000 flows 8 descriptors are one in 300 flows, 24 MiB are 10 KiB a flow.
"""

from __future__ import annotations

from collections.abc import Mapping

Allowance = Mapping[str, float]

TRAINER: Allowance = {
    "RSS": 24,
    "private": 24,
    "shared": 24,
    "descriptors": 8,
    "threads": 4,
    "maps": 64,
    "processes": 0.5,
}
SERVICE: Allowance = {
    "RSS": 6,
    "private": 4,
    "shared": 24,
    "descriptors": 8,
    "threads": 0.5,
    "maps": 32,
    "processes": 0.5,
}
DAEMON: Allowance = {"streams": 2, "rings": 24, "caches": 1}


def allowances(workers: int) -> dict[str, Allowance]:
    """All allowances, by part and figure.

    Args:
        workers: how many the daemon has: their figures are added up.
    """
    all_workers = {what: allowed * workers for what, allowed in SERVICE.items()}
    return {
        "flows": TRAINER,
        "augmented": TRAINER,
        "validated": TRAINER,
        "supervisor": SERVICE,
        "workers": all_workers,
        "fork server": SERVICE,
        "opener": SERVICE,
        "daemon": DAEMON,
    }
