"""Actors and nodes die, and a fit goes on with the same batches; nothing is left behind."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from loaderd_client import ImageDataGenerator
from loaderd_client.keras import reader
from scripts.faults import batch_log
from scripts.faults.history import judge_files
from tests.support.clusters import actors, cluster, stored_objects
from tests.support.daemons import Serve, eventually

pytestmark = pytest.mark.long

EPOCHS = 40


def a_model() -> Any:
    layers = [keras.layers.Conv2D(4, 5, strides=5), keras.layers.GlobalAveragePooling2D()]
    model = keras.Sequential([keras.Input((200, 240, 3)), *layers, keras.layers.Dense(3)])
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
    return model


def fit(photos: Path, log: Path, *callbacks: keras.callbacks.Callback) -> list[float]:
    """Trains on the photos; returns the losses."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "new_observer", lambda: batch_log.History(str(log)).note)
        keras.utils.set_random_seed(3)
        flow = ImageDataGenerator(rotation_range=20, rescale=1 / 255).flow_from_directory(
            str(photos), target_size=(200, 240), batch_size=8, seed=4
        )
        words = {"epochs": EPOCHS, "shuffle": False, "verbose": 0, "callbacks": list(callbacks)}
        history = a_model().fit(flow, **words).history
        return [float(loss) for loss in history["loss"]]


class Disturbance(keras.callbacks.Callback):  # type: ignore[misc]  # keras has no types
    """Calls a function once a second, with the number of the call."""

    def __init__(self, disturb: Callable[[int], object]) -> None:
        super().__init__()
        self.calls = 0
        self._disturb = disturb
        self._last = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if time.monotonic() - self._last >= 1:
            self._disturb(self.calls)
            self.calls += 1
            self._last = time.monotonic()


def kill_one(luck: random.Random) -> None:
    """Kills an actor, or the worker that it runs."""
    there = actors()
    if there:
        with contextlib.suppress(Exception):  # it has ended by itself
            luck.choice(there).kill()


@pytest.mark.timeout(300)
def test_actors_are_killed_every_second_and_a_node_once_in_a_fit(
    serve: Serve, photos: Path, tmp_path: Path
) -> None:
    with serve(1):
        losses = fit(photos, tmp_path / "alone")
    luck = random.Random(5)
    with cluster(nodes=1) as nodes:
        doomed = nodes.add()

        def disturb(call: int) -> None:
            if call == 4:
                nodes.remove(doomed)
            elif call == 6:
                nodes.add()
            else:
                kill_one(luck)

        with serve(1, f"--ray={nodes.address}", "--ray-workers=2:8") as daemon:
            ours = Disturbance(disturb)
            np.testing.assert_allclose(fit(photos, tmp_path / "ours", ours), losses)
            assert ours.calls > 7, "the fit was over before anything happened"
            assert sum(host.rows for host in daemon.snapshot().remote) > 50
            assert daemon.snapshot().restarts >= 2
            eventually(lambda: stored_objects(nodes.address) == 0)
        eventually(lambda: not actors())
        eventually(lambda: stored_objects(nodes.address) == 0)
    verdict = judge_files([str(tmp_path / "alone"), str(tmp_path / "ours")])
    assert verdict.findings == ()
    assert verdict.compared >= 12 * EPOCHS
