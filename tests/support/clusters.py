"""Clusters of several nodes on this machine."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.support.daemons import eventually, family, gone

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_AUTH_MODE"] = "disabled"  # whatever token this user has

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

    at_sigterm = signal.getsignal(signal.SIGTERM)  # which Ray replaces
    with a_folder() as folder:
        head = {"num_cpus": 0, "object_store_memory": STORE_BYTES, "include_dashboard": False}
        made: Any = Cluster(initialize_head=True, head_node_args={**head, "temp_dir": folder})
        try:
            there = Nodes(made)
            for _ in range(nodes):
                there.add(cpus)
            yield there
        finally:
            ours = [one for node in made.list_all_nodes() for one in processes_of(node)]
            made.shutdown()
            signal.signal(signal.SIGTERM, at_sigterm)
            eventually(lambda: all(gone(one) for one in ours))


@contextlib.contextmanager
def a_folder() -> Iterator[str]:
    """Where a cluster has its files, and notes its address in place of this machine's own."""
    folder = tempfile.mkdtemp(prefix="ldr-")
    os.mkdir(f"{folder}/ray")
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RAY_TMPDIR", folder)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def processes_of(node: Any) -> Iterator[psutil.Process]:
    """A node's own, and the workers that it has started."""
    for started in [one for kind in node.all_processes.values() for one in kind]:
        with contextlib.suppress(psutil.NoSuchProcess):
            yield from family(started.process.pid)


def actors() -> list[psutil.Process]:
    """The processes of ours that any cluster of this machine runs, and their workers."""
    found = psutil.process_iter(["cmdline"])
    words = ("ray::WorkerHost", "loaderd-remote")
    return [
        one
        for one in found
        if any(word in " ".join(one.info["cmdline"] or ()) for word in words) and not gone(one)
    ]


def stored_objects(address: str) -> int:
    """How many objects the stores of a cluster hold."""
    program = (
        "import ray; from ray._private.internal_api import memory_summary as summary;"
        f"ray.init({address!r}, log_to_driver=False, logging_level='error');"
        "print(summary(stats_only=True))"
    )
    words = [sys.executable, "-c", program]
    shown = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout
    return sum(map(int, re.findall(r"Plasma memory usage \d+ MiB, (\d+) objects", shown)))
