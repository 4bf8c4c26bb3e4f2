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
import tempfile
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
        self._result = folder / "result.json"
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
        self.start(folder, **job)
        return self.result()

    def start(self, folder: str, **job: Any) -> None:
        """Begins a training."""
        checkpoints = str(self._folder / folder)
        whole = Job(folder=checkpoints, result=str(self._result), **self._base, **job)
        assert self._process.stdin is not None
        print(json.dumps(whole._asdict()), file=self._process.stdin, flush=True)

    def result(self) -> Any:
        """What the training gave that was begun, or None if it was killed."""
        assert self._process.stdout is not None
        code = int(self._process.stdout.readline())
        assert code in (0, -signal.SIGKILL)
        return None if code else json.loads(self._result.read_text())

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
    with shared("--max-bad=5%") as daemon:
        yield daemon


@pytest.fixture
def trainer_on(
    daemon: Daemon, photos: Path, flawed: Path, tmp_path: Path
) -> Iterator[Callable[[str], Trainer]]:
    trainers: list[Trainer] = []

    def start(backend: str) -> Trainer:
        base = {"photos": str(photos), "flawed": str(flawed), "address": daemon.path}
        folder = tmp_path / f"trainer{len(trainers)}"
        folder.mkdir()
        trainers.append(Trainer(backend, folder, base))
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
    after_a_batch = {"sequence": "skip", "save_freq": 2, "fit": {"epochs": 3}}
    check(train, "batch", after_a_batch, {"kill_at": 7})
    in_a_save = {
        "sequence": "substitute in a flow",
        "save_freq": 3,
        "fit": {"epochs": 6, "initial_epoch": 2, "steps_per_epoch": 5},
    }
    check(train, "save", in_a_save, {"kill_in_save": 3})
    with_keras = {"sequence": "unshuffled", "save_freq": 0, "fit": {"epochs": 3}}
    check(train, "keras", with_keras, {"kill_at": 17})


@pytest.mark.timeout(300)
def test_two_trainers_that_share_a_dataset_and_were_killed_continue_at_the_same_batch(
    trainer_on: Callable[[str], Trainer], tmp_path: Path
) -> None:
    folder = str(tmp_path / "common")
    fit = {"save_freq": 2, "fit": {"epochs": 2}, "in_step": str(tmp_path / "in step")}
    jobs = [{"sequence": name, **fit} for name in ("first of two", "second of two")]
    trainers = [trainer_on(keras.config.backend()) for _ in jobs]

    def both(folder: str, **kill: Any) -> list[Any]:
        for train, job in zip(trainers, jobs, strict=True):
            train.start(folder, **job, **kill)
        return [train.result() for train in trainers]

    undisturbed = both(str(tmp_path / "undisturbed"))
    assert both(folder, kill_in_save=8) == [None, None]
    again = both(folder)
    for found, whole in zip(again, undisturbed, strict=True):
        assert found["batches"] == 10  # of 24, as the seventh save was after the fourteenth
        assert found["read"][-10:] == whole["read"][-10:]
    assert again[0]["weights"] == undisturbed[0]["weights"]


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("sequence", [name for name in SEQUENCES if name != "second of two"])
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_a_fit_may_be_killed_anywhere(
    trainer_on: Callable[[str], Trainer], backend: str, sequence: str
) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    train = trainer_on(backend)
    fits: list[dict[str, Any]] = [
        {"epochs": 3},
        {"epochs": 7, "initial_epoch": 3, "steps_per_epoch": 5},
        {"epochs": 3, "shuffle": False},
        {"epochs": 2, "steps_per_epoch": 50},
    ]
    together = [1] if backend == "torch" else [1, 1, 2]  # Keras allows no more there
    for number in range(8):  # 56 of each backend
        job = {
            "sequence": sequence,
            "save_freq": random.choice(["epoch", 1, 2, 3]),
            "fit": random.choice(fits),
            "steps_per_execution": random.choice(together),
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
    says = r"loaderd\.weights\.h5: .*differs: `on_error`.*: remove the file to begin anew$"
    with pytest.raises(StateError, match=says):
        fit(a_dataset(photos, on_error="skip"), BackupAndRestore(tmp_path), model=model)
    for one, other in zip(model.get_weights(), before, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.usefixtures("session")
def test_a_damaged_checkpoint_is_refused(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "loaderd.weights.h5").write_bytes(b"nothing")
    with pytest.raises(StateError, match=r"loaderd\.weights\.h5 is no checkpoint"):
        fit(a_dataset(photos), BackupAndRestore(tmp_path))


INSTEAD = (
    "begin anew with initial_epoch=0, or call x.load_state_dict(x.state_at(2, 0)) for the sequence "
    "x before `fit`, to begin with that epoch of it"
)


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "has no states of a loader"),
        ("{}", "has no states of a loader"),
        ("nothing", "has no states of a loader"),
        ('{"1": {}}', "epochs [1], and `fit` begins with epoch 2: set `initial_epoch` to one of"),
        ('{"2": {}}', ": `state` should be the dictionary that `state_dict()` gave, and is empty"),
        ('{"2": {"version": 7}}', ": `state` has version 7"),
    ],
)
def test_a_file_without_the_position_is_refused_with_what_to_do_instead(
    photos: Path, tmp_path: Path, text: str, says: str
) -> None:
    path = tmp_path / "loader.json"
    path.write_text(text)
    with pytest.raises(StateError) as refused:
        fit(a_dataset(photos), LoaderState(path), epochs=3, initial_epoch=2)
    assert str(refused.value).startswith(str(path))
    assert says in str(refused.value)
    assert str(refused.value).endswith(INSTEAD)


@pytest.mark.usefixtures("session")
def test_the_state_of_another_spec_is_refused_with_the_file_that_has_it(
    photos: Path, tmp_path: Path
) -> None:
    path = tmp_path / "loader.json"
    fit(a_dataset(photos), LoaderState(path), epochs=2)
    with pytest.raises(StateError, match=r"loader\.json: .*differs: `on_error`") as refused:
        fit(a_dataset(photos, on_error="skip"), LoaderState(path), epochs=3, initial_epoch=2)
    assert str(refused.value).endswith(f"remove the file, and {INSTEAD}")


def test_a_folder_is_no_file_for_positions(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=f"{tmp_path} is a folder: give a file in it"):
        LoaderState(tmp_path)


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


@pytest.mark.usefixtures("session")
def test_a_fit_after_the_first_epoch_needs_the_loaders_position(
    photos: Path, tmp_path: Path
) -> None:
    path = tmp_path / "loader.json"
    train = a_dataset(photos)
    with pytest.raises(StateError, match=r"epoch 2, and \S+loader\.json, .* is missing") as refused:
        fit(train, LoaderState(path), epochs=3, initial_epoch=2)
    assert "x.load_state_dict(x.state_at(2, 0))" in str(refused.value)
    train.load_state_dict(train.state_at(2, 0))  # as the text says
    fit(train, LoaderState(path), epochs=3, initial_epoch=2)
    assert json.loads(path.read_text()) == {"3": train.state_at(3, 0)}
    path.unlink()
    fit(train, LoaderState(path), epochs=4, initial_epoch=3)  # in the same program
    assert json.loads(path.read_text()) == {"4": train.state_at(4, 0)}
    path.write_text("[]")
    fit(a_dataset(photos), LoaderState(path), initial_epoch=0)  # as the text says too
    assert [*json.loads(path.read_text())] == ["1"]


@pytest.mark.usefixtures("session")
def test_of_the_trainers_that_share_a_dataset_the_first_saves_and_all_load(
    photos: Path, tmp_path: Path
) -> None:
    folder, path = tmp_path / "saved", tmp_path / "loader.json"

    def trained(index: int, epochs: int) -> Any:
        train = a_dataset(photos, batch_size=12, shard=(index, 2))
        backup = BackupAndRestore(folder, delete_checkpoint=index == 1)
        return fit(train, LoaderState(path), backup, epochs=epochs), train.state_dict()

    trained(1, 1)
    assert [*tmp_path.iterdir()] == []
    first, state = trained(0, 2)
    assert sorted(tmp_path.iterdir()) == [path, folder]
    saved = [file.read_bytes() for file in (path, folder / "loaderd.weights.h5")]
    second, other_state = trained(1, 3)
    assert (first.epoch, second.epoch) == ([0, 1], [2])
    assert other_state == state | {"epoch": 3}
    assert [file.read_bytes() for file in (path, folder / "loaderd.weights.h5")] == saved


@pytest.mark.usefixtures("session")
def test_all_trainers_take_part_in_saving_as_it_may_be_an_operation_of_all(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = a_model()
    saved: list[str] = []
    save = model.save_weights

    def noted(path: str, **how: Any) -> None:
        saved.append(path)
        save(path, **how)

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model.save_weights = noted
    for index in (0, 1):
        train = a_dataset(photos, batch_size=12, shard=(index, 2))
        fit(train, BackupAndRestore(tmp_path / "saved", 2), model=model, epochs=2)
    ours, others = saved[: len(saved) // 2], saved[len(saved) // 2 :]
    assert len(ours) == len(others) == 4
    assert {Path(one).parent for one in ours} == {tmp_path / "saved"}
    assert tmp_path / "saved" not in {Path(one).parent for one in others}
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("save_freq", [0, -1, True, "batch", 1.5])
def test_a_save_freq_that_is_none_is_refused(tmp_path: Path, save_freq: Any) -> None:
    with pytest.raises(InvalidArgument, match="save_freq"):
        BackupAndRestore(tmp_path, save_freq)
