"""Planted bottlenecks: the limit is named within ten seconds, by a daemon that really has it.

They need a machine that does nothing else, so they are long proofs.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from loaderd.monitor.report import Report
from loaderd.monitor.window import WatchWindow
from loaderd_client import ImageDataGenerator, LoaderSequence, Session
from loaderd_client import augment as A
from loaderd_client import image_dataset_from_directory as from_directory
from tests.faults.disk import Disk
from tests.support.daemons import Daemon, Serve
from tests.support.photos import write_photo

pytestmark = pytest.mark.long

SECONDS = 10.0
"""Within which the limit must be named, once training goes on."""

SIZE = (160, 160)


class Scenario(NamedTuple):
    """A bottleneck.

    Attributes:
        limit: what must be named.
        make: the dataset, of a folder of photos.
        pause: seconds that a training step takes.
        workers: of the daemon.
        hogs: processes that do nothing but compute, beside it.
        burst: batches that are taken at once, before each pause.
        one_cpu: whether the daemon may use one CPU alone.
        cache: whether the first epoch fills a cache before.
    """

    limit: str
    make: Callable[[Path], LoaderSequence]
    pause: float = 0.0
    workers: int = 2
    hogs: int = 0
    burst: int = 1
    one_cpu: bool = False
    cache: bool = False


def sleeping(image: NDArray[np.float32]) -> NDArray[np.float32]:
    time.sleep(0.02)
    return image


def computing(image: NDArray[np.float32]) -> NDArray[np.float32]:
    for _ in range(20):
        image = np.sqrt(image * image + 1)
    return image


def plain(photos: Path, **options: Any) -> LoaderSequence:
    given: dict[str, Any] = {"image_size": SIZE, "batch_size": 8, "seed": 1, "verbose": False}
    sequence = from_directory(photos, **(given | options))
    assert isinstance(sequence, LoaderSequence)
    return sequence


def flow(photos: Path, **generator: Any) -> LoaderSequence:
    made = ImageDataGenerator(**generator)
    return made.flow_from_directory(photos, target_size=SIZE, batch_size=8, seed=1)


HEAVY = [A.RandAugment(4, 9), A.RandomRotation(0.2), A.RandomGaussianBlur(1.0, 9), A.AugMix()]

SCENARIOS = {
    "a slow training step": Scenario("trainer", plain, pause=0.2),
    "a training step in bursts that the workers keep up with": Scenario(
        "trainer", plain, pause=0.5, burst=4
    ),
    "one worker": Scenario("workers", plain, workers=1),
    "one worker, and a slow function": Scenario(
        "workers", lambda photos: flow(photos, preprocessing_function=sleeping), workers=1
    ),
    "decoding": Scenario("decode", plain),
    "decoding to a large size by a slow filter": Scenario(
        "decode", lambda photos: plain(photos, image_size=(600, 600), interpolation="lanczos3")
    ),
    "decoding of photos for small images": Scenario(
        "decode", lambda photos: plain(photos, image_size=(32, 32))
    ),
    "a sleeping function": Scenario(
        "function", lambda photos: flow(photos, preprocessing_function=sleeping)
    ),
    "a computing function": Scenario(
        "function", lambda photos: flow(photos, preprocessing_function=computing)
    ),
    "a function among operations": Scenario(
        "function", lambda photos: plain(photos, augment=[A.Function(sleeping)])
    ),
    "heavy augmentation": Scenario(
        "augment", lambda photos: plain(photos, augment=[*HEAVY, A.Resize(*SIZE)])
    ),
    "a warp behind a warm cache": Scenario(
        "augment",
        lambda photos: flow_cached(photos, rotation_range=30, shear_range=10, zoom_range=0.3),
        cache=True,
    ),
    "a cold cache": Scenario("cache", lambda photos: plain(photos, cache="disk"), cache=True),
    "a ring of two slots, and bursts": Scenario(
        "queue", lambda photos: plain(photos, max_queue_size=1), pause=0.15, burst=8
    ),
    "other programs": Scenario("cpu", plain, hogs=4),
    "many other programs": Scenario("cpu", plain, hogs=8),
    "one of the CPUs": Scenario("affinity", plain, workers=1, one_cpu=True),
}


def flow_cached(photos: Path, **generator: Any) -> LoaderSequence:
    made = ImageDataGenerator(**generator)
    return made.flow_from_directory(photos, target_size=SIZE, batch_size=8, seed=1, cache="memory")


@pytest.fixture(scope="module")
def large_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of 375 by 500 pixels, so that decoding is what takes time."""
    root = tmp_path_factory.mktemp("large")
    for number in range(2000):
        folder = root / f"class_{number % 4}"
        folder.mkdir(exist_ok=True)
        if number < 100:
            write_photo(folder / f"{number:04}.jpg", number, (375, 500))
        else:
            os.link(folder / f"{number % 100:04}.jpg", folder / f"{number:04}.jpg")
    return root


@contextlib.contextmanager
def hogs(count: int) -> Iterator[None]:
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for one in started:
            one.kill()
            one.wait()


def trained(sequence: LoaderSequence, scenario: Scenario) -> Iterator[None]:
    """Steps of a training."""
    while True:
        for _ in range(scenario.burst):
            next(sequence)
        time.sleep(scenario.pause)
        yield


def limits(daemon: Daemon, step: Iterator[None]) -> Iterator[Report]:
    """A report for each second of training."""
    window, due = WatchWindow(), time.monotonic()
    while True:
        next(step)
        if time.monotonic() >= due:
            due += 1.0
            yield window.add(daemon.snapshot())


def named(reports: Iterator[Report], limit: str) -> tuple[bool, list[Any]]:
    """Whether the limit was named in time, and all that were named."""
    seen: list[Any] = []
    begun = time.monotonic()
    while time.monotonic() - begun < SECONDS:
        verdict = next(reports).verdict
        seen.append((verdict.limit, round(verdict.waited_percent or 0)))
        if len(seen) > 3 and verdict.limit == limit:
            return True, seen
    return False, seen


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_limit_is_named(name: str, serve: Serve, large_photos: Path, tmp_path: Path) -> None:
    scenario = SCENARIOS[name]
    mine = psutil.Process().cpu_affinity()
    if scenario.one_cpu:
        psutil.Process().cpu_affinity(mine[:1])
    try:
        with serve(scenario.workers, f"--cache-dir={tmp_path}") as daemon:
            psutil.Process().cpu_affinity(mine)
            with Session(daemon.path), hogs(scenario.hogs):
                sequence = scenario.make(large_photos)
                if scenario.cache and scenario.limit != "cache":
                    for _ in range(len(sequence)):
                        next(sequence)
                step = trained(sequence, scenario)
                next(step)
                was_named, seen = named(limits(daemon, step), scenario.limit)
        assert was_named, seen
    finally:
        psutil.Process().cpu_affinity(mine)


def test_a_slow_disk_is_named(serve: Serve, large_photos: Path, tmp_path: Path) -> None:
    (tmp_path / "mounted").mkdir()
    with Disk(large_photos, tmp_path / "mounted") as disk, serve(2) as daemon:
        try:
            disk.delay(0.02)
            with Session(daemon.path):
                step = trained(plain(disk.path), Scenario("read", plain))
                next(step)
                was_named, seen = named(limits(daemon, step), "read")
            assert was_named, seen
        finally:
            disk.unmount()


def test_a_stream_that_nobody_reads_is_named(serve: Serve, large_photos: Path) -> None:
    with serve(2) as daemon, Session(daemon.path):
        sequence = plain(large_photos)
        next(sequence)
        step = iter(lambda: time.sleep(0.1), 1)
        was_named, seen = named(limits(daemon, step), "unread")
        assert was_named, seen


def test_a_slower_trainer_of_a_shared_stream_is_named(serve: Serve, large_photos: Path) -> None:
    with serve(2) as daemon, Session(daemon.path):
        words = [sys.executable, "-c", _SLOW, daemon.path, str(large_photos)]
        with subprocess.Popen(words) as slow:
            try:
                step = trained(plain(large_photos, share="epochs"), Scenario("partner", plain))
                next(step)
                was_named, seen = named(limits(daemon, step), "partner")
                assert was_named, seen
            finally:
                slow.kill()


_SLOW = """
import sys, time
from loaderd_client import Session, image_dataset_from_directory
with Session(sys.argv[1]):
    data = image_dataset_from_directory(
        sys.argv[2], image_size=(160, 160), batch_size=8, seed=1, verbose=False, share="epochs"
    )
    while True:
        next(data)
        time.sleep(0.5)
"""
