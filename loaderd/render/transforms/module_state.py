"""What the trainer's modules hold, put into a worker's own.

A module that a worker imports is as its file makes it. What the program has assigned since then
comes along with the function, and is put in its place here. A value that is equal to the one of
the import is left alone, and a container or an object is changed in place: others may hold it too,
and code compares singletons by identity.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterable
from typing import Any

from loaderd.ipc.pickling import dumps
from loaderd.ipc.user_code import Held, load

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_MADE_PLAINLY = ("__new__", "__reduce__", "__reduce_ex__")
_MISSING = object()

Step = str | int | tuple[str | int]


def assign(state: Iterable[Held], same_python: bool = True) -> None:
    """Imports the modules, and puts into them what the trainer's hold.

    Args:
        state: what they hold.
        same_python: whether it was pickled by this version of Python. Code that another has
            pickled is left out where it cannot be read, as importing makes it, too.

    Raises:
        Exception: an import or a value fails, as the user's code may.
    """
    for held in state:
        owner: Any = importlib.import_module(held.module)
        for step in held.steps[:-1]:
            owner = _follow(owner, step)
            if owner is _MISSING:
                break  # the file has been changed: what is not there cannot be used
        else:
            with contextlib.nullcontext() if same_python else contextlib.suppress(Exception):
                _put(owner, held.steps[-1], load(held.value))


def _follow(owner: Any, step: Step) -> Any:
    """What is there now: see ``Held``. Of a class a descriptor is taken as it is."""
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
    except Exception:  # what cannot be pickled cannot be compared
        return False


def _changed_in_place(there: Any, value: Any) -> bool:
    """Gives one thing the contents of another of its type; returns whether that went."""
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
    """Whether all that it is lies in its ``__dict__``."""
    kind = type(thing)
    return (
        hasattr(thing, "__dict__")
        and all(getattr(kind, name) is getattr(object, name) for name in _MADE_PLAINLY)
        and not any("__slots__" in vars(base) for base in kind.__mro__)
    )
