"""Code of the user's, as a worker loads and runs it.

A function comes by the name of its module or as cloudpickle wrote it. Its modules are
imported anew for each stream: two trainers may have different modules of one name, and a
file that was edited must not be found as it was.
"""

from __future__ import annotations

import importlib
import os
import pickle
import random
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loaderd.errors import MissingDependency, RenderError
from loaderd.wire.spec import Function

Array = NDArray[Any]

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_INSTALLED = ("site-packages", "dist-packages")


def load(function: Function, pickled: Array | None) -> Callable[[Array], Array]:
    """The user's function.

    Args:
        function: what it is.
        pickled: its bytes, where it has no module.

    Raises:
        RenderError: it cannot be loaded here; the text says why.
        MissingDependency: cloudpickle is not installed.
    """
    try:
        with _modules_of_its_own(function.path):
            found = _by_name(function) if function.module else _by_value(function, pickled)
    except MissingDependency:
        raise
    except Exception as error:
        raise RenderError(
            f"preprocessing_function {function.name} cannot be loaded by a worker: {explain(error)}"
        ) from error
    if not callable(found):
        raise RenderError(f"preprocessing_function {function.name} is no function")
    return found  # type: ignore[no-any-return]  # callable, and nothing else is known


def _by_name(function: Function) -> Any:
    found: Any = importlib.import_module(function.module)
    for name in function.name.split("."):
        found = getattr(found, name)
    return found


def _by_value(function: Function, pickled: Array | None) -> Any:
    if function.python != sys.version_info[:2]:
        theirs, ours = ("{}.{}".format(*version) for version in (function.python, sys.version_info))
        raise RuntimeError(
            f"it was pickled by Python {theirs} and the daemon runs Python {ours}: put it into "
            "a module, or start the daemon with the trainer's Python"
        )
    try:
        importlib.import_module("cloudpickle")
    except ImportError as error:
        raise MissingDependency("cloudpickle is missing: pip install cloudpickle") from error
    assert pickled is not None
    return pickle.loads(pickled.tobytes())


@contextmanager
def _modules_of_its_own(path: tuple[str, ...]) -> Iterator[None]:
    """Lets imports look where the trainer looks; forgets what is not an installed package."""
    before = set(sys.modules)
    extra = [folder for folder in path if folder not in sys.path]
    sys.path += extra
    importlib.invalidate_caches()
    try:
        yield
    finally:
        for folder in extra:
            sys.path.remove(folder)
        for name in set(sys.modules) - before:
            if _is_the_users(sys.modules[name], extra):
                del sys.modules[name]


def _is_the_users(module: Any, folders: list[str]) -> bool:
    file = getattr(module, "__file__", None) or ""
    installed = any(f"/{folder}/" in file for folder in _INSTALLED)
    return not installed and any(file.startswith(os.path.join(folder, "")) for folder in folders)


def seed(number: int, row: int) -> None:
    """Makes what the user's code draws a function of the stream's seed, batch and row.

    Args:
        number: seed + batch number.
        row: of the batch.
    """
    np.random.seed([number % 2**32, row])
    random.seed(number * 2**20 + row)


def explain(error: BaseException) -> str:
    """The error's traceback without our own frames; its last line alone if none are left."""
    report = traceback.TracebackException.from_exception(error)
    report.stack[:] = [frame for frame in report.stack if not frame.filename.startswith(_OURS)]
    report.__cause__ = report.__context__ = None
    lines = list(report.format() if report.stack else report.format_exception_only())
    return "".join(lines).strip()
