"""What worker processes may not do, and whom the kernel ends first."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import psutil
import pytest

from loaderd.child.init import MAX_DESCRIPTORS
from tests.support.daemons import Serve


def status(pid: int, field: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(f"{field}:"))


def test_workers_gain_no_privileges_and_leave_no_core(serve: Serve) -> None:
    with serve(workers=1) as daemon:
        (pid,) = daemon.workers()
        assert status(pid, "NoNewPrivs") == "1"
        assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)
        assert resource.prlimit(pid, resource.RLIMIT_NOFILE)[1] <= MAX_DESCRIPTORS


def test_workers_have_as_much_memory_of_their_own_as_they_were_given(serve: Serve) -> None:
    with serve(1, "--worker-memory=300M") as daemon:
        (pid,) = daemon.workers()
        soft, hard = resource.prlimit(pid, resource.RLIMIT_DATA)
        used = int(status(pid, "VmData")) * 1024
        assert soft == hard
        assert 300 * 2**20 - 2**26 <= soft - used <= 300 * 2**20 + 2**26


def test_when_memory_is_short_workers_go_before_the_daemon(serve: Serve) -> None:
    with serve(workers=1) as daemon:
        (pid,) = daemon.workers()
        score = Path(f"/proc/{pid}/oom_score_adj").read_text().strip()
        if not os.access(f"/proc/{pid}/oom_score_adj", os.W_OK):
            pytest.skip("the score cannot be set here")
        assert score == "1000"
        own = Path(f"/proc/{daemon.process.pid}/oom_score_adj").read_text().strip()
        assert int(own) < 1000


def test_a_workers_limits_do_not_bind_the_daemon(serve: Serve) -> None:
    with serve(1, "--worker-memory=300M") as daemon:
        limit = resource.prlimit(daemon.process.pid, resource.RLIMIT_DATA)
        assert limit == resource.getrlimit(resource.RLIMIT_DATA)
        assert psutil.Process(daemon.process.pid).is_running()
