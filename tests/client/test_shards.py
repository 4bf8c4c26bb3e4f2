"""``shard="auto"`` finds which trainer a process is, and says so where it cannot."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from loaderd.errors import InvalidArgument, InvalidType
from loaderd.spec.output import Shard
from loaderd_client.core.shards import detect, shard_of

TORCH = SimpleNamespace(
    is_available=lambda: True,
    is_initialized=lambda: True,
    get_rank=lambda: 3,
    get_world_size=lambda: 4,
)
JAX = {
    "jax.distributed": SimpleNamespace(is_initialized=lambda: True),
    "jax._src.distributed": SimpleNamespace(
        global_state=SimpleNamespace(process_id=1, num_processes=2)
    ),
}
LAUNCHER = {"RANK": "1", "WORLD_SIZE": "8"}
SLURM = {"SLURM_PROCID": "5", "SLURM_NTASKS": "6"}


def ray(rank: int | None, size: int | None) -> Any:
    context = SimpleNamespace(get_world_rank=lambda: rank, get_world_size=lambda: size)
    return SimpleNamespace(get_context=lambda: context)


def cluster(kind: str, index: Any, **sizes: int) -> dict[str, str]:
    addresses = {name: [f"host{at}:1" for at in range(size)] for name, size in sizes.items()}
    task = {"type": kind, "index": index}
    return {"TF_CONFIG": json.dumps({"cluster": addresses, "task": task})}


@pytest.mark.parametrize(
    ("modules", "environ", "found"),
    [
        ({"torch.distributed": TORCH}, LAUNCHER, Shard(3, 4, found="torch.distributed")),
        (JAX, LAUNCHER, Shard(1, 2, found="jax.distributed")),
        ({"ray.train": ray(2, 3)}, LAUNCHER, Shard(2, 3, found="ray.train")),
        ({}, cluster("worker", 1, worker=2), Shard(1, 2, found="TF_CONFIG")),
        ({}, cluster("worker", 1, chief=1, worker=2), Shard(2, 3, found="TF_CONFIG")),
        ({}, cluster("chief", 0, chief=1, worker=2), Shard(0, 3, found="TF_CONFIG")),
        ({}, cluster("worker", "0", worker=2) | LAUNCHER, Shard(0, 2, found="TF_CONFIG")),
        ({}, cluster("evaluator", 0, worker=2), Shard(0, 1, found="TF_CONFIG")),
        ({}, LAUNCHER | SLURM, Shard(1, 8, found="RANK")),
        ({}, SLURM, Shard(5, 6, found="SLURM_PROCID")),
        (
            {},
            SLURM | {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"},
            Shard(5, 6, found="SLURM_PROCID"),
        ),
        ({}, {}, Shard(0, 1, found="default")),
    ],
)
def test_the_first_that_knows_the_trainer_is_believed(
    modules: dict[str, Any], environ: dict[str, str], found: Shard
) -> None:
    assert detect(environ, modules) == found


def outside_of_a_run() -> Any:
    raise RuntimeError("TrainContext has not been initialized")


def an_idle_torch() -> Any:
    return SimpleNamespace(is_available=lambda: True, is_initialized=lambda: False)


@pytest.mark.parametrize(
    ("modules", "environ"),
    [
        ({"torch.distributed": SimpleNamespace(is_available=lambda: False)}, {}),
        ({"torch.distributed": an_idle_torch()}, {}),
        ({"jax.distributed": SimpleNamespace(is_initialized=lambda: False)}, {}),
        ({"jax.distributed": SimpleNamespace()}, {}),
        ({"ray.train": SimpleNamespace(get_context=outside_of_a_run)}, {}),
        ({"ray.train": ray(None, None)}, {}),
        ({}, {"TF_CONFIG": "{}"}),
        ({}, {"TF_CONFIG": '{"cluster": {}, "task": {"type": "worker", "index": 0}}'}),
        ({}, SLURM | {"SLURM_JOB_ID": "7"}),  # a batch script, which srun has not started
    ],
)
def test_who_knows_of_no_trainers_is_passed_over(
    modules: dict[str, Any], environ: dict[str, str]
) -> None:
    assert detect(environ, modules) == Shard(0, 1, found="default")


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"RANK": "1"}, "the variable RANK is set, and WORLD_SIZE is not"),
        ({"WORLD_SIZE": "2"}, "the variable WORLD_SIZE is set, and RANK is not"),
        ({"SLURM_PROCID": "0"}, "SLURM_PROCID is set, and SLURM_NTASKS is not"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "by RANK: a shard's index must be between 0 and 1"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "by RANK: a shard's index must be between 0 and 1"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "by RANK: a shard's count must be between 1 and"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, "by RANK: 'one' is no whole number"),
        ({"RANK": "", "WORLD_SIZE": "2"}, "by RANK: '' is no whole number"),
        ({"TF_CONFIG": "{"}, r"by TF_CONFIG: not valid \(.*\): give shard=\(index, count\)$"),
        ({"TF_CONFIG": "[]"}, "by TF_CONFIG: not valid"),
        ({"TF_CONFIG": '{"cluster": {"worker": 3}}'}, "by TF_CONFIG: not valid"),
        (cluster("ps", 0, ps=1, worker=2), "a task of type 'ps' has no part of the dataset"),
        (cluster("chief", 0, worker=2), "a task of type 'chief' has no part"),
        (
            cluster("worker", 2, worker=2),
            r"there is no worker 2 among 2: give shard=\(index, count\)$",
        ),
        (cluster("worker", None, worker=2), "by TF_CONFIG: None is no whole number"),
    ],
)
def test_what_contradicts_itself_is_refused_in_one_line(environ: dict[str, str], says: str) -> None:
    with pytest.raises(InvalidArgument, match=says) as raised:
        detect(environ, {})
    assert "\n" not in str(raised.value)


def test_a_jax_that_does_not_say_which_process_it_is_is_not_asked_to_start_a_backend() -> None:
    def start_a_backend() -> int:
        raise AssertionError

    jax = {"jax.distributed": JAX["jax.distributed"]}
    started = SimpleNamespace(process_index=start_a_backend, process_count=start_a_backend)
    with pytest.raises(InvalidArgument, match=r"give shard=\(jax.process_index\(\)"):
        detect({}, {**jax, "jax": started})


def test_no_framework_is_imported_to_ask_it() -> None:
    program = (
        "import sys; from loaderd_client.core.shards import shard_of; "
        "shard_of('auto', 'short', None); "
        "assert not {'torch', 'jax', 'ray', 'tensorflow', 'keras'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_given_shard_may_be_any_two_whole_numbers() -> None:
    assert shard_of((1, 4), "pad", 0) == Shard(1, 4, "pad")
    assert shard_of([0, 1], "short", None) == Shard(0, 1)
    assert shard_of(None, "short", None) is None


@pytest.mark.parametrize(
    ("shard", "remainder", "seed", "says"),
    [
        ((0, 2), "short", None, "`shard` needs a `seed`, the same one for all trainers"),
        (None, "drop", 1, "`remainder` goes with `shard`"),
        ((0, 2), "round", 1, 'expected one of "short", "drop", "pad"'),
        ("rank", "short", 1, r'`shard` should be \(index, count\), or "auto". Received: .rank.'),
        ((2, 2), "short", 1, "a shard's index must be between 0 and 1"),
    ],
)
def test_what_is_not_allowed_says_what_is(
    shard: Any, remainder: str, seed: int | None, says: str
) -> None:
    with pytest.raises(InvalidArgument, match=says):
        shard_of(shard, remainder, seed)


@pytest.mark.parametrize("shard", [3, (1,), (0, 1, 2)])
def test_something_else_is_no_shard(shard: Any) -> None:
    with pytest.raises(InvalidType, match="`shard` should be"):
        shard_of(shard, "short", 1)


@pytest.mark.parametrize(
    ("shard", "part", "received"),
    [
        (("0", "2"), "index", "'0'"),
        ((0.5, 2), "index", "0.5"),
        ((True, 2), "index", "True"),
        ((0, None), "count", "None"),
        ((0, True), "count", "True"),
    ],
)
def test_the_part_of_a_shard_that_is_no_whole_number_is_named(
    shard: Any, part: str, received: str
) -> None:
    says = f"`shard`: the {part} should be a whole number. Received: {received}"
    with pytest.raises(InvalidType, match=says):
        shard_of(shard, "short", 1)
