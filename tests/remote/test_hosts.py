"""Hosts with a link between them: one is cut off in the middle of an epoch, and comes back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from loaderd_client import Session
from tests.support.clusters import actors
from tests.support.daemons import Daemon, Serve, eventually, running
from tests.support.hosts import Hosts, hosts, may_make_hosts
from tests.support.streams import a_spec, digest, run_of, slow

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not may_make_hosts(), reason="needs the right to make network namespaces"),
]

EPOCHS = 8


@pytest.fixture
def three_hosts() -> Iterator[Hosts]:
    with hosts(3) as there:
        yield there


def remote_workers(daemon: Daemon) -> int:
    return sum(host.workers for host in daemon.snapshot().remote)


def test_a_host_that_is_cut_off_costs_a_chunk_and_comes_back(
    serve: Serve, photos: Path, runtime: str, three_hosts: Hosts
) -> None:
    spec = slow(a_spec(photos))
    with serve(1) as alone, Session(alone.path) as session:
        expected = [digest(batch) for batch in run_of(session.open(spec, slots=4), EPOCHS)]

    def words(tell: int) -> list[str]:
        flags = [f"--ray={three_hosts.address}", "--ray-workers=2:4", "--workers=1"]
        return ["loaderd", "serve", *flags, f"--ready-fd={tell}"]

    with running(words, runtime, three_hosts.inside(0)) as daemon:
        with Session(daemon.path) as session:
            read = run_of(session.open(spec, slots=4), EPOCHS)
            found = [digest(next(read)) for _ in range(6)]
            three_hosts.cut(1)
            found += [digest(next(read)) for _ in range(24)]
            eventually(lambda: remote_workers(daemon) == 1)
            three_hosts.join(1)
            found += [digest(batch) for batch in read]
        assert found == expected
        assert daemon.snapshot().streams == ()
        eventually(lambda: remote_workers(daemon) == 2, 60)
    eventually(lambda: not actors())
    assert not os.path.exists(f"{runtime}/loaderd/default.sock")
