"""Reads an ``augment=[...]`` list: operations, layers of Keras, groups of both, functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from loaderd.augment.function import Function
from loaderd.augment.operation import Operation
from loaderd.augment.policies import RandomApply, RandomChoice, RandomMix
from loaderd.errors import InvalidArgument
from loaderd.spec.base import DataFormat
from loaderd_client.keras import layers

Functions = tuple[Callable[..., Any], ...]

_GROUPS = (RandomApply, RandomChoice, RandomMix)


def operations_of(augment: object, data_format: DataFormat) -> tuple[Operation, ...]:
    """The operations of a list.

    Args:
        augment: the list, or a chain of Keras's layers; None for none.
        data_format: of the dataset.

    Raises:
        InvalidArgument: it is no list, or holds something else, or a layer that cannot be kept.
    """
    if augment is None:
        return ()
    if layers.is_chain(augment):
        augment = (augment,)
    if isinstance(augment, Operation | str) or not isinstance(augment, Iterable):
        raise InvalidArgument(f"`augment` should be a list of operations. Received: {augment!r}")
    return tuple(one for listed in augment for one in _read(listed, data_format))


def numbered(operations: Iterable[Operation]) -> tuple[tuple[Operation, ...], Functions]:
    """The operations with numbers in the place of the user's functions, and the functions."""
    functions: list[Callable[..., Any]] = []

    def called(one: Any, in_group: bool = False) -> Any:
        if isinstance(one, Function):
            functions.append(one.function)
            return one.call(len(functions) - 1, in_group)
        if isinstance(one, RandomApply | RandomChoice):
            group: Any = type(one)
            return group([called(op, in_group=True) for op in one.ops], one.p)
        return one

    return tuple(map(called, operations)), tuple(functions)


def _read(listed: Any, data_format: DataFormat) -> tuple[Any, ...]:
    """The operations that something in a list stands for."""
    if isinstance(listed, _GROUPS):
        return (_read_group(listed, data_format),)
    found = layers.read(listed, data_format)
    for one in found:
        if not isinstance(one, Operation):
            raise InvalidArgument(
                "`augment` should hold operations of loaderd_client.augment, or layers of Keras. "
                f"Received: {one!r}"
            )
    return found


def _read_group(group: Any, data_format: DataFormat) -> Operation:
    each = [_read(op, data_format) for op in group.ops]
    if isinstance(group, RandomApply):
        return RandomApply([one for several in each for one in several], group.p)
    # One of them is chosen: a chain of layers counts as one.
    ops = [one[0] if len(one) == 1 else RandomApply(one, 1.0) for one in each]
    read: Operation = type(group)(ops, group.p)
    return read
