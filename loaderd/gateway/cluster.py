"""The cluster, through Ray: the only module that imports it."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import os
import socket
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loaderd.config import Settings
from loaderd.errors import NoCluster
from loaderd.remote.worker_host import WorkerHost

REACH_SECONDS = 5.0
"""The time that the head of a cluster has to take a connection."""

_WORK, _WATCH = "work", "watch"
_THREADS = {_WORK: 4, _WATCH: 1}
"""Calls that run at a time: two chunks and what else the worker is told; the pulse."""

_ENVIRONMENT = {
    "env_vars": {
        "RAY_max_direct_call_object_size": str(8 * 2**20),
        "RAY_task_rpc_inlined_bytes_limit": str(64 * 2**20),
    }
}
"""Of actors: answers of up to 8 MiB come with the call, and not by way of two object stores, which
takes three times as long for the rows of a usual chunk. Larger ones take that way."""


def _node() -> str:
    """The identity of the node that this runs on, which is an actor's."""
    ray = importlib.import_module("ray")
    return str(ray.get_runtime_context().get_node_id())


class Cluster:
    """A connection to the cluster as a driver of it.

    Args:
        address: ``auto`` for the cluster that this machine belongs to, or HOST:PORT of its head.

    Raises:
        NoCluster: there is none, or this machine does not belong to it.
    """

    def __init__(self, address: str) -> None:
        self._ray = ray = importlib.import_module("ray")
        if address != "auto":
            _reach(address)
        try:
            ray.init(
                address,
                namespace=f"loaderd-{os.getpid()}",
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except Exception as error:  # also those of Ray's own, as for a token that it wants
            why = "none runs here" if address == "auto" else str(error).strip().split("\n")[0]
            raise NoCluster(
                f"--ray {address}: no Ray cluster can be joined: {why}; run `ray start` on this "
                "machine, which must be one of the cluster"
            ) from error
        self.address = str(ray.get_runtime_context().gcs_address)
        self._refused: set[str] = set()
        self._actor = ray.remote(
            num_cpus=1, max_restarts=0, concurrency_groups=_THREADS, runtime_env=_ENVIRONMENT
        )(WorkerHost)

    def start(self, settings: Settings) -> Any:
        """An actor; it waits until the cluster has a CPU for it."""
        options: dict[str, Any] = {"scheduling_strategy": "SPREAD"}
        if self._refused:
            options["label_selector"] = {
                "ray.io/node-id": f"!in({','.join(sorted(self._refused))})"
            }
        return self._actor.options(**options).remote(settings, _node)

    def refuse(self, node: str) -> None:
        """Starts no further actor there."""
        self._refused.add(node)

    def call(self, actor: Any, method: str, *args: object) -> asyncio.Future[Any]:
        """Has an actor do something; arrays in the answer are read in place, and read-only.

        The future raises ``Lost`` if the actor has died, or cannot be reached.
        """
        group = _WATCH if method in ("pulse", "signal") else _WORK
        remote = getattr(actor, method).options(concurrency_group=group)
        return asyncio.wrap_future(remote.remote(*args).future())

    def put(self, data: NDArray[np.uint8]) -> Any:
        """A reference to a copy of the data in the cluster's memory, which lasts as long as it."""
        return self._ray.put(data)

    def kill(self, actor: Any) -> None:
        """Ends an actor."""
        with contextlib.suppress(Exception):  # it is dead, or the cluster is gone
            self._ray.kill(actor, no_restart=True)

    def leave(self) -> None:
        """Ends the connection, and all actors with it."""
        self._ray.shutdown()


def _reach(address: str) -> None:
    """Connects once, as Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), REACH_SECONDS).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise NoCluster(
            f"--ray {address}: nothing answers there: {reason}; give the HOST:PORT that `ray "
            "start --head` has printed, or auto"
        ) from error
