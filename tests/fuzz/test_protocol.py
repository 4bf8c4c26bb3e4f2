"""A million odd frames raise nothing in the supervisor, and cost a good client nothing."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from loaderd_client import Session
from tests.fuzz.frames import Descriptors
from tests.fuzz.peer import peers
from tests.process.test_given import descriptors
from tests.support.daemons import Serve, eventually
from tests.support.streams import a_spec, digest, run_of

SHORT = 5_000
LONG = 1_000_000


def fuzzed(frames: int, *words: str, seed: int = 1) -> str:
    """Runs the fuzzer; fails where it finds something."""
    program = [sys.executable, "-m", "tests.fuzz.protocol", f"--seed={seed}", f"--frames={frames}"]
    done = subprocess.run([*program, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_supervisor_survives_odd_frames() -> None:
    assert "FINDING" not in fuzzed(20_000)


def test_one_session_is_said_again() -> None:
    assert "1 streams" in fuzzed(1_000, "--session=s0")
    assert "0 streams" in fuzzed(1_000, "--session=7")


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [1, 2])
def test_the_supervisor_survives_a_million_odd_frames(seed: int) -> None:
    assert "FINDING" not in fuzzed(LONG, seed=seed)


def test_a_good_client_beside_it_is_undisturbed(serve: Serve, photos: Path) -> None:
    with serve(2, "--no-user-code") as daemon, Session(daemon.path) as session:
        eventually(lambda: len(daemon.workers()) == 2)
        expected = [digest(batch) for batch in run_of(session.open(a_spec(photos), slots=4))]
        before = descriptors(daemon)
        enough = threading.Event()
        sent: list[int] = []
        thread = threading.Thread(target=misbehave, args=(daemon.path, photos, enough, sent))
        thread.start()
        try:
            found = [digest(batch) for batch in run_of(session.open(a_spec(photos), slots=4))]
        finally:
            enough.set()
            thread.join()
        assert found == expected
        assert sum(sent) >= SHORT
        eventually(lambda: descriptors(daemon) <= before)
        log = daemon.log
    assert "Traceback" not in log
    assert " ERROR " not in log


def misbehave(path: str, photos: Path, enough: threading.Event, sent: list[int]) -> None:
    """Until there were enough frames, and the good client is done."""
    with Descriptors(photos) as fds:
        crowd = peers(path, 1, fds)
        while not enough.is_set() or sum(peer.sent for peer in crowd) < SHORT:
            for peer in crowd:
                peer.step()
        for peer in crowd:
            peer.close()
        sent += [peer.sent for peer in crowd]
