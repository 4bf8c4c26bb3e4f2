"""``LoaderMonitor`` in real fits: what it logs, and when it advises."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from loaderd_client import ImageDataGenerator, LoaderSequence, Session
from loaderd_client.callbacks import LoaderMonitor
from tests.keras.test_article import a_model


@pytest.fixture(autouse=True)
def session() -> Iterator[Session]:
    with Session() as session:
        yield session


class SlowStep(keras.callbacks.Callback):  # type: ignore[misc]
    """A training step that takes long."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        time.sleep(0.05)


def slow_image(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    time.sleep(0.06)
    return image


def a_flow(photos: Path, **generator: Any) -> LoaderSequence:
    return ImageDataGenerator(**generator).flow_from_directory(
        photos, target_size=(32, 32), batch_size=2, seed=1
    )


def test_a_slow_loader_is_seen_in_the_logs_and_advised_upon_once(
    photos: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    flow = a_flow(photos, preprocessing_function=slow_image)
    history = a_model().fit(flow, epochs=2, verbose=0, callbacks=[LoaderMonitor()]).history
    assert len(history["loader_wait"]) == len(history["images_per_second"]) == 2
    assert min(history["loader_wait"]) > 0.2  # what the ring holds came while Keras compiled
    assert max(history["loader_wait"]) <= 1
    assert history["images_per_second"][1] < 2 / 0.06 * 1.5  # two workers
    told = capfd.readouterr().err
    assert told.count("input-bound") == 1
    assert "HIGHLY input-bound" in told


def test_a_slow_step_is_none_of_the_loaders_and_gives_no_advice(
    photos: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    callbacks = [LoaderMonitor(), SlowStep()]
    history = a_model().fit(a_flow(photos), epochs=2, verbose=0, callbacks=callbacks).history
    assert max(history["loader_wait"]) < 0.2
    assert "input-bound" not in capfd.readouterr().err


def test_validation_counts_for_nothing(photos: Path) -> None:
    class SlowValidation(keras.callbacks.Callback):  # type: ignore[misc]
        def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
            time.sleep(0.05)

    alone = a_model().fit(a_flow(photos), verbose=0, epochs=2, callbacks=[LoaderMonitor()])
    beside = a_model().fit(
        a_flow(photos),
        validation_data=a_flow(photos),
        verbose=0,
        epochs=2,
        callbacks=[LoaderMonitor(), SlowValidation()],
    )
    rates = [one.history["images_per_second"][1] for one in (alone, beside)]
    assert rates[1] > rates[0] / 4  # 48 batches of validation would take 2.4 s


def test_loggers_behind_it_have_its_columns(photos: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    callbacks = [LoaderMonitor(advice=False), keras.callbacks.CSVLogger(str(log))]
    a_model().fit(a_flow(photos), verbose=0, callbacks=callbacks)
    with open(log) as file:
        (row,) = csv.DictReader(file)
    assert float(row["images_per_second"]) > 0
    assert 0 <= float(row["loader_wait"]) <= 1


def test_a_fit_of_other_data_is_refused() -> None:
    with pytest.raises(ValueError, match="sequence or iterator of loaderd"):
        a_model().fit(np.zeros((8, 32, 32, 3)), np.zeros((8, 3)), callbacks=[LoaderMonitor()])
