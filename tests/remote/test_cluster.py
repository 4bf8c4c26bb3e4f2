"""Workers on the nodes of a cluster: the same bytes, whoever makes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from loaderd_client import Session
from tests.support.clusters import Nodes, actors, cluster
from tests.support.daemons import Daemon, Serve, eventually
from tests.support.streams import a_spec, check_epochs, digest, run_of, slow


@pytest.fixture(scope="module")
def three_nodes() -> Iterator[Nodes]:
    with cluster(nodes=2) as there:
        yield there


def epochs(daemon: Daemon, photos: Path) -> list[str]:
    """The digests of two epochs."""
    with Session(daemon.path) as session:
        stream = session.open(slow(a_spec(photos)), slots=6)
        batches = list(run_of(stream))
        check_epochs([batch.ids for batch in batches], 96, stream.batches)
        return [digest(batch) for batch in batches]


def test_the_bytes_are_the_same_with_workers_on_other_nodes(
    serve: Serve, photos: Path, three_nodes: Nodes
) -> None:
    with serve(1) as alone:
        expected = epochs(alone, photos)
    with serve(1, f"--ray={three_nodes.address}", "--ray-workers=2:8") as daemon:
        assert epochs(daemon, photos) == expected
        (host,) = daemon.snapshot().remote
        assert host.workers == 2
        assert host.rows > 0
        assert host.crossed > host.rows * 500 * 600 * 3 * 4
        assert daemon.snapshot().restarts == 0
    eventually(lambda: not actors())
