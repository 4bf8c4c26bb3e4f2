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
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loaderd.errors import MissingDependency, RenderError
from loaderd.wire.spec import Function

Array = NDArray[Any]

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_SYSTEM = re.compile(r"-packages(/|$)|/lib\w*/python[\d.]*(/|$)|\.zip$")
"""Folders of Python's own modules and of installed packages, which stay loaded."""


class UserFunction:
    """The user's function, with modules of its own.

    Args:
        function: what it is.
        pickled: its bytes, where it has no module.

    Raises:
        RenderError: it cannot be loaded here; the text says why.
        MissingDependency: cloudpickle is not installed.
    """

    def __init__(self, function: Function, pickled: Array | None) -> None:
        self._path = [folder for folder in function.path if folder not in sys.path]
        self._own = tuple(os.path.join(one, "") for one in function.path if not _SYSTEM.search(one))
        self._modules: dict[str, ModuleType] = {}
        try:
            with self._at_home():
                found = _by_name(function) if function.module else _by_value(function, pickled)
        except MissingDependency:
            raise
        except Exception as error:
            raise RenderError(
                f"preprocessing_function {function.name} cannot be loaded by a worker: "
                f"{explain(error)}"
            ) from error
        if not callable(found):
            raise RenderError(f"preprocessing_function {function.name} is no function")
        self._call: Callable[[Array], Array] = found

    def __call__(self, image: Array) -> Array:
        """What the function makes of an image; it may import what the trainer can."""
        with self._at_home():
            return self._call(image)

    @contextmanager
    def _at_home(self) -> Iterator[None]:
        """Lets imports look where the trainer looks, and takes what they find out again."""
        path = sys.path[:]
        sys.path += self._path
        sys.modules.update(self._modules)
        before = set(sys.modules)
        try:
            yield
        finally:
            sys.path[:] = path
            for name in sys.modules.keys() - before:
                if self._owns(sys.modules[name]):
                    self._modules[name] = sys.modules[name]
            for name in self._modules:
                sys.modules.pop(name, None)

    def _owns(self, module: ModuleType) -> bool:
        file = getattr(module, "__file__", None) or ""
        ours = module.__name__.partition(".")[0] in ("loaderd", "loaderd_client")
        return file.startswith(self._own) and not _SYSTEM.search(file) and not ours


def _by_name(function: Function) -> Any:
    importlib.invalidate_caches()
    found: Any = importlib.import_module(function.module)
    if function.file and not _same_file(getattr(found, "__file__", None), function.file):
        raise ImportError(f"the workers' {function.module} is not {function.file}")
    for name in function.name.split("."):
        found = getattr(found, name)
    return found


def _same_file(one: str | None, other: str) -> bool:
    return one is not None and os.path.realpath(one) == os.path.realpath(other)


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
