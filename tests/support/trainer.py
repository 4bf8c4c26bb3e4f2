"""A process that trains models in children, which may kill themselves at a given moment.

Each line on stdin is a ``Job`` as JSON; the answer on stdout is the child's exit code: -9 if it was
killed. Children are forked, so that the backend is imported once; JAX does not allow that.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from loaderd_client import ImageDataGenerator, Session, image_dataset_from_directory
from loaderd_client import augment as A
from loaderd_client.callbacks import BackupAndRestore, LoaderState
from loaderd_client.core import files

SIZE = (16, 16)


class Job(NamedTuple):
    """One training.

    Attributes:
        photos: the dataset.
        flawed: one with files that cannot be read.
        address: of a daemon.
        folder: for checkpoints.
        result: the file that gets what came of it, as JSON.
        sequence: a name in ``SEQUENCES``.
        save_freq: of ``BackupAndRestore``; 0 for ``LoaderState`` with Keras's callback, and a model
            without random layers, whose states that does not save.
        fit: further arguments of ``fit``.
        kill_at: the batch, counted over all epochs from 1, after which the trainer is killed.
        kill_in_save: the checkpoint, from 1, at which it is killed: before that is put in the place
            of the one before.
        kill_after: seconds of ``fit`` after which it is killed, whatever it does.
        steps_per_execution: of the model.
        in_step: a socket by which the two trainers that share a dataset begin each batch together.
    """

    photos: str
    flawed: str
    address: str
    folder: str
    result: str
    sequence: str
    save_freq: Any
    fit: dict[str, Any]
    kill_at: int = 0
    kill_in_save: int = 0
    kill_after: float = 0.0
    steps_per_execution: int = 1
    in_step: str = ""


def directory(photos: str, **options: Any) -> Any:
    given: dict[str, Any] = {"image_size": SIZE, "batch_size": 8, "seed": 5} | options
    return image_dataset_from_directory(photos, verbose=False, **given)


def flow(photos: str, **options: Any) -> Any:
    generator = ImageDataGenerator(rotation_range=30, horizontal_flip=True)
    return generator.flow_from_directory(
        photos, target_size=SIZE, batch_size=8, seed=5, class_mode="sparse", **options
    )


SEQUENCES: dict[str, Callable[[Job], Any]] = {
    "shuffled": lambda job: directory(job.photos),
    "unshuffled": lambda job: directory(job.photos, shuffle=False),
    "flow": lambda job: flow(job.photos),
    "mixed": lambda job: directory(
        job.photos, label_mode="categorical", augment=[A.RandomFlip(), A.MixUp()]
    ),
    "skip": lambda job: directory(job.flawed, on_error="skip"),
    "substitute in a flow": lambda job: flow(
        job.flawed, on_error="substitute", substitute_weight=0.5
    ),
    "first of two": lambda job: directory(job.photos, batch_size=4, shard=(0, 2)),
    "second of two": lambda job: directory(job.photos, batch_size=4, shard=(1, 2)),
}


class Killer(keras.callbacks.Callback):  # type: ignore[misc]  # keras has no types
    """Kills the process after a batch, when the callbacks before it are done, or after a time.

    Attributes:
        batches: that the model was trained on.
    """

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.batches = 0
        self._job = job
        self._before = 0

    def on_train_begin(self, logs: Any = None) -> None:
        if self._job.kill_after:
            threading.Timer(self._job.kill_after, die).start()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._before = self.batches

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.batches = self._before + batch + 1
        if self._job.kill_at and self.batches >= self._job.kill_at:
            die()


class InStep(keras.callbacks.Callback):  # type: ignore[misc]
    """Begins each batch together with the other trainer, as averaging gradients would do.

    It is killed where that was killed.
    """

    def __init__(self, job: Job) -> None:
        super().__init__()
        self._other = met(job.in_step, listens=job.sequence == "first of two")

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        try:
            self._other.send_bytes(b"begin")
            self._other.recv_bytes()
        except (EOFError, OSError):
            die()


def met(path: str, listens: bool) -> Connection:
    """A connection of two trainers."""
    if listens:
        with Listener(path) as listener:
            return listener.accept()
    deadline = time.monotonic() + 60
    while True:
        try:
            return Client(path)
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_save(count: int) -> None:
    replace, left = files.replace, [count]

    def watched(new: str, path: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            die()
        replace(new, path)

    files.replace = watched


def a_model(is_categorical: bool = False, dropout: float = 0.0, together: int = 1) -> Any:
    model = keras.Sequential(
        [
            keras.Input((*SIZE, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(4, 3, strides=2, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dropout(dropout),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    kind = "categorical_crossentropy" if is_categorical else "sparse_categorical_crossentropy"
    model.compile("adam", kind, metrics=["accuracy"], steps_per_execution=together)
    return model


def callbacks(job: Job) -> list[Any]:
    if job.save_freq:
        return [BackupAndRestore(job.folder, job.save_freq)]
    return [
        LoaderState(os.path.join(job.folder, "loader.json")),
        keras.callbacks.BackupAndRestore(os.path.join(job.folder, "keras")),
    ]


def train(job: Job) -> None:
    keras.utils.set_random_seed(1)
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    with Session(job.address):
        sequence = SEQUENCES[job.sequence](job)
        read: list[str] = []
        made = sequence._assembled

        def noted(batch: Any) -> Any:
            read.append(hashlib.sha256(batch.images.tobytes()).hexdigest())
            return made(batch)

        sequence._assembled = noted
        dropout = 0.5 if job.save_freq else 0.0
        model = a_model(job.sequence == "mixed", dropout, job.steps_per_execution)
        if job.kill_in_save:
            die_in_save(job.kill_in_save)
        killer = Killer(job)
        others = [InStep(job), killer] if job.in_step else [killer]
        history = model.fit(sequence, verbose=0, callbacks=[*callbacks(job), *others], **job.fit)
    weights = hashlib.sha256(b"".join(np.asarray(one).tobytes() for one in model.get_weights()))
    found = {
        "weights": weights.hexdigest(),
        "loss": history.history.get("loss", []),
        "epochs": history.epoch,
        "batches": killer.batches,
        "read": read,
        "iterations": int(keras.ops.convert_to_numpy(model.optimizer.iterations)),
    }
    Path(job.result).write_text(json.dumps(found))


def attempt(job: str) -> None:
    """Trains, and ends the process."""
    os.dup2(2, 1)  # stdout is for answers
    try:
        train(Job(**json.loads(job)))
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def start(job: str) -> int:
    """Starts a child; returns its process id."""
    if keras.config.backend() == "jax":
        return subprocess.Popen([sys.executable, "-m", "tests.support.trainer", job]).pid
    child = os.fork()
    if not child:
        attempt(job)
    return child


def main() -> None:
    for line in sys.stdin:
        _, status = os.waitpid(start(line), 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    attempt(sys.argv[1]) if len(sys.argv) > 1 else main()
