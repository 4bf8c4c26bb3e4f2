"""A private daemon uses the CPUs of its trainer, not those of the thread that starts it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from loaderd.launch import cpus

two = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one CPU only")

WORKERS = """
import os
{before}
import loaderd_client
{after}
from loaderd.ipc import dial
with loaderd_client.connect() as session:
    print(dial.observe(session.path).workers_wanted)
    print(len(os.sched_getaffinity(session._private.pid)))
"""


def started(before: str = "", after: str = "", *words: str) -> list[str]:
    """How many workers are wanted, and on how many CPUs the daemon is."""
    program = WORKERS.format(before=before, after=after)
    done = subprocess.run(
        [*words, sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.split()


@two
def test_a_trainer_that_bound_its_thread_to_a_cpu_gets_workers_for_all() -> None:
    everything = str(len(os.sched_getaffinity(0)))
    bound = "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
    assert started(after=bound)[1] == everything


@two
def test_threads_count_that_use_others() -> None:
    everything = str(len(os.sched_getaffinity(0)))
    other = (
        "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start(); "
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
    )
    assert started(before=other)[1] == everything


def test_taskset_binds_the_daemon_too() -> None:
    one = str(min(os.sched_getaffinity(0)))
    assert started("", "", "taskset", "-c", one) == ["1", "1"]


def test_cpus_that_are_not_there_change_nothing() -> None:
    before = os.sched_getaffinity(0)
    cpus.use("999999")
    cpus.use("x")
    assert os.sched_getaffinity(0) == before
