"""A ``fit`` that was killed, and is run again, ends with the weights of one that was not.

The fits run on the backend of Keras, and with ``--long`` on all that are installed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from loaderd.errors import InvalidArgument, StateError
from loaderd_client import Session, image_dataset_from_directory
from loaderd_client.callbacks import BackupAndRestore, LoaderState
from tests.support.daemons import Daemon, shared
from tests.support.trainer import SEQUENCES, SIZE, Job, a_model

ROOT = Path(__file__).parents[2]


class Trainer:
    """A process that trains; see ``tests/support/trainer.py``."""

    def __init__(self, backend: str, folder: Path, base: dict[str, Any]) -> None:
        self._folder = folder
        self._base = base
        self._undisturbed: dict[str, Any] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.trainer"],
            env=os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"},
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, folder: str, **job: Any) -> Any:
        """What a training gave, or None if it was killed."""
        result = self._folder / "result.json"
        checkpoints = str(self._folder / folder)
        whole = Job(folder=checkpoints, result=str(result), **self._base, **job)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(whole._asdict()), file=self._process.stdin, flush=True)
        code = int(self._process.stdout.readline())
        assert code in (0, -signal.SIGKILL)
        return None if code else json.loads(result.read_text())

    def undisturbed(self, job: dict[str, Any]) -> Any:
        """What a training gives that is not killed; it is the same for every ``save_freq``."""
        key = json.dumps(job | {"save_freq": bool(job["save_freq"])})
        if key not in self._undisturbed:
            self._undisturbed[key] = self(f"undisturbed-{len(self._undisturbed)}", **job)
        return self._undisturbed[key]

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with shared() as daemon:
        yield daemon


@pytest.fixture
def trainer_on(daemon: Daemon, photos: Path, tmp_path: Path) -> Iterator[Callable[[str], Trainer]]:
    trainers: list[Trainer] = []

    def start(backend: str) -> Trainer:
        base = {"photos": str(photos), "address": daemon.path}
        trainers.append(Trainer(backend, tmp_path, base))
        return trainers[-1]

    yield start
    for trainer in trainers:
        trainer.close()


def check(train: Trainer, name: str, job: dict[str, Any], kill: dict[str, int]) -> None:
    """The same training undisturbed, and killed and run again."""
    undisturbed = train.undisturbed(job)
    assert train(name, **job, **kill) is None
    again = train(name, **job)
    assert again["weights"] == undisturbed["weights"]
    assert again["iterations"] == undisturbed["iterations"]
    assert again["read"][-again["batches"] :] == undisturbed["read"][-again["batches"] :]
    first = undisturbed["epochs"].index(again["epochs"][0])
    assert again["epochs"] == undisturbed["epochs"][first:]
    assert again["loss"][1:] == undisturbed["loss"][first + 1 :]  # the first is of fewer batches


@pytest.mark.timeout(300)
def test_a_killed_fit_that_is_run_again_ends_with_the_same_weights(
    trainer_on: Callable[[str], Trainer],
) -> None:
    train = trainer_on(keras.config.backend())
    after_a_batch = {"sequence": "shuffled", "save_freq": 2, "fit": {"epochs": 3}}
    check(train, "batch", after_a_batch, {"kill_at": 7})
    fit = {"epochs": 6, "initial_epoch": 2, "steps_per_epoch": 5}
    check(train, "save", {"sequence": "flow", "save_freq": 3, "fit": fit}, {"kill_in_save": 3})
    with_keras = {"sequence": "unshuffled", "save_freq": 0, "fit": {"epochs": 3}}
    check(train, "keras", with_keras, {"kill_at": 17})


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_a_fit_may_be_killed_anywhere(trainer_on: Callable[[str], Trainer], backend: str) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    train = trainer_on(backend)
    fits: list[dict[str, Any]] = [
        {"epochs": 3},
        {"epochs": 7, "initial_epoch": 3, "steps_per_epoch": 5},
        {"epochs": 3, "shuffle": False},
        {"epochs": 2, "steps_per_epoch": 50},
    ]
    for number in range(50):
        job = {
            "sequence": random.choice([*SEQUENCES]),
            "save_freq": random.choice(["epoch", 1, 2, 3]),
            "fit": random.choice(fits),
            "steps_per_execution": random.choice([1, 1, 2]),
        }
        kill = random.choice([{"kill_in_save": 2}, {"kill_at": random.randrange(1, 17)}])
        print(backend, number, job, kill)  # shown if it fails
        check(train, f"{number}", job, kill)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_a_fit_may_be_killed_at_any_time(trainer_on: Callable[[str], Trainer]) -> None:
    train = trainer_on(keras.config.backend())
    job = {"sequence": "shuffled", "save_freq": 1, "fit": {"epochs": 6}}
    undisturbed, killed = train.undisturbed(job), 0
    for _ in range(20):
        found = None
        while found is None:  # killed again and again
            found = train("folder", **job, kill_after=random.uniform(0.3, 3.0))
            killed += found is None
        assert found["weights"] == undisturbed["weights"]
    assert killed


# -- in this process -------------------------------------------------------------------


@pytest.fixture
def session(daemon: Daemon) -> Iterator[Session]:
    with Session(daemon.path) as session:
        yield session


def a_dataset(photos: Path, **options: Any) -> Any:
    given: dict[str, Any] = {
        "image_size": SIZE,
        "batch_size": 24,
        "seed": 5,
        "verbose": False,
    } | options
    return image_dataset_from_directory(photos, **given)


def fit(x: Any, *callbacks: Any, model: Any = None, epochs: int = 1, **options: Any) -> Any:
    model = model or a_model()
    return model.fit(x, callbacks=[*callbacks], verbose=0, epochs=epochs, **options)


@pytest.mark.usefixtures("session")
def test_what_was_saved_is_removed_at_the_end_unless_it_is_to_be_kept(
    photos: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "saved"
    fit(a_dataset(photos), BackupAndRestore(folder))
    assert not folder.exists()
    model = a_model()
    keep = BackupAndRestore(folder, delete_checkpoint=False)
    fit(a_dataset(photos), keep, model=model, epochs=2)
    assert [path.name for path in folder.iterdir()] == ["loaderd.weights.h5"]
    again = fit(a_dataset(photos), BackupAndRestore(folder, delete_checkpoint=False), epochs=3)
    assert again.epoch == [2]
    assert fit(a_dataset(photos), model=model, epochs=2).epoch == [0, 1]
    other = a_model()
    other.load_weights(folder / "loaderd.weights.h5")
    for one, saved in zip(other.get_weights(), again.model.get_weights(), strict=True):
        assert np.array_equal(one, saved)


@pytest.mark.usefixtures("session")
def test_a_checkpoint_of_another_spec_is_refused_before_the_model_is_changed(
    photos: Path, tmp_path: Path
) -> None:
    fit(a_dataset(photos), BackupAndRestore(tmp_path, delete_checkpoint=False))
    model = a_model()
    before = model.get_weights()
    with pytest.raises(StateError, match="on_error"):
        fit(a_dataset(photos, on_error="skip"), BackupAndRestore(tmp_path), model=model)
    for one, other in zip(model.get_weights(), before, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.usefixtures("session")
def test_a_damaged_checkpoint_is_refused(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "loaderd.weights.h5").write_bytes(b"nothing")
    with pytest.raises(StateError, match=r"loaderd\.weights\.h5 is no checkpoint"):
        fit(a_dataset(photos), BackupAndRestore(tmp_path))
    (tmp_path / "loader.json").write_text("[]")
    with pytest.raises(StateError, match=r"loader\.json has no states"):
        fit(a_dataset(photos), LoaderState(tmp_path / "loader.json"), epochs=3, initial_epoch=2)


@pytest.mark.usefixtures("session")
def test_a_fit_that_cannot_be_resumed_is_refused_at_once(photos: Path, tmp_path: Path) -> None:
    unbuilt = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)])
    unbuilt.compile("sgd", "sparse_categorical_crossentropy")
    if keras.config.backend() == "tensorflow":  # others build it before they call callbacks
        with pytest.raises(InvalidArgument, match="built before `fit`"):
            fit(a_dataset(photos), BackupAndRestore(tmp_path), model=unbuilt)
    arrays = np.zeros((4, *SIZE, 3))
    for callback in (BackupAndRestore(tmp_path), LoaderState(tmp_path / "loader.json")):
        with pytest.raises(InvalidArgument, match="sequence or iterator of loaderd"):
            fit(arrays, callback, y=np.zeros(4))


@pytest.mark.usefixtures("session")
def test_positions_of_epochs_are_kept_for_any_initial_epoch(photos: Path, tmp_path: Path) -> None:
    path = tmp_path / "new" / "loader.json"
    train = a_dataset(photos)
    fit(train, LoaderState(path), epochs=3)
    assert [*json.loads(path.read_text())] == ["1", "2", "3"]
    again = a_dataset(photos)
    fit(again, LoaderState(path), epochs=3, initial_epoch=2)
    assert again.state_dict() == train.state_dict()
    with pytest.raises(StateError, match=r"epochs \[1, 2, 3\], and `fit` begins with epoch 5"):
        fit(a_dataset(photos), LoaderState(path), epochs=6, initial_epoch=5)
    fit(a_dataset(photos), LoaderState(path), epochs=1)
    assert [*json.loads(path.read_text())] == ["1"]


@pytest.mark.parametrize("save_freq", [0, -1, True, "batch", 1.5])
def test_a_save_freq_that_is_none_is_refused(tmp_path: Path, save_freq: Any) -> None:
    with pytest.raises(InvalidArgument, match="save_freq"):
        BackupAndRestore(tmp_path, save_freq)
