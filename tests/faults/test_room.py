"""Too little of everything: shared memory, --memory, address space, disk."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from loaderd.errors import BadImage, NoRoom
from loaderd_client import Session
from tests.support.daemons import Serve
from tests.support.streams import a_spec, read_all, run_of

SMALL = "mount -t tmpfs -o size=64m tmpfs /dev/shm && exec "


def may_mount() -> bool:
    done = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    return done.returncode == 0


@pytest.mark.skipif(not may_mount(), reason="needs the right to mount")
def test_in_a_container_with_64_mib_a_ring_that_does_not_fit_is_refused_and_smaller_ones_work(
    photos: Path,
) -> None:
    script = f"{SMALL}{sys.executable} -m tests.faults.small_shm {photos}"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stderr
    found, refused, *_ = [line for line in done.stdout.splitlines() if "belonging" not in line] + [
        ""
    ]
    assert "refused:" in found
    assert "shm-size" in found
    assert "batch_size" in found
    assert refused == "fits: 96"
    assert "fits too: 96" in done.stdout


@pytest.mark.skipif(not may_mount(), reason="needs the right to mount")
@pytest.mark.parametrize("kind", ["started", "private"])
@pytest.mark.parametrize("held", [1, 2])
def test_a_ring_of_more_than_half_of_all_shared_memory_comes_back_with_its_daemon(
    photos: Path, kind: str, held: int
) -> None:
    small = SMALL.replace("64m", "60m")  # for the four slots of one and one of another, not two
    script = f"{small}{sys.executable} -m tests.faults.large_ring {photos} {kind} {held}"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "the rest is the same\n"


def test_workers_without_address_space_are_an_error_that_says_so(
    serve: Serve, photos: Path
) -> None:
    with serve(workers=2) as daemon, Session(daemon.path) as session:
        for pid in daemon.workers():
            used = psutil.Process(pid).memory_info().vms
            resource.prlimit(pid, resource.RLIMIT_AS, (used + 2**16, used + 2**16))
        stream = session.open(a_spec(photos), slots=6)
        with pytest.raises(NoRoom, match="address space"):
            list(run_of(stream))
        for pid in daemon.workers():
            os.kill(pid, 9)
        assert len(read_all(daemon.path, a_spec(photos))) == 24


def test_a_picture_of_too_many_pixels_is_named_with_the_option(serve: Serve, photos: Path) -> None:
    with serve(1, "--max-pixels=3000") as daemon, Session(daemon.path) as session:
        stream = session.open(a_spec(photos), slots=4)
        with pytest.raises(BadImage, match=r"\.jpg: .*pixels.*--max-pixels"):
            list(run_of(stream))
