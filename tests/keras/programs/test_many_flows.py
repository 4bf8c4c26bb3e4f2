"""Flows by the hundred in one program: nobody's ring, descriptor or process is in another's way."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from loaderd.errors import NoRoom
from loaderd.ipc.messages import IDLE_SECONDS
from loaderd_client import ImageDataGenerator, Session
from loaderd_client.core import open_streams
from tests.keras.programs.conftest import TOTAL, numbers
from tests.support.daemons import Daemon, eventually, running

BATCH_BYTES = 8 * 8 * 3 * 4
PAGES = 4096


def flow(folder: Path, **options: Any) -> Any:
    chosen: dict[str, Any] = {"target_size": (8, 8), "class_mode": None, "batch_size": 4, "seed": 3}
    return ImageDataGenerator().flow_from_directory(folder, **chosen | options)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_flows_that_are_kept_hold_no_ring_and_go_on_where_they_were(
    folder: Path, daemon: Daemon
) -> None:
    expected = [numbers(batch) for batch, _ in zip(flow(folder), range(2), strict=False)]
    kept, open_files = [], 0
    for count in range(90):
        kept.append(flow(folder))
        assert numbers(next(kept[-1])) == expected[0]
        if count == open_streams.KEPT + 2:
            open_files = descriptors()
    assert len(daemon.snapshot().streams) <= open_streams.KEPT + 1
    eventually(lambda: descriptors() <= open_files)  # a thread may just be opening one
    for one in kept:
        assert numbers(next(one)) == expected[1]


@pytest.mark.parametrize("pixels", [(6, 16, 16, 3), (6, 256, 256, 3)], ids=["small", "large"])
def test_flows_of_one_array_that_are_kept_hold_one_copy_and_no_descriptor(
    pixels: tuple[int, ...],
) -> None:
    x = np.random.default_rng(1).random(pixels, np.float32)
    kept, open_files = [], 0
    for count in range(40):
        kept.append(ImageDataGenerator().flow(x, batch_size=3, shuffle=False))
        np.testing.assert_array_equal(next(kept[-1]), x[:3])
        if count == open_streams.KEPT + 2:
            open_files = descriptors()
    eventually(lambda: descriptors() <= open_files)  # a thread may just be opening one
    idle = kept[: -open_streams.KEPT - 1]
    assert len({one.x.__array_interface__["data"][0] for one in idle}) == 1
    for one in kept:
        np.testing.assert_array_equal(next(one), x[3:])


def test_of_a_flow_of_one_batch_that_is_read_once_little_is_made(daemon: Daemon) -> None:
    x = np.random.default_rng(1).random((8, 16, 16, 3), np.float32)
    eventually(lambda: not any(stream.filling for stream in daemon.snapshot().streams))
    before = sum(worker.rows for worker in daemon.snapshot().workers)
    for count in range(1, 9):
        images = next(ImageDataGenerator().flow(x, batch_size=8, shuffle=False))
        np.testing.assert_array_equal(images, x)
        eventually(lambda: not any(stream.filling for stream in daemon.snapshot().streams))
        made = sum(worker.rows for worker in daemon.snapshot().workers) - before
        assert made <= 8 * count


def test_flows_of_an_array_that_was_changed_have_what_it_held_when_they_were_made() -> None:
    x = np.zeros((2, 16, 16, 3), np.float64)  # Keras makes a copy in its own dtype
    flows = []
    for value in range(3):
        x[:] = value
        flows.append(ImageDataGenerator().flow(x, batch_size=2, shuffle=False))
    x[:] = 9
    assert [next(one).max() for one in flows] == [0, 1, 2]
    again = ImageDataGenerator().flow(x, batch_size=2)
    for one in flows:
        one.close()
    assert next(again).max() == 9


def test_batches_that_are_kept_hold_no_descriptor() -> None:
    x = np.random.default_rng(1).random((1, 64, 64, 3), np.float32)
    kept, open_files = [], 0
    for count in range(40):
        kept.append(next(ImageDataGenerator().flow(x, batch_size=1)))
        if count == 5:
            gc.collect()
            open_files = descriptors()
    gc.collect()
    eventually(lambda: descriptors() <= open_files)
    assert all(np.array_equal(one, x) for one in kept)


def test_flows_that_are_dropped_start_no_process_and_leave_nothing(daemon: Daemon) -> None:
    x = np.random.default_rng(1).random((1, 16, 16, 3), np.float32)
    for _ in range(3):
        next(ImageDataGenerator().flow(x, batch_size=1))
    supervisor = psutil.Process(daemon.process.pid)
    processes = {one.pid for one in supervisor.children(recursive=True)}
    threads, open_files = psutil.Process().num_threads(), supervisor.num_fds()
    for _ in range(60):
        next(ImageDataGenerator().flow(x, batch_size=1))
    assert {one.pid for one in supervisor.children(recursive=True)} == processes
    eventually(lambda: psutil.Process().num_threads() <= threads)
    eventually(lambda: supervisor.num_fds() <= open_files)
    assert len(daemon.snapshot().streams) == 1


# -- little memory ---------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon that has room for five pages, as rings of tiny batches are."""
    words = ["loaderd", "serve", "--socket", f"{tmp_path}/loaderd/default.sock", "--workers=1"]
    (tmp_path / "loaderd").mkdir(0o700)
    with running(
        lambda tell: [*words, f"--memory={5 * PAGES}", f"--ready-fd={tell}"], str(tmp_path)
    ) as daemon:
        yield daemon


def test_kept_flows_give_way_where_there_is_little_memory(folder: Path, small: Daemon) -> None:
    with Session(small.path):
        kept = [flow(folder) for _ in range(8)]
        for turn in range(2):
            for one in kept:
                assert len(next(one)) == 4, turn


def test_a_batch_of_all_samples_needs_room_for_itself_and_one_that_is_held(
    folder: Path, small: Daemon
) -> None:
    with Session(small.path):
        edge = int(np.sqrt(2 * PAGES / (12 * TOTAL)))
        options: dict[str, Any] = {"batch_size": TOTAL, "shuffle": False}
        held = []
        for _ in range(3):
            held.append(next(flow(folder, target_size=(edge, edge), **options)))
            assert numbers(held[-1]) == list(range(TOTAL))
        with pytest.raises(NoRoom, match="--memory"):
            flow(folder, target_size=(64, 64), **options)


IDLER = """
import sys
from loaderd_client import Session
from tests.keras.programs.test_many_flows import flow
with Session(sys.argv[1]):
    held = flow(sys.argv[2])
    for _ in sys.stdin:
        print(len(next(held)), flush=True)
"""


def test_a_stream_that_another_process_leaves_idle_gives_its_room_up(
    folder: Path, small: Daemon
) -> None:
    words = [sys.executable, "-c", IDLER, small.path, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(words, text=True, **pipes) as idler, Session(small.path):  # type: ignore[call-overload]
        assert idler.stdin is not None
        assert idler.stdout is not None
        read = [line.strip() for line in _asked(idler, 1)]
        started = time.monotonic()
        assert len(next(flow(folder, target_size=(16, 16), batch_size=4))) == 4
        assert time.monotonic() - started < 4 * IDLE_SECONDS
        open_streams.close_idle()
        read += [line.strip() for line in _asked(idler, 2)]
        idler.stdin.close()
    assert [line for line in read if line == "4"] == ["4"] * 3


def _asked(idler: subprocess.Popen[str], times: int) -> Iterator[str]:
    """The idler's answers to so many requests."""
    assert idler.stdin is not None
    assert idler.stdout is not None
    for _ in range(times):
        idler.stdin.write("next\n")
        idler.stdin.flush()
        for line in iter(idler.stdout.readline, ""):
            if line.strip().isdigit():
                yield line
                break
