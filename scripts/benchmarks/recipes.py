"""The recipes of ``peers.recipe`` as operations of loaderd."""

from __future__ import annotations

from loaderd.augment.operation import Operation
from loaderd.spec.load import Load
from loaderd.spec.output import Batching, Order, Output
from loaderd.spec.source import Files
from loaderd.spec.spec import Spec
from loaderd_client import augment as A
from loaderd_client.keras.augment_list import augmented
from scripts.benchmarks.peers import recipe
from scripts.benchmarks.peers.protocol import Task


def operations(task: Task) -> list[Operation]:
    """The list that a user gives."""
    chosen: list[Operation] = [
        A.RandomResizedCrop(*task.size, scale=recipe.SCALE, ratio=recipe.RATIO),
        A.RandomFlip("horizontal"),
    ]
    if task.recipe == "randaugment":
        chosen.append(A.RandAugment(recipe.NUM_OPS, recipe.MAGNITUDE))
    return [*chosen, A.Normalization("imagenet")]


def recipe_spec(task: Task) -> Spec:
    """What a task with a recipe asks for, of files that somebody else names."""
    load = Load(
        target_size=task.size,
        interpolation="bilinear",
        decode="scaled" if task.scaled else "exact",
        reading="decode_image",
    )
    return list_spec(operations(task), load, task.batch_size)


def list_spec(chosen: list[Operation], load: Load, batch_size: int = 32) -> Spec:
    """A spec with a list of operations, of files that somebody else names."""
    parts = augmented(chosen, load, Output(), Batching(batch_size=batch_size))
    return Spec(
        source=Files(),
        load=parts.load,
        transforms=(),
        output=parts.output,
        batch=parts.batch,
        order=Order(seed=0),
        augment=parts.operations,
    )
