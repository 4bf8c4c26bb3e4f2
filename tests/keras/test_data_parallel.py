"""The programs of the page on data-parallel training: two processes end where one does.

They need a framework each. JAX and PyTorch are not among the development tools: with ``--long``
their programs run where they are installed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
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


@pytest.fixture
def folder(serve: Serve, photos: Path, tmp_path: Path) -> Any:
    """A folder with ``data/train`` and the programs of the page; a daemon runs."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train").symlink_to(photos)
    save_programs(PAGE, tmp_path)
    (tmp_path / "mirrored.py").write_text(MIRRORED)
    with serve(workers=2):
        yield tmp_path


def losses(folder: Path, processes: list[tuple[list[str], dict[str, str]]]) -> list[float]:
    """Runs the processes of a training together; what the first of them says of its losses."""
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
        assert program.returncode == 0, errors
    found = [float(value) for value in re.findall(r"epoch \d: loss ([\d.]+)", ends[0][0])]
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


@pytest.mark.long
def test_two_processes_of_jax_end_with_the_loss_of_one(folder: Path) -> None:
    needs("jax")
    env = {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
    }

    def run(count: int) -> list[float]:
        address = f"localhost:{free_ports(1)[0]}"
        words = [["train_jax.py", address, str(count), str(index)] for index in range(count)]
        return losses(folder, [(each, env) for each in words])

    assert run(2) == pytest.approx(run(1), rel=1e-5)


@pytest.mark.long
def test_two_devices_of_one_trainer_end_with_the_loss_of_one(folder: Path) -> None:
    one, two = (losses(folder, [(["mirrored.py", count], {})]) for count in ("1", "2"))
    assert two == pytest.approx(one, rel=1e-5)
