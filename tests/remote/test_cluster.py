"""Workers on the nodes of a cluster: the same bytes, whoever makes them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from loaderd_client import Session
from tests.support.clusters import Nodes, actors, cluster
from tests.support.daemons import Daemon, Serve, eventually, family
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


def test_workers_that_do_not_reach_the_images_stay_and_make_nothing(
    serve: Serve, photos: Path, three_nodes: Nodes
) -> None:
    # Found by a daemon, which works in the root folder; actors are where the nodes were started.
    there_alone = a_spec(Path(f"/proc/self/cwd{photos}"))
    with serve(1, f"--ray={three_nodes.address}", "--ray-workers=2:8") as daemon:
        with Session(daemon.path) as session:
            stream = session.open(there_alone, slots=6)
            check_epochs([batch.ids for batch in run_of(stream)], 96, stream.batches)
            eventually(lambda: "does not reach the images" in daemon.snapshot().remote[0].declined)
            (host,) = daemon.snapshot().remote
        assert (host.workers, host.rows) == (2, 0)
        assert daemon.snapshot().restarts == 0
    eventually(lambda: not actors())


@pytest.mark.long
def test_a_gateway_that_is_killed_is_replaced_and_no_batch_is_lost(
    serve: Serve, photos: Path, three_nodes: Nodes
) -> None:
    with serve(1) as alone:
        expected = epochs(alone, photos)
    with serve(1, f"--ray={three_nodes.address}", "--ray-workers=2:8") as daemon:
        with Session(daemon.path) as session:
            stream = session.open(slow(a_spec(photos)), slots=6)
            read = run_of(stream)
            found = [digest(next(read)) for _ in range(8)]
            (gateway,) = [one for one in family(daemon.process.pid) if "loaderd-ray" in words(one)]
            gateway.kill()
            found += [digest(batch) for batch in read]
        assert found == expected
        eventually(lambda: sum(host.workers for host in daemon.snapshot().remote) == 2)
        assert "the gateway to Ray has ended (-9); its children end with it" in daemon.log
        assert epochs(daemon, photos) == expected
    eventually(lambda: not actors())


@pytest.mark.long
def test_workers_come_with_a_node_and_go_with_it(
    serve: Serve, photos: Path, three_nodes: Nodes
) -> None:
    def there(daemon: Daemon) -> int:
        return sum(host.workers for host in daemon.snapshot().remote)

    with serve(1, f"--ray={three_nodes.address}", "--ray-workers=2:8") as daemon:
        node = three_nodes.add(2)
        eventually(lambda: there(daemon) == 4)
        three_nodes.remove(node)
        eventually(lambda: there(daemon) == 2, 60)
        assert daemon.snapshot().daemon.trouble == ""
    eventually(lambda: not actors())


@pytest.mark.long
def test_more_workers_than_the_cluster_has_cpus_for_are_an_error_at_the_start(
    runtime: str, three_nodes: Nodes
) -> None:
    flags = [f"--ray={three_nodes.address}", "--ray-workers=3:8", "--workers=1"]
    done = subprocess.run(
        [sys.executable, "-m", "loaderd", "serve", *flags],
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("loaderd: --ray-workers: 2 of 3 workers have joined within 25 s: ")


def words(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []
