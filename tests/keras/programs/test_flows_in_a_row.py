"""A new flow of an array in every step: each is opened on what the one before has left."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras.src.legacy.preprocessing.image import ImageDataGenerator as KerasGenerator

from loaderd.errors import NoRoom
from loaderd_client import ImageDataGenerator, Session
from loaderd_client.core.deadline import Deadline
from loaderd_client.core.spare_streams import KEPT
from tests.support.daemons import Daemon, eventually, kill_private, running

EDGE = 64
ROWS = 8
"""A batch of so many images is small, and yet too large to be copied without need."""


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """One entry for each connection that is made."""
    dialled: list[object] = []
    dial = Session._dial

    def counted(session: Session, timeout: float | None) -> Any:
        dialled.append(session)
        return dial(session, timeout)

    monkeypatch.setattr(Session, "_dial", counted)
    return dialled


def pictures(count: int = ROWS, seed: int = 1) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).random((count, EDGE, EDGE, 3), np.float32)


def flow(x: Any, **options: Any) -> Any:
    chosen: dict[str, Any] = {"batch_size": ROWS, "shuffle": False}
    return ImageDataGenerator().flow(x, **chosen | options)


def test_they_have_one_connection_and_their_own_images(
    daemon: Daemon, dialled: list[object]
) -> None:
    for seed in range(20):
        x = pictures(seed=seed)
        np.testing.assert_array_equal(next(flow(x)), x)
    assert len(dialled) == 1
    (stream,) = daemon.snapshot().streams
    assert stream.slots == 2


@pytest.mark.parametrize("count", [ROWS, 3 * ROWS], ids=["one batch", "three batches"])
def test_their_random_parameters_are_those_of_keras(
    daemon: Daemon, dialled: list[object], count: int
) -> None:
    x = pictures(count)
    options: dict[str, Any] = {"horizontal_flip": True, "vertical_flip": True}
    for seed in range(12):
        ours = ImageDataGenerator(**options).flow(x, batch_size=ROWS, seed=seed)
        keras = KerasGenerator(**options).flow(x, batch_size=ROWS, seed=seed)
        for _ in range(seed % 4):
            np.testing.assert_array_equal(next(ours), next(keras))
        del ours
    assert len(dialled) < 12


def test_a_batch_that_is_kept_stays_as_it_is(daemon: Daemon) -> None:
    kept = []
    for seed in range(10):
        x = pictures(3 * ROWS, seed)
        kept.append((next(flow(x)), x[:ROWS]))
    for images, x in kept:
        np.testing.assert_array_equal(images, x)


def test_one_that_is_dropped_while_batches_are_made_spoils_none_of_the_next(
    daemon: Daemon,
) -> None:
    generator = ImageDataGenerator(rotation_range=20, zoom_range=0.2)
    options: dict[str, Any] = {"batch_size": ROWS, "shuffle": False, "seed": 3}
    dropped, x = pictures(6 * ROWS, 1), pictures(6 * ROWS, 2)
    undisturbed = generator.flow(x, **options)
    expected = [next(undisturbed).copy() for _ in range(6)]
    for taken in range(40):
        other = generator.flow(dropped, **options)
        for _ in range(taken % 3):
            next(other)
        del other
        last = generator.flow(x, **options)
        for batch in expected:
            np.testing.assert_array_equal(next(last), batch)
        del last


def test_others_of_other_arrays_are_opened_besides(daemon: Daemon, dialled: list[object]) -> None:
    for _ in range(5):
        for edge in (8, 16, 32, 40):
            x = np.random.default_rng(edge).random((edge, edge, edge, 3), np.float32)
            np.testing.assert_array_equal(next(flow(x, batch_size=edge)), x)
    assert len(daemon.snapshot().streams) <= KEPT
    dialled.clear()
    for _ in range(5):  # an image and its mask
        for channels in (3, 1):
            x = pictures()[..., :channels]
            np.testing.assert_array_equal(next(flow(x)), x)
    assert len(dialled) <= KEPT


def test_others_of_as_many_bytes_have_all_of_their_images(daemon: Daemon) -> None:
    for x in (
        np.random.default_rng(1).random((8, 8, 8, 3), np.float32),
        np.random.default_rng(2).integers(0, 256, (32, 8, 8, 3), np.uint8),
        np.random.default_rng(3).integers(0, 256, (6, 3, 3, 1), np.uint8),
        np.random.default_rng(4).integers(0, 256, (7, 3, 3, 1), np.uint8),
        np.random.default_rng(5).integers(0, 256, (6, 3, 3, 1), np.uint8),
    ):
        batches = flow(x)
        assert len(batches) == -(-len(x) // ROWS)
        images = np.concatenate([next(batches) for _ in range(len(batches))])
        np.testing.assert_array_equal(images, x)
        del batches


def test_one_that_the_garbage_collector_finds_is_as_good_as_any(daemon: Daemon) -> None:
    for seed in range(4):
        x = pictures(seed=seed)
        knot: list[Any] = [flow(x)]
        np.testing.assert_array_equal(next(knot[0]), x)
        next(knot[0].index_generator)  # which holds the flow
        knot.append(knot)
        del knot
        gc.collect()
    assert len(daemon.snapshot().streams) == 1


def test_of_many_images_nothing_is_kept(daemon: Daemon) -> None:
    x = pictures(12 * ROWS)
    next(flow(x))
    eventually(lambda: not daemon.snapshot().streams)


def test_they_survive_the_end_of_the_daemon() -> None:
    x = pictures()
    with Session() as session:
        next(flow(x))
        kill_private(session)
        np.testing.assert_array_equal(next(flow(x)), x)


def test_one_that_is_closed_leaves_nothing(daemon: Daemon) -> None:
    one = flow(pictures())
    next(one)
    one.close()
    eventually(lambda: not daemon.snapshot().streams)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon that has room for the rings of two flows."""
    path = f"{tmp_path}/loaderd/default.sock"
    (tmp_path / "loaderd").mkdir(0o700)
    memory = 4 * (ROWS * EDGE * EDGE * 3 * 4 + 4096)
    words = ["loaderd", "serve", "--socket", path, "--workers=1", f"--memory={memory}"]
    with running(lambda tell: [*words, f"--ready-fd={tell}"], str(tmp_path)) as daemon:
        yield daemon


def test_what_they_leave_is_in_nobodys_way(small: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Deadline, "pause")  # nobody waits for room
    with Session(small.path):
        for one in (pictures(), pictures()[..., :1]):
            next(flow(one))
        large = np.random.default_rng(2).random((4, 128, 128, 3), np.float32)
        np.testing.assert_array_equal(next(flow(large, batch_size=4)), large)
        with pytest.raises(NoRoom):
            flow(np.zeros((8, 256, 256, 3), np.float32))


def test_a_forked_child_leaves_its_parents_connection_alone(daemon: Daemon) -> None:
    x = pictures()
    next(flow(x))
    child = os.fork()
    if child == 0:
        right = np.array_equal(next(flow(x + 1)), x + 1)
        os._exit(0 if right else 1)
    assert os.waitpid(child, 0)[1] == 0
    np.testing.assert_array_equal(next(flow(x)), x)


def test_a_child_does_not_keep_what_its_parent_gives_up(daemon: Daemon) -> None:
    next(flow(pictures()))
    hold, release = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(release)
        os.read(hold, 1)
        os._exit(0)
    try:
        for edge in range(8, 8 + KEPT):
            next(flow(np.zeros((4, edge, edge, 3))))
        eventually(lambda: len(daemon.snapshot().streams) == KEPT)
    finally:
        os.close(release)
        os.waitpid(child, 0)
        os.close(hold)


def test_sessions_that_are_left_open_keep_nothing_each(daemon: Daemon) -> None:
    sessions = []
    for edge in range(8, 20):
        sessions.append(Session(daemon.path))
        next(flow(np.zeros((4, edge, edge, 3))))
    eventually(lambda: len(daemon.snapshot().streams) <= KEPT)
    for session in sessions:
        session.close()


def test_of_a_session_that_is_closed_nothing_is_left(daemon: Daemon) -> None:
    with Session(daemon.path):
        next(flow(pictures()))
        assert len(daemon.snapshot().streams) == 1
    eventually(lambda: not daemon.snapshot().streams)
