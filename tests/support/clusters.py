"""Clusters of several nodes on this machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import psutil

from tests.support.daemons import eventually, gone

STORE_BYTES = 80 * 2**20
"""Of each node's object store: little, so that a leak is seen."""


class Nodes:
    """A cluster whose head lends no CPU, and that may get and lose nodes."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self.address = str(cluster.address)

    def add(self, cpus: int = 1) -> Any:
        return self._cluster.add_node(num_cpus=cpus, object_store_memory=STORE_BYTES)

    def remove(self, node: Any) -> None:
        """Kills a node without a word."""
        self._cluster.remove_node(node, allow_graceful=False)


@contextlib.contextmanager
def cluster(nodes: int, cpus: int = 1) -> Iterator[Nodes]:
    """A head, and nodes with so many CPUs each; afterwards no process of it may be left."""
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="ldr-")
    before = set(psutil.Process().children(recursive=True))
    head = {"num_cpus": 0, "object_store_memory": STORE_BYTES, "include_dashboard": False}
    made: Any = Cluster(initialize_head=True, head_node_args={**head, "temp_dir": folder})
    try:
        there = Nodes(made)
        for _ in range(nodes):
            there.add(cpus)
        yield there
    finally:
        ours = set(psutil.Process().children(recursive=True)) - before
        made.shutdown()
        eventually(lambda: all(gone(one) for one in ours))
        shutil.rmtree(folder, ignore_errors=True)


def actors() -> list[psutil.Process]:
    """The processes of ours that any cluster of this machine runs, and their workers."""
    found = psutil.process_iter(["cmdline"])
    words = ("ray::WorkerHost", "loaderd-remote")
    return [
        one
        for one in found
        if any(word in " ".join(one.info["cmdline"] or ()) for word in words) and not gone(one)
    ]


os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
