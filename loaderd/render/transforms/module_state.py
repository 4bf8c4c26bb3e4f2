"""Assigns the state of the trainer's modules to a worker's.

A worker's import gives a module its initial state. What the program has assigned since then comes
with the function, and is assigned here. Values equal to the imported ones are kept, and containers
and objects are changed in place: other code may refer to them, and compare singletons by identity.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterable
from typing import Any

from loaderd.ipc.pickling import dumps
from loaderd.ipc.user_code import Held, load

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_DEFAULT_METHODS = ("__new__", "__reduce__", "__reduce_ex__")
_MISSING = object()

Step = str | int | tuple[str | int]


def assign(state: Iterable[Held], same_python: bool = True) -> None:
    """Imports the modules, and assigns the trainer's values to them.

    Args:
        state: the values.
        same_python: whether they were pickled by this version of Python. Otherwise unreadable
            code is skipped, as the import defines it, too.

    Raises:
        Exception: of any type, from an import or a value, which run the user's code.
    """
    for held in state:
        owner: Any = importlib.import_module(held.module)
        for step in held.steps[:-1]:
            owner = _follow(owner, step)
            if owner is _MISSING:
                break  # the file was changed, and has no such name
        else:
            with contextlib.nullcontext() if same_python else contextlib.suppress(Exception):
                _put(owner, held.steps[-1], load(held.value))


def _follow(owner: Any, step: Step) -> Any:
    """The present value at a step: see ``Held``. Does not bind a class's descriptors."""
    if isinstance(step, tuple):
        return dict.get(owner, step[0], _MISSING) if isinstance(owner, dict) else _MISSING
    if isinstance(step, int):
        cells = getattr(owner, "__closure__", None) or ()
        try:
            return cells[step].cell_contents
        except (IndexError, ValueError):
            return _MISSING
    if isinstance(owner, type) and step in vars(owner):
        return vars(owner)[step]
    return getattr(owner, step, _MISSING)


def _put(owner: Any, step: Step, value: Any) -> None:
    there = _follow(owner, step)
    if there is not _MISSING and (_equal(there, value) or _changed_in_place(there, value)):
        return
    if isinstance(step, str):
        setattr(owner, step, value)
    elif isinstance(step, tuple):
        dict.__setitem__(owner, step[0], value)
    elif there is not _MISSING:
        owner.__closure__[step].cell_contents = value


def _equal(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, _PLAIN):
        return bool(one == other)
    try:
        return dumps(one) == dumps(other)
    except Exception:  # not picklable, so not comparable
        return False


def _changed_in_place(there: Any, value: Any) -> bool:
    """Gives one object the contents of another of its type; returns whether it could."""
    if type(there) is not type(value):
        return False
    if type(there) in (dict, set):
        there.clear()
        there.update(value)
    elif type(there) is list:
        there[:] = value
    elif _is_plain_object(there):
        vars(there).clear()
        vars(there).update(vars(value))
    else:
        return False
    return True


def _is_plain_object(thing: Any) -> bool:
    """Whether its ``__dict__`` holds all of its state."""
    kind = type(thing)
    return (
        hasattr(thing, "__dict__")
        and all(getattr(kind, name) is getattr(object, name) for name in _DEFAULT_METHODS)
        and not any("__slots__" in vars(base) for base in kind.__mro__)
    )
