"""Trainers of Ray Train read their parts of each batch, and go on when there are fewer."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loaderd_client import image_dataset_from_directory
from tests.support.clusters import Nodes, cluster
from tests.support.daemons import Serve
from tests.support.pages import save_programs

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

PAGE = Path(__file__).parents[2] / "docs/how-to/train-with-ray-train.md"

ELASTIC = """
import hashlib, json, os, signal, tempfile
import ray.train
from ray.train import Checkpoint, FailureConfig, RunConfig, ScalingConfig
from ray.train.tensorflow import TensorflowTrainer

def train_here(config):
    import time
    from loaderd_client import image_dataset_from_directory

    context = ray.train.get_context()
    rank, count = context.get_world_rank(), context.get_world_size()
    train = image_dataset_from_directory(
        config["folder"], image_size=(32, 32), batch_size=16 // count, seed=7, shard="auto",
        verbose=False,
    )
    batches, step = train.numpy(), 0
    if checkpoint := ray.train.get_checkpoint():
        with checkpoint.as_directory() as folder, open(f"{folder}/state.json") as file:
            step, state = json.load(file)
        batches.load_state_dict(state)
    while step < 12:
        for images, labels in batches:
            sha = hashlib.sha256(images.tobytes()).hexdigest()
            line = json.dumps([step, rank, count, images.shape[0], sha])
            with open(config["log"], "a") as file:
                file.write(line + "\\n")
            step += 1
            with tempfile.TemporaryDirectory() as folder:
                saved = None
                if rank == 0:
                    with open(f"{folder}/state.json", "w") as file:
                        json.dump([step, batches.state_dict()], file)
                    saved = Checkpoint.from_directory(folder)
                ray.train.report({}, checkpoint=saved)
            if step == 4 and count == 2 and rank == 1:
                os.kill(os.getppid(), signal.SIGKILL)  # the node
                time.sleep(60)
            if step == 12:
                break

TensorflowTrainer(
    train_here,
    train_loop_config={"folder": os.path.abspath("data/train"), "log": os.path.abspath("log")},
    scaling_config=ScalingConfig(num_workers=(1, 2)),
    run_config=RunConfig(
        storage_path=os.path.abspath("results"), failure_config=FailureConfig(max_failures=5)
    ),
).fit()
"""


@pytest.fixture
def folder(serve: Serve, photos: Path, tmp_path: Path) -> Iterator[Path]:
    """A folder with ``data/train`` and the programs of the page; a daemon runs."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train").symlink_to(photos)
    save_programs(PAGE, tmp_path)
    (tmp_path / "elastic.py").write_text(ELASTIC)
    with serve(2):
        yield tmp_path


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    with cluster(nodes=2) as there:
        yield there


def run(folder: Path, nodes: Nodes, *words: str) -> str:
    """Runs a program as a job of the cluster; returns what it prints."""
    env = {**os.environ, "RAY_ADDRESS": nodes.address, "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=env, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def losses(printed: str) -> dict[str, float]:
    return {epoch: float(loss) for epoch, loss in re.findall(r"epoch (\d): loss ([\d.]+)", printed)}


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_the_program_for_pytorch(folder: Path, nodes: Nodes) -> None:
    alone = losses(run(folder, nodes, "train_ray_torch.py", "1", "1"))
    assert len(alone) == 2
    assert losses(run(folder, nodes, "train_ray_torch.py", "2", "2")) == pytest.approx(alone)


def test_the_program_for_tensorflow(folder: Path, nodes: Nodes) -> None:
    alone = losses(run(folder, nodes, "train_ray_tensorflow.py", "1"))
    assert len(alone) == 2
    two = losses(run(folder, nodes, "train_ray_tensorflow.py", "2"))
    assert two == pytest.approx(alone, rel=1e-4)


def test_a_run_that_loses_a_node_goes_on_at_the_next_batch(
    folder: Path, nodes: Nodes, photos: Path
) -> None:
    run(folder, nodes, "elastic.py")
    steps: dict[int, dict[tuple[int, int], Any]] = defaultdict(dict)
    for line in (folder / "log").read_text().splitlines():
        step, rank, count, rows, sha = json.loads(line)
        steps[step][count, rank] = rows, sha
    assert sorted(steps) == list(range(12))
    assert {count for found in steps.values() for count, _ in found} == {1, 2}
    expected = wholes(photos)
    for step, found in steps.items():
        if (1, 0) in found:
            assert found[1, 0] == expected[step][0]
        else:
            assert [found[2, 0], found[2, 1]] == expected[step][1]


def wholes(photos: Path) -> list[Any]:
    """What one trainer has at each step, and what each of two has."""

    def read(size: int, shard: Any) -> list[tuple[int, str]]:
        train = image_dataset_from_directory(
            str(photos), image_size=(32, 32), batch_size=size, seed=7, shard=shard, verbose=False
        )
        assert not isinstance(train, list)
        batches, found = train.numpy(), list[tuple[int, str]]()
        while len(found) < 12:
            for images, _ in batches:
                found.append((images.shape[0], hashlib.sha256(images.tobytes()).hexdigest()))
        return found[:12]

    one, first, second = read(16, None), read(8, (0, 2)), read(8, (1, 2))
    return [(one[step], [first[step], second[step]]) for step in range(12)]
