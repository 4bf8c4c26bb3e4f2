"""The argument ``shard``: which of several trainers this process is.

``shard="auto"`` asks the frameworks that the program has imported, then the environment. It imports
none, and starts none of their backends.
"""

from __future__ import annotations

import json
import operator
import os
import sys
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

from loaderd.errors import InvalidArgument, InvalidType
from loaderd.spec.output import Remainder, Shard, ShardOrigin
from loaderd_client.core import arguments

ShardArgument = tuple[int, int] | Literal["auto"] | None
"""(index, count) of a trainer; ``auto`` finds them; None is the whole dataset."""

_INSTEAD = "give shard=(index, count)"


class _Trainer(NamedTuple):
    """A trainer's index, and how many there are."""

    index: Any
    count: Any


def shard_of(shard: object, remainder: object, seed: object) -> Shard | None:
    """The shard that a dataset is asked for.

    Args:
        shard: (index, count), ``"auto"``, or None for the whole dataset.
        remainder: ``short``, ``drop`` or ``pad``.
        seed: of the dataset; None if none was given.

    Raises:
        InvalidArgument: one is not allowed; trainers that share a dataset were given no seed; or
            what says which trainer this is contradicts itself.
        InvalidType: ``shard`` is something else.
    """
    rest: Remainder = arguments.one_of("remainder", remainder, get_args(Remainder))
    if shard is None:
        if rest != "short":
            raise InvalidArgument("`remainder` goes with `shard`; for one trainer: shard=(0, 1)")
        return None
    if arguments.is_one_of(shard, ("auto",)):
        found = detect(os.environ, sys.modules)
    else:
        found = _given(shard)
    if found.count > 1 and seed is None:
        raise InvalidArgument("`shard` needs a `seed`, the same one for all trainers")
    return Shard(index=found.index, count=found.count, remainder=rest, found=found.found)


def detect(environ: Mapping[str, str], modules: Mapping[str, Any]) -> Shard:
    """The shard of this process, by the first that knows it.

    Args:
        environ: variables of the environment.
        modules: those that the program has imported, by name.

    Raises:
        InvalidArgument: what is found contradicts itself.
    """
    for origin, look in _MODULES.items():
        trainer = look(modules)
        if trainer is not None:
            return _checked(trainer, origin)
    for origin, read in _VARIABLES.items():
        trainer = read(environ)
        if trainer is not None:
            return _checked(trainer, origin)
    return Shard(index=0, count=1, found="default")


def _given(shard: object) -> Shard:
    if not isinstance(shard, tuple | list) or len(shard) != 2:
        kind = InvalidArgument if isinstance(shard, str) else InvalidType
        raise kind(f'`shard` should be (index, count), or "auto". Received: {shard!r}')
    index, count = map(_given_whole, _Trainer._fields, shard)
    return Shard(index=index, count=count)


def _given_whole(name: str, value: object) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        return int(operator.index(value))  # type: ignore[arg-type]  # that is what is tried
    except TypeError as error:
        raise InvalidType(
            f"`shard`: the {name} should be a whole number. Received: {value!r}"
        ) from error


def _checked(trainer: _Trainer, origin: ShardOrigin) -> Shard:
    index, count = (_whole(origin, value) for value in trainer)
    try:
        return Shard(index=index, count=count, found=origin)
    except InvalidArgument as error:
        raise InvalidArgument(f'shard="auto", by {origin}: {error}: {_INSTEAD}') from error


def _whole(origin: str, value: object) -> int:
    try:
        return int(value)  # type: ignore[call-overload, no-any-return]  # that is what is tried
    except (TypeError, ValueError) as error:
        raise InvalidArgument(
            f'shard="auto", by {origin}: {value!r} is no whole number: {_INSTEAD}'
        ) from error


# -- frameworks ------------------------------------------------------------------------


def _torch(modules: Mapping[str, Any]) -> _Trainer | None:
    torch = modules.get("torch.distributed")
    if torch is None or not torch.is_available() or not torch.is_initialized():
        return None
    return _Trainer(torch.get_rank(), torch.get_world_size())


def _jax(modules: Mapping[str, Any]) -> _Trainer | None:
    is_initialized = getattr(modules.get("jax.distributed"), "is_initialized", None)
    if is_initialized is None or not is_initialized():
        return None
    # jax.process_index() would start a backend, and take the memory of its devices.
    state = getattr(modules.get("jax._src.distributed"), "global_state", None)
    trainer = _Trainer(getattr(state, "process_id", None), getattr(state, "num_processes", None))
    if None in trainer:
        raise InvalidArgument(
            'shard="auto" does not know this version of JAX: give '
            "shard=(jax.process_index(), jax.process_count())"
        )
    return trainer


def _ray(modules: Mapping[str, Any]) -> _Trainer | None:
    train = modules.get("ray.train")
    if train is None:
        return None
    try:
        context = train.get_context()
        trainer = _Trainer(context.get_world_rank(), context.get_world_size())
    except RuntimeError:  # this is no worker of a Ray Train run
        return None
    return None if None in trainer else trainer


# -- variables -------------------------------------------------------------------------


def _tf_config(environ: Mapping[str, str]) -> _Trainer | None:
    """After ``multi_worker_util`` of TensorFlow: the chief is the first, then come the workers."""
    text = environ.get("TF_CONFIG")
    try:
        config = json.loads(text or "{}")
        cluster, task = config.get("cluster") or {}, config.get("task") or {}
        sizes = {kind: len(addresses) for kind, addresses in cluster.items()}
        kind = task.get("type")
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidArgument(
            f'shard="auto", by TF_CONFIG: not valid ({error}): {_INSTEAD}'
        ) from error
    if not cluster:
        return None
    if kind == "evaluator":
        return _Trainer(0, 1)  # it evaluates alone, beside those that train
    if kind not in ("chief", "master", "worker") or kind not in sizes:
        raise InvalidArgument(
            f'shard="auto", by TF_CONFIG: a task of type {kind!r} has no part of the dataset: '
            f"{_INSTEAD}, or None"
        )
    index = _whole("TF_CONFIG", task.get("index"))
    if not 0 <= index < sizes[kind]:
        raise InvalidArgument(
            f'shard="auto", by TF_CONFIG: there is no {kind} {index} among {sizes[kind]}: '
            f"{_INSTEAD}"
        )
    first = sizes.get("chief", 0) + sizes.get("master", 0)
    return _Trainer(index + (kind == "worker") * first, first + sizes.get("worker", 0))


def _launcher(environ: Mapping[str, str]) -> _Trainer | None:
    return _pair(environ, "RANK", "WORLD_SIZE")


def _slurm(environ: Mapping[str, str]) -> _Trainer | None:
    if "SLURM_JOB_ID" in environ and not {"SLURM_STEP_ID", "SLURM_STEPID"} & environ.keys():
        return None  # a batch script is no task of srun, though it has the variables of one
    return _pair(environ, "SLURM_PROCID", "SLURM_NTASKS")


def _pair(environ: Mapping[str, str], index: str, count: str) -> _Trainer | None:
    found = _Trainer(environ.get(index), environ.get(count))
    if found == (None, None):
        return None
    if None in found:
        there, lacking = (index, count) if found.count is None else (count, index)
        raise InvalidArgument(
            f'shard="auto": the variable {there} is set, and {lacking} is not: {_INSTEAD}'
        )
    return found


_MODULES: dict[ShardOrigin, Any] = {
    "torch.distributed": _torch,
    "jax.distributed": _jax,
    "ray.train": _ray,
}
_VARIABLES: dict[ShardOrigin, Any] = {
    "TF_CONFIG": _tf_config,
    "RANK": _launcher,
    "SLURM_PROCID": _slurm,
}
