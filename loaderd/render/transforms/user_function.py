"""Loads and runs the user's code in a worker.

Functions come by name, or pickled by cloudpickle. Their modules are reimported for each stream, as
trainers may have different modules of one name, and edited files must take effect. The values
that the trainer has assigned in them come with it (:mod:`loaderd.render.transforms.module_state`).
Code runs in the trainer's folder, with the trainer's values of the environment variables it reads.
"""

from __future__ import annotations

import gc
import importlib
import os
import random
import re
import sys
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import takewhile
from operator import attrgetter
from types import CodeType, ModuleType
from typing import Any

import numpy as np

import loaderd
from loaderd import memory
from loaderd.errors import LoaderdError, MissingDependency, NoRoom, RenderError
from loaderd.ipc import user_code
from loaderd.ipc.pickling import forget_classes
from loaderd.ipc.user_code import Code
from loaderd.render.transforms import module_state, stand_ins
from loaderd.render.transforms.operation import Parts
from loaderd.spec.operations import NamedFunction, UserCode, labelled

_OURS = os.path.join(os.path.dirname(loaderd.__file__), "")
_SYSTEM = re.compile(r"-packages(/|$)|/lib\w*/python[\d.]*(/|$)|\.zip$")
"""Folders of Python's own modules and of installed packages."""

_Generator = np.random.Generator | np.random.RandomState | random.Random
_NOT_ENTERED = (ModuleType, CodeType, str, bytes, int, float, np.ndarray)
_MAX_THINGS = 100_000

_MARK = "loaderd.render.transforms.user_function.mark"
_mark = ModuleType(_MARK)

_Modules = dict[str, ModuleType]
_libraries: dict[tuple[str, ...], _Modules] = {}
"""Packages that a trainer has and the daemon lacks, by the folders that they come from.

They stay loaded, as some can be loaded only once per process.
"""


class UserFunctions:
    """The user's functions, with modules of their own, from a spec and its bundle.

    Attributes:
        functions: those that the spec names; to be called within ``import_scope``.

    Raises:
        RenderError: one cannot be loaded here; the text says why.
        NoRoom: one cannot be loaded for lack of memory.
        MissingDependency: cloudpickle is not installed.
        ProtocolError: the parts are damaged.
    """

    def __init__(self, function: UserCode, parts: Parts) -> None:
        self._path = [folder for folder in function.path if folder not in sys.path]
        self._own = tuple(os.path.join(one, "") for one in function.path if not _SYSTEM.search(one))
        self._installed = tuple(os.path.join(one, "") for one in self._path if _SYSTEM.search(one))
        self._shared = _libraries.setdefault(self._installed, {})
        self._modules: _Modules = {}
        self._stand_ins = stand_ins.StandIns(function.keras)
        self._folders = _open_folders(function.folder)
        for fd in self._folders:
            weakref.finalize(self, os.close, fd)
        asked = Code.of(parts)
        self._environment = dict(asked.environment)
        try:
            with self.import_scope():
                found = _loaded(function, asked, self._stand_ins)
        except LoaderdError:
            raise
        except BaseException as error:  # an import may raise anything
            if memory.is_used_up():  # libraries report it by errors of all kinds
                raise NoRoom(
                    f"{function.label} cannot be loaded: the worker has too little memory for it; "
                    "raise the daemon's --worker-memory (LOADERD_WORKER_MEMORY): "
                    f"{explain(error)}"
                ) from error
            raise RenderError.of(
                error, f"{function.label} cannot be loaded by a worker: {explain(error)}"
            ) from error
        for one, named in zip(found, function.functions, strict=True):
            if not callable(one):
                label = labelled(function.given_as, [named.name])
                raise RenderError(f"{label} is no function")
        self.functions: tuple[Callable[..., Any], ...] = found
        self._generators = list(_generators_of(found, self._is_own))

    def seed(self, number: int, row: int, again: int = 0) -> None:
        """Makes the draws depend on the stream's seed, batch and row alone.

        Args:
            number: seed + batch number.
            row: of the batch.
            again: how often the batch was read before.
        """
        numbers = (number, row, again) if again else (number, row)
        self._seed(numbers, repr(numbers) if again else number * 2**20 + row)

    def seed_call(self, seeds: tuple[int, ...]) -> None:
        """Makes the draws of one call depend on these numbers alone."""
        self._seed(seeds, repr(seeds))

    def _seed(self, numbers: tuple[int, ...], python: str | int) -> None:
        """Seeds NumPy's and Python's global generators, and those that the functions hold.

        Every worker has a copy of the latter, and all copies would draw the same.
        """
        np.random.seed([one % 2**32 for one in numbers])
        random.seed(python)
        for index, generator in enumerate(self._generators):
            _seed(generator, (*numbers, index))

    @contextmanager
    def import_scope(self) -> Iterator[None]:
        """Has imports search the trainer's folders; unloads the imported modules afterwards."""
        path = sys.path[:]
        sys.path += self._path
        sys.modules.update(self._shared)
        sys.modules.update(self._modules)
        sys.modules[_MARK] = _mark  # modules imported in the scope come after it
        variables = {name: os.environ.get(name) for name in self._environment}
        try:
            _set_variables(self._environment)
            for folder in self._folders[1:]:
                os.fchdir(folder)
            self._stand_ins.enter()
            yield
        finally:
            self._stand_ins.leave()
            for folder in self._folders[:1]:
                os.fchdir(folder)
            _set_variables(variables)
            sys.path[:] = path
            for name in list(takewhile(_MARK.__ne__, reversed(sys.modules))):
                self._keep(name, sys.modules[name])
            for name in (_MARK, *self._modules, *self._shared):
                sys.modules.pop(name, None)

    def _is_own(self, kind: type) -> bool:
        """Whether it is a class of the user's; instances of others are not searched."""
        return kind.__module__ in self._modules or kind.__module__ == "__main__"

    def _keep(self, name: str, module: ModuleType) -> None:
        """Records a newly imported module, unless it is one of the daemon's own."""
        if name.partition(".")[0] in ("loaderd", "loaderd_client"):
            return
        file = getattr(module, "__file__", None)  # a namespace package has folders instead
        places = [file] if file else [str(folder) for folder in getattr(module, "__path__", ())]
        if any(place.startswith(self._installed) for place in places):
            self._shared[name] = module
        elif any(place.startswith(self._own) and not _SYSTEM.search(place) for place in places):
            self._modules[name] = module


def _open_folders(path: str) -> list[int]:
    """Descriptors of this process's folder and the trainer's; empty if the latter is missing."""
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    if not os.path.isdir(path):
        return []
    return [os.open(".", flags), os.open(path, flags)]


def _set_variables(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _loaded(function: UserCode, asked: Code, standing_in: stand_ins.StandIns) -> tuple[Any, ...]:
    stand_ins.current = standing_in
    forget_classes()
    importlib.invalidate_caches()
    modules = [_imported(one) for one in function.functions]
    same_python = asked.function is not None or function.python == sys.version_info[:2]
    module_state.assign(asked.state, same_python=same_python)
    pickled = iter(_by_value(function, asked) if None in modules else ())
    return tuple(
        next(pickled) if module is None else attrgetter(one.name)(module)
        for one, module in zip(function.functions, modules, strict=True)
    )


def _imported(function: NamedFunction) -> ModuleType | None:
    """The module of a function; None for one that is pickled by value."""
    if not function.module:
        return None
    module = importlib.import_module(function.module)
    file = getattr(module, "__file__", None) or ""
    if function.file and os.path.realpath(file) != os.path.realpath(function.file):
        raise ImportError(f"the workers' {function.module} is not {function.file}")
    return module


def _by_value(function: UserCode, asked: Code) -> tuple[Any, ...]:
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
    assert asked.function is not None
    found: tuple[Any, ...] = user_code.load(asked.function)
    return found


def _generators_of(function: Any, enters: Callable[[type], bool]) -> Iterator[_Generator]:
    """The random generators that are reachable from a function.

    Args:
        function: where to begin; modules are not searched.
        enters: whether to search instances of a class.
    """
    waiting, seen = deque([function]), {id(function)}
    while waiting and len(seen) < _MAX_THINGS:
        thing = waiting.popleft()
        if isinstance(thing, (np.random.Generator, np.random.RandomState, random.Random)):
            yield thing
            continue
        for other in gc.get_referents(thing):
            if id(other) in seen or (isinstance(other, type) and not enters(other)):
                continue
            if not isinstance(other, _NOT_ENTERED):
                seen.add(id(other))
                waiting.append(other)


def _seed(generator: _Generator, numbers: tuple[int, ...]) -> None:
    if isinstance(generator, np.random.Generator):
        bits = generator.bit_generator
        bits.state = type(bits)(np.random.SeedSequence(numbers)).state
    elif isinstance(generator, np.random.RandomState):
        generator.seed([number % 2**32 for number in numbers])
    else:
        generator.seed(repr(numbers))


def explain(error: BaseException) -> str:
    """The error's traceback without loaderd's frames; its last line alone if none are left."""
    report = traceback.TracebackException.from_exception(error)
    report.stack[:] = [frame for frame in report.stack if not frame.filename.startswith(_OURS)]
    lines = list(report.format() if report.stack else report.format_exception_only())
    return "".join(lines).strip()
