"""The programs of the page on data-parallel training: two processes end where one does.

They need a framework each. JAX and PyTorch are not among the development tools: with ``--long``
their programs run where they are installed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemons import Serve
from tests.support.pages import save_programs
from tests.support.ports import free_ports

PAGE = Path(__file__).parents[2] / "docs/how-to/train-data-parallel.md"
TIMEOUT = 120.0

MIRRORED = """
import sys
import tensorflow as tf
import keras
from loaderd_client import image_dataset_from_directory

devices = [tf.config.LogicalDeviceConfiguration()] * int(sys.argv[1])
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], devices)
train = image_dataset_from_directory(
    "data/train", image_size=(16, 16), batch_size=20, seed=3, verbose=False
)
strategy = tf.distribute.MirroredStrategy([f"CPU:{at}" for at in range(len(devices))])
assert strategy.num_replicas_in_sync == len(devices)
with strategy.scope():
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((16, 16, 3)), *layers])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01), loss)
for epoch, value in enumerate(model.fit(train, epochs=2, verbose=0).history["loss"]):
    print(f"epoch {epoch}: loss {value:.6f}")
"""


FIT = "history = model.fit(train, epochs=2, verbose=0).history"
RESUMED_FIT = """
import hashlib, os, signal
import numpy as np
from loaderd_client.callbacks import BackupAndRestore

class Killer(keras.callbacks.Callback):
    batches = 0

    def on_train_batch_begin(self, batch, logs=None):
        if self.batches == int(os.environ["KILLED_AFTER"]):
            os.kill(os.getpid(), signal.SIGKILL)
        self.batches += 1

killer = Killer()
callbacks = [BackupAndRestore("backup", save_freq=1), killer]
history = model.fit(train, epochs=2, verbose=0, callbacks=callbacks).history
weights = b"".join(np.asarray(one).tobytes() for one in model.get_weights())
print("batches", killer.batches, "weights", hashlib.sha256(weights).hexdigest(), flush=True)
"""
"""What a page's program does instead of ``FIT`` to go on after a crash."""

Processes = list[tuple[list[str], dict[str, str]]]
"""Arguments of programs that train together, and their variables."""


@pytest.fixture
def folder(serve: Serve, photos: Path, tmp_path: Path) -> Any:
    """A folder with ``data/train`` and the programs of the page; a daemon runs."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train").symlink_to(photos)
    save_programs(PAGE, tmp_path)
    (tmp_path / "mirrored.py").write_text(MIRRORED)
    with serve(workers=2):
        yield tmp_path


def outputs(folder: Path, processes: Processes, code: int = 0) -> list[str]:
    """Runs the processes of a training together; what they print until they end with a code."""
    fixed = {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    programs = [
        subprocess.Popen(
            [sys.executable, *words],
            cwd=folder,
            env={**os.environ, **fixed, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for words, env in processes
    ]
    try:
        ends = [program.communicate(timeout=TIMEOUT) for program in programs]
    finally:
        for program in programs:
            program.kill()
            program.wait()
    for program, (_, errors) in zip(programs, ends, strict=True):
        assert program.returncode == code, errors
    return [printed for printed, _ in ends]


def losses(folder: Path, processes: Processes) -> list[float]:
    """What the first process of a training says of its losses."""
    printed = outputs(folder, processes)[0]
    found = [float(value) for value in re.findall(r"epoch \d: loss ([\d.]+)", printed)]
    assert len(found) == 2
    return found


def needs(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")


def test_two_workers_of_tensorflow_end_with_the_loss_of_one(folder: Path) -> None:
    needs("tf_keras")

    def run(count: int) -> list[float]:
        workers = [f"localhost:{port}" for port in free_ports(count)]
        tasks = [{"type": "worker", "index": index} for index in range(count)]
        configs = [{"cluster": {"worker": workers}, "task": task} for task in tasks]
        envs = [{"TF_CONFIG": json.dumps(config)} for config in configs]
        return losses(folder, [(["train_tensorflow.py"], env) for env in envs])

    assert run(2) == pytest.approx(run(1), rel=1e-5)


@pytest.mark.long
def test_two_processes_of_pytorch_end_with_the_loss_of_one(folder: Path) -> None:
    needs("torch")

    def run(count: int) -> list[float]:
        ports = [f"--nproc-per-node={count}", f"--master-port={free_ports(1)[0]}"]
        words = ["-m", "torch.distributed.run", *ports, "train_torch.py"]
        return losses(folder, [(words, {})])

    assert run(2) == pytest.approx(run(1), rel=1e-5)


def jax_processes(program: str, count: int, **env: str) -> Processes:
    fixed = {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
    }
    address = f"localhost:{free_ports(1)[0]}"
    words = [[program, address, str(count), str(index)] for index in range(count)]
    return [(each, fixed | env) for each in words]


@pytest.mark.long
def test_two_processes_of_jax_end_with_the_loss_of_one(folder: Path) -> None:
    needs("jax")
    one, two = (losses(folder, jax_processes("train_jax.py", count)) for count in (1, 2))
    assert two == pytest.approx(one, rel=1e-5)


@pytest.mark.long
def test_two_processes_of_jax_that_were_killed_go_on_at_the_same_batch(folder: Path) -> None:
    needs("jax")
    program = (folder / "train_jax.py").read_text()
    assert FIT in program
    (folder / "resumed.py").write_text(program.replace(FIT, RESUMED_FIT))

    def run(killed_after: int, code: int = 0) -> list[tuple[str, str]]:
        processes = jax_processes("resumed.py", 2, KILLED_AFTER=str(killed_after))
        printed = " ".join(outputs(folder, processes, code))
        return re.findall(r"batches (\d+) weights (\w+)", printed)

    undisturbed = run(-1)
    assert [batches for batches, _ in undisturbed] == ["6", "6"]
    run(4, -signal.SIGKILL)
    assert (folder / "backup" / "loaderd.weights.h5").exists()
    assert run(-1) == [("2", weights) for _, weights in undisturbed]
    assert not (folder / "backup").exists()


@pytest.mark.long
def test_two_devices_of_one_trainer_end_with_the_loss_of_one(folder: Path) -> None:
    one, two = (losses(folder, [(["mirrored.py", count], {})]) for count in ("1", "2"))
    assert two == pytest.approx(one, rel=1e-5)
