"""Collects the state that a user's function reads, and pickles it for the workers.

A function reads globals of its module, attributes of modules that it imports, of its class, and of
the objects that it refers to. In Keras it runs in the trainer and sees their present values. Here
they are collected and sent with it::

    sent by value ──► pickled, with the globals that it reads (cloudpickle)
    sent by name ───► the globals of its module that its code reads, one by one
    both ───────────► the same for every user module that its code refers to, for functions
                      and classes that it calls, and so on

State that cannot be pickled, or is in installed packages, is as a worker's import makes it.
"""

from __future__ import annotations

import enum
import functools
import importlib.util
import io
import os
import pickle
import re
import sys
from collections import deque
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

from loaderd.ipc import pickling
from loaderd.ipc.user_code import Code, Held, Pickled
from loaderd_client.keras.code_names import CodeNames, names_of
from loaderd_client.keras.keras_functions import (
    HEAVY,
    attribute,
    is_heavy,
    replacement,
    root_of,
    stands_in,
)

INSTALLED = re.compile(r"-packages/|/lib\w*/python[\d.]*/")
SCRIPT = ("__main__", "__mp_main__")

MAX_DATA = 16 * 2**20
"""Limit in bytes of pickled objects that are pickled again in every epoch."""

MAX_HELD = 8 * 2**20
"""Limit in bytes of pickled state of modules that workers import."""

MAX_ARRAYS = 64 * 2**20
"""Limit in bytes of arrays in that state."""

_MAX_PARTS = 256
_OUT_OF_BAND = 2**16
_MAX_BUFFERS = 200  # a bundle's index has room for some more
_MAX_DEPTH = 3  # levels split into parts where the whole cannot be sent
_SCALARS = (bool, int, float, complex, str, bytes, type(None))
_OURS = ("loaderd", "loaderd_client")
_WRAPPERS = {staticmethod: "__func__", classmethod: "__func__", functools.cached_property: "func"}

Step = Any
At = tuple[str, tuple[Step, ...]]
"""A module's name and the steps to an object in it; see ``loaderd.ipc.user_code.Held``."""

_versions: dict[At, list[CodeType]] = {}
"""The code objects that each function has had; reloading a module adds another."""


class Unsendable(Exception):
    """State is not sent, and stays as a worker's import makes it; the message says why."""


class TooLarge(Unsendable):
    """The state exceeds ``MAX_HELD`` or ``MAX_ARRAYS``."""


def is_users(module: str | None) -> bool:
    """Whether a module is the user's, and not a script, installed, or ours."""
    file = getattr(sys.modules.get(module or ""), "__file__", None)
    if not file or module in SCRIPT or INSTALLED.search(file):
        return False
    return str(module).partition(".")[0] not in _OURS


def own_place(thing: Any) -> At | None:
    """The place of a function or a class under its own name; None if it is not there."""
    module, name = attribute(thing, "__module__"), attribute(thing, "__qualname__")
    if not isinstance(module, str) or not isinstance(name, str) or module in SCRIPT:
        return None
    found: Any = sys.modules.get(module)
    for step in name.split("."):
        found = attribute(found, step)
    return (module, tuple(name.split("."))) if found is thing else None


class Capture:
    """Captures functions with their state, once.

    Attributes:
        heavy: heavy packages that a worker must load for them.
        imports: heavy packages that they import and that are not loaded here.
        left_out: state that is not sent, and why.
        stored: names that the code itself assigns, and which each worker has for itself.
    """

    def __init__(self, floatx: str) -> None:
        self.heavy, self.imports = set[str](), set[str]()
        self._floatx = floatx
        self.left_out: dict[At, tuple[Any, Unsendable]] = {}
        self.stored: set[At] = set()
        self._todo: deque[tuple[Any, At | None]] = deque()
        self._seen: dict[int, Any] = {}
        self._state: dict[At, Any] = {}
        self._data = self._arrays = 0  # bytes of state so far
        self._modules: set[tuple[int, int]] = set()
        self._environment: dict[str, str | None] = {}
        self._versions: list[int] = []

    def add(self, function: Any, place: At) -> None:
        """Adds a function of a module, which is sent by name."""
        self._find_wrapped(function, place)

    def code(self, functions: tuple[Any, ...] = ()) -> Code:
        """Functions pickled by value, and the state of modules that they and those added use.

        Raises:
            Exception: one cannot be pickled.
        """
        return self._code(self._pickled(functions, strict=False) if functions else None)

    def _code(self, function: Pickled | None) -> Code:
        """Repeats until nothing new is found, as pickled state may refer to more code."""
        held: dict[At, Pickled] = {}
        while self._todo or self._state:
            if self._todo:
                thing, place = self._todo.popleft()
                if isinstance(thing, type):
                    self._walk_class(thing)
                else:
                    self._walk_function(thing, place)
                continue
            at = next(iter(self._state))
            value = self._state.pop(at)
            if at not in held:
                held |= self._sendable(at, value)
        state = tuple(Held(module, steps, one) for (module, steps), one in held.items())
        return Code(function, state, self._environment, tuple(self._versions))

    # -- pickling --------------------------------------------------------------------

    def _sendable(self, at: At, value: Any, depth: int = 0) -> dict[At, Pickled]:
        """The pickled state at a place; if it cannot be sent, those of its parts that can."""
        try:
            return {at: self._pickled(value, strict=True)}
        except Exception as error:  # pickling the user's objects may raise anything
            why = error if isinstance(error, Unsendable) else Unsendable(str(error))
        parts = _parts(value) if depth < _MAX_DEPTH else []
        if len(parts) > _MAX_PARTS:
            parts = []
        found: dict[At, Pickled] = {}
        for step, part in parts:
            found |= self._sendable((at[0], (*at[1], step)), part, depth + 1)
        if not parts:
            self.left_out[at] = (value, why)
        return found

    def _pickled(self, thing: Any, strict: bool) -> Pickled:
        """Pickles an object, with its large arrays out of band.

        ``strict`` refuses large objects, and those of heavy packages.
        """
        if type(thing) in _SCALARS:
            return Pickled(pickle.dumps(thing))
        buffers: list[Any] = []
        file = _Limited(MAX_HELD - self._data) if strict else io.BytesIO()

        def stays(buffer: pickle.PickleBuffer) -> bool:
            """Whether a buffer is pickled in band."""
            raw = buffer.raw()
            if raw.nbytes < _OUT_OF_BAND or len(buffers) == _MAX_BUFFERS:
                return True
            buffers.append(np.frombuffer(raw, np.uint8))
            if strict and self._arrays + _size(buffers) > MAX_ARRAYS:
                raise TooLarge(f"arrays of modules have more than {MAX_ARRAYS >> 20} MB")
            return False

        pickler = _pickler()(file, buffer_callback=stays)
        pickler.capture, pickler.strict = self, strict
        pickler.dump(thing)
        if strict:
            self._data += file.tell()
            self._arrays += _size(buffers)
        return Pickled(file.getvalue(), tuple(buffers))

    def reduced(self, thing: Any, strict: bool) -> Any:
        """The replacement with which a pickler writes an object; None for the object itself.

        Raises:
            Unsendable: it is not sent as state.
        """
        if is_heavy(thing):
            replaced = replacement(thing, self._floatx)
            if replaced is None and strict:
                raise Unsendable(f"it is of {root_of(thing)}")
            if replaced is None:
                self.heavy.add(root_of(thing))
            return replaced
        if isinstance(thing, (FunctionType, type)):
            self._find(thing, own_place(thing))
        elif strict and isinstance(thing, io.IOBase):
            raise Unsendable("it is an open file")
        return None

    # -- finding ---------------------------------------------------------------------

    def _find(self, thing: Any, at: At | None) -> None:
        """Queues a function or a class, to be walked once.

        ``at`` is its place after a worker's import; None if it is sent by value.
        """
        module = getattr(thing, "__globals__", {}).get("__name__") or thing.__module__
        is_theirs = at is not None and not is_users(at[0])
        if id(thing) in self._seen or is_theirs or _is_installed(module):
            return
        self._seen[id(thing)] = thing
        self._todo.append((thing, at))

    def _find_wrapped(self, thing: Any, at: At) -> None:
        """Queues the function wrapped in a callable object, as of ``functools.lru_cache``."""
        for _ in range(_MAX_DEPTH):
            if isinstance(thing, (FunctionType, type)):
                self._find(thing, own_place(thing) or at)
                return
            thing, at = attribute(thing, "__wrapped__"), (at[0], (*at[1], "__wrapped__"))

    def _walk_function(self, function: FunctionType, at: At | None) -> None:
        names = names_of(function.__code__)
        variables = function.__globals__
        module = str(variables.get("__name__"))
        is_home = at is not None and vars(sys.modules.get(module, object)) is variables
        cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=False))
        for root, *rest in names.chains:
            if root in cells:
                self._follow(_content(cells[root]), None, rest, names)
            elif root in variables:
                place = (module, (root,)) if is_home else None
                self._follow(variables[root], place, rest, names)
        for name, *rest in names.imports:
            self._follow_import(_resolved(name, variables), rest, names)
        if not names.words.isdisjoint(("environ", "getenv")):
            self._environment |= _environment(names)
        if at is not None:
            self._versions.append(_version(at, function.__code__))
            self.stored.update((module, (name,)) for name in names.stored)
            self._walk_state(function, at)

    def _walk_state(self, function: FunctionType, at: At) -> None:
        """Collects closure, attributes and defaults of a function that workers import."""
        module, steps = at
        for index, cell in enumerate(function.__closure__ or ()):
            self._hold((module, (*steps, index)), _content(cell))
        for name, value in vars(function).items():
            self._hold((module, (*steps, name)), value)
        for name in ("__defaults__", "__kwdefaults__"):
            value = getattr(function, name)
            values = value.values() if isinstance(value, dict) else value or ()
            if any(type(one) not in _SCALARS for one in values):
                self._hold((module, (*steps, name)), value)

    def _walk_class(self, kind: type) -> None:
        for base in kind.__mro__:
            at = own_place(base)
            known = base is kind or id(base) not in self._seen
            if at is None or not is_users(at[0]) or not known or issubclass(base, enum.Enum):
                continue
            self._seen[id(base)] = base
            for name, value in vars(base).items():
                self._walk_member((at[0], (*at[1], name)), value)
        if own_place(kind) is None:  # its functions are sent with it
            for value in vars(kind).values():
                self._walk_member(None, value)

    def _walk_member(self, at: At | None, value: Any) -> None:
        """Collects a member of a class: methods are code, the rest is state."""
        for wrapper, step in _WRAPPERS.items():
            if isinstance(value, wrapper):
                at, value = at and (at[0], (*at[1], step)), getattr(value, step)
        if isinstance(value, property):
            for step in ("fget", "fset"):
                self._walk_member(at and (at[0], (*at[1], step)), getattr(value, step))
        elif isinstance(value, (FunctionType, type)):
            self._find(value, at if isinstance(value, FunctionType) else own_place(value))
        elif at is not None and not _is_special(at[1][-1]) and not hasattr(type(value), "__get__"):
            self._hold(at, value)

    def _hold(self, at: At, value: Any) -> None:
        """Notes state at a place, if a worker's import may give another value."""
        if isinstance(value, ModuleType):
            return
        if callable(value):
            place = own_place(value)
            self._find_wrapped(value, at)
            is_code = isinstance(value, (FunctionType, type))
            if place == at or (is_code and place is None and value.__module__ == at[0]):
                return  # importing makes it
            if is_heavy(value):
                self._use(value)
                return
        self._state[at] = value

    def _follow(self, value: Any, at: At | None, rest: list[str], names: CodeNames) -> None:
        """Collects the state at the end of a chain of names."""
        if isinstance(value, ModuleType):
            self._follow_module(value, rest, names)
        elif at is not None:
            self._hold(at, value)

    def _follow_module(self, module: ModuleType, rest: list[str], names: CodeNames) -> None:
        if is_heavy(module):
            self._use(_end(module, rest))
        elif is_users(module.__name__) and sys.modules.get(module.__name__) is module:
            variables = vars(module)
            found = [name for name in rest[:1] if name in variables]
            is_new = (id(module), id(names)) not in self._modules
            if not rest and is_new:  # any attribute may be read
                self._modules.add((id(module), id(names)))
                found = sorted(names.words & variables.keys())
            for name in found:
                self._follow(variables[name], (module.__name__, (name,)), rest[1:], names)

    def _follow_import(self, name: str, rest: list[str], names: CodeNames) -> None:
        module = sys.modules.get(name)
        if module is not None:
            self._follow_module(module, rest, names)
            return
        package = {name.partition(".")[0]} & HEAVY
        self.imports |= package
        if not stands_in(name, rest):
            self.heavy |= package

    def _use(self, value: Any) -> None:
        """Notes an object of a heavy package that the code uses, if workers need the real one."""
        used = value is not None and not isinstance(value, ModuleType)
        if used and replacement(value, self._floatx) is None:
            self.heavy.add(root_of(value))


@functools.cache
def _pickler() -> type[Any]:
    class CapturePickler(pickling.pickler()):  # type: ignore[misc]  # needs cloudpickle
        """Passes every object to the capture."""

        capture: Capture
        strict: bool

        def reducer_override(self, thing: Any) -> Any:
            reduced = self.capture.reduced(thing, self.strict)
            return super().reducer_override(thing) if reduced is None else reduced

    return CapturePickler


class _Limited(io.BytesIO):
    """A file with a maximum size in bytes."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__()
        self._max_bytes = max_bytes

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > self._max_bytes:
            raise TooLarge(f"modules hold more than {MAX_HELD >> 20} MB")
        return super().write(data)


def _size(buffers: list[Any]) -> int:
    return sum(one.nbytes for one in buffers)


def _is_installed(module: str | None) -> bool:
    file = getattr(sys.modules.get(module or ""), "__file__", None)
    return bool(file and INSTALLED.search(file))


def _environment(names: CodeNames) -> dict[str, str | None]:
    """The environment variables that the code may read."""
    words = [word for word in names.words if word in os.environ or word.isupper()]
    return {word: os.environ.get(word) for word in sorted(words)}


def _version(at: At, code: CodeType) -> int:
    known = _versions.setdefault(at, [])
    if code not in known:
        known.append(code)
    return known.index(code)


def _resolved(name: str, variables: dict[str, Any]) -> str:
    """The absolute name of an imported module."""
    package = variables.get("__package__")
    return importlib.util.resolve_name(name, package) if name[0] == "." and package else name


def _end(module: ModuleType, rest: list[str]) -> Any:
    """The first object in a chain of attributes that is no module, or the last module."""
    value: Any = module
    for name in rest:
        if not isinstance(value, ModuleType):
            break
        value = attribute(value, name)
    return value


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _is_special(name: object) -> bool:
    return isinstance(name, str) and (
        (name.startswith("__") and name.endswith("__")) or name == "_abc_impl"
    )


def _parts(value: Any) -> list[tuple[Step, Any]]:
    """The attributes of a user's object, or the items of a dictionary, with their steps."""
    found: list[tuple[Step, Any]] = []
    if isinstance(value, dict):
        items = dict.items(value)
        found += [((key,), part) for key, part in items if isinstance(key, (str, int))]
    if is_users(type(value).__module__):
        found += (attribute(value, "__dict__") or {}).items()
    return found
