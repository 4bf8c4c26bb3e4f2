"""What a function works with, and how it is sent.

A function reads what others assign: globals of its module, attributes of modules that it imports,
of its class, of the objects that it holds. In Keras it runs in the trainer and sees them. Here
they are collected, and sent with it::

    travels by value ──► pickled, with the globals that it reads (cloudpickle)
    travels by name ───► its module's globals that its code reads, one by one
    either ────────────► the same of every module of the user's that its code refers to, of
                         functions and classes that it calls, and so on

What cannot be pickled, and what lies in installed packages, stays as a worker's import makes it.
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
from loaderd_client.keras import keras_functions
from loaderd_client.keras.code_names import CodeNames, names_of
from loaderd_client.keras.keras_functions import attribute

INSTALLED = re.compile(r"-packages/|/lib\w*/python[\d.]*/")
SCRIPT = ("__main__", "__mp_main__")

MAX_DATA = 16 * 2**20
"""Bytes of pickled objects that are pickled again with every epoch."""

MAX_HELD = 8 * 2**20
"""Bytes of pickled objects that are sent beside the imports of modules."""

MAX_ARRAYS = 64 * 2**20
"""Bytes of arrays that are sent beside these."""

_MAX_PARTS = 256
_OUT_OF_BAND = 2**16
_MAX_BUFFERS = 200  # a bundle's index has room for some more
_DEEPEST = 3  # levels that are taken apart where the whole cannot be sent
_SCALARS = (bool, int, float, complex, str, bytes, type(None))
_OURS = ("loaderd", "loaderd_client")
_WRAPPERS = {staticmethod: "__func__", classmethod: "__func__", functools.cached_property: "func"}

Step = Any
At = tuple[str, tuple[Step, ...]]
"""A module's name, and how to get to a thing of it; see ``loaderd.ipc.user_code.Held``."""

_versions: dict[At, list[CodeType]] = {}
"""The code that functions have had: reloading a module gives them another."""


class Unsendable(Exception):
    """Something stays as a worker's import makes it; the text says why."""


class TooLarge(Unsendable):
    """It has more bytes than are sent beside an import."""


def is_users(module: str | None) -> bool:
    """Whether a module is the user's own, in a file that workers import."""
    file = getattr(sys.modules.get(module or ""), "__file__", None)
    if not file or module in SCRIPT or INSTALLED.search(file):
        return False
    return str(module).partition(".")[0] not in _OURS


def own_place(thing: Any) -> At | None:
    """Where a module has a function or a class under its own name; None if it has not."""
    module, name = attribute(thing, "__module__"), attribute(thing, "__qualname__")
    if not isinstance(module, str) or not isinstance(name, str) or module in SCRIPT:
        return None
    found: Any = sys.modules.get(module)
    for step in name.split("."):
        found = attribute(found, step)
    return (module, tuple(name.split("."))) if found is thing else None


class _Heavy:
    """Which of the packages that take seconds to load the workers need.

    Args:
        floatx: what Keras computes in.

    Attributes:
        roots: their names.
    """

    def __init__(self, floatx: str) -> None:
        self.roots: set[str] = set()
        self._floatx = floatx

    def ask(self, module: ModuleType, rest: list[str]) -> None:
        """Notes whether workers need the real module for what is asked of it."""
        value: Any = module
        for name in rest:
            if not isinstance(value, ModuleType):
                break
            value = attribute(value, name)
        if value is not None and not isinstance(value, ModuleType):
            self.use(value)

    def use(self, value: Any) -> None:
        """Notes something of a heavy package that the code uses."""
        if keras_functions.replacement(value, self._floatx) is None:
            self.roots.add(keras_functions.root_of(value))

    def reduced(self, thing: Any, root: str, strict: bool) -> Any:
        """What is pickled in the place of a thing of theirs; None for the thing itself."""
        replaced = keras_functions.replacement(thing, self._floatx)
        if replaced is not None:
            return replaced
        if strict:
            raise Unsendable(f"it is of {root}")
        self.roots.add(root)
        return None


class Capture:
    """One look at a function and at what it works with.

    Args:
        floatx: what Keras computes in.

    Attributes:
        heavy: packages that a worker must load for it.
        left_out: what is not sent, and why.
        stored: names that the code itself assigns: workers have their own.
    """

    def __init__(self, floatx: str) -> None:
        self._heavy = _Heavy(floatx)
        self.heavy = self._heavy.roots
        self.left_out: dict[At, tuple[Any, Unsendable]] = {}
        self.stored: set[At] = set()
        self._todo: deque[tuple[Any, At | None]] = deque()
        self._seen: dict[int, Any] = {}
        self._state: dict[At, Any] = {}
        self._data = self._arrays = 0  # bytes that are sent beside imports
        self._modules: set[tuple[int, int]] = set()
        self._environment: dict[str, str | None] = {}
        self._versions: list[int] = []

    def by_value(self, function: Any) -> Code:
        """The function, and what the modules hold that it uses.

        Raises:
            Exception: it cannot be pickled.
        """
        return self._code(self._pickled(function, strict=False))

    def by_name(self, function: Any) -> Code:
        """What the function's module holds, and those that it uses."""
        place = own_place(function)
        assert place is not None
        self._find_wrapped(function, place)
        return self._code(None)

    def _code(self, function: Pickled | None) -> Code:
        """Goes on until nothing new is found: what is pickled refers to more code."""
        held: dict[At, Pickled] = {}
        while self._todo or self._state:
            if self._todo:
                self._walk(*self._todo.popleft())
                continue
            at = next(iter(self._state))
            value = self._state.pop(at)
            if at not in held:
                held |= self._sendable(at, value)
        state = tuple(Held(module, steps, one) for (module, steps), one in held.items())
        return Code(function, state, self._environment, tuple(self._versions))

    # -- pickling --------------------------------------------------------------------

    def _sendable(self, at: At, value: Any, depth: int = 0) -> dict[At, Pickled]:
        """What is there; where that cannot be sent, those of its parts that can."""
        try:
            return {at: self._pickled(value, strict=True)}
        except Exception as error:  # what it refers to may refuse in any way
            why = error if isinstance(error, Unsendable) else Unsendable(str(error))
        parts = _parts(value) if depth < _DEEPEST else []
        if len(parts) > _MAX_PARTS:
            parts = []
        found: dict[At, Pickled] = {}
        for step, part in parts:
            found |= self._sendable((at[0], (*at[1], step)), part, depth + 1)
        if not parts:
            self.left_out[at] = (value, why)
        return found

    def _pickled(self, thing: Any, strict: bool) -> Pickled:
        """A thing pickled, with its large arrays beside it.

        Args:
            thing: the thing.
            strict: whether what is large, or of a heavy package, is refused.
        """
        if type(thing) in _SCALARS:
            return Pickled(pickle.dumps(thing))
        buffers: list[Any] = []
        file = _Limited(MAX_HELD - self._data) if strict else io.BytesIO()

        def stays(buffer: pickle.PickleBuffer) -> bool:
            """Whether a buffer stays among the pickled bytes."""
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
        """What a pickler writes in the thing's place; None for the thing itself.

        Raises:
            Unsendable: it is not sent beside an import.
        """
        root = keras_functions.root_of(thing)
        if root in keras_functions.HEAVY:
            return self._heavy.reduced(thing, root, strict)
        if isinstance(thing, (FunctionType, type)):
            self._find(thing, own_place(thing))
        elif strict and isinstance(thing, io.IOBase):
            raise Unsendable("it is an open file")
        return None

    # -- finding ---------------------------------------------------------------------

    def _find(self, thing: Any, at: At | None) -> None:
        """Notes code of the user's, to be walked through once.

        Args:
            thing: a function or a class.
            at: where workers find it after importing; None if it travels by value.
        """
        module = getattr(thing, "__globals__", {}).get("__name__") or thing.__module__
        is_theirs = at is not None and not is_users(at[0])
        if id(thing) in self._seen or is_theirs or _is_installed(module):
            return
        self._seen[id(thing)] = thing
        self._todo.append((thing, at))

    def _find_wrapped(self, thing: Any, at: At) -> None:
        """Notes the function within a callable object, as ``functools.lru_cache`` makes them."""
        for _ in range(_DEEPEST):
            if isinstance(thing, (FunctionType, type)):
                self._find(thing, own_place(thing) or at)
                return
            thing, at = attribute(thing, "__wrapped__"), (at[0], (*at[1], "__wrapped__"))

    def _walk(self, thing: Any, at: At | None) -> None:
        if isinstance(thing, type):
            self._walk_class(thing)
        else:
            self._walk_function(thing, at)

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
            self._look_at_function(function, at)

    def _look_at_function(self, function: FunctionType, at: At) -> None:
        """What a function that workers import holds itself."""
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
                self._look_at_member((at[0], (*at[1], name)), value)
        if own_place(kind) is None:  # its functions travel with it
            for value in vars(kind).values():
                self._look_at_member(None, value)

    def _look_at_member(self, at: At | None, value: Any) -> None:
        """A name of a class: its methods are code, the rest is state."""
        for wrapper, step in _WRAPPERS.items():
            if isinstance(value, wrapper):
                at, value = at and (at[0], (*at[1], step)), getattr(value, step)
        if isinstance(value, property):
            for step in ("fget", "fset"):
                self._look_at_member(at and (at[0], (*at[1], step)), getattr(value, step))
        elif isinstance(value, (FunctionType, type)):
            self._find(value, at if isinstance(value, FunctionType) else own_place(value))
        elif at is not None and not _is_special(at[1][-1]) and not hasattr(type(value), "__get__"):
            self._hold(at, value)

    def _hold(self, at: At, value: Any) -> None:
        """Notes what a module holds somewhere, if a worker's import may make it otherwise."""
        if isinstance(value, ModuleType):
            return
        if callable(value):
            place = own_place(value)
            self._find_wrapped(value, at)
            is_code = isinstance(value, (FunctionType, type))
            if place == at or (is_code and place is None and value.__module__ == at[0]):
                return  # importing makes it
            if keras_functions.root_of(value) in keras_functions.HEAVY:
                self._heavy.use(value)
                return
        self._state[at] = value

    def _follow(self, value: Any, at: At | None, rest: list[str], names: CodeNames) -> None:
        """What a chain of names leads to."""
        if isinstance(value, ModuleType):
            self._follow_module(value, rest, names)
        elif at is not None:
            self._hold(at, value)

    def _follow_module(self, module: ModuleType, rest: list[str], names: CodeNames) -> None:
        if keras_functions.root_of(module) in keras_functions.HEAVY:
            self._heavy.ask(module, rest)
        elif is_users(module.__name__) and sys.modules.get(module.__name__) is module:
            variables = vars(module)
            found = [name for name in rest[:1] if name in variables]
            if not rest and (id(module), id(names)) not in self._modules:  # it may be asked of any
                self._modules.add((id(module), id(names)))
                found = sorted(names.words & variables.keys())
            for name in found:
                self._follow(variables[name], (module.__name__, (name,)), rest[1:], names)

    def _follow_import(self, name: str, rest: list[str], names: CodeNames) -> None:
        module = sys.modules.get(name)
        if module is not None:
            self._follow_module(module, rest, names)
        elif not keras_functions.stands_in(name, rest):
            self.heavy.update({name.partition(".")[0]} & keras_functions.HEAVY)


@functools.cache
def _pickler() -> type[Any]:
    class CapturePickler(pickling.pickler()):  # type: ignore[misc]  # made when cloudpickle is there
        """Asks the capture for everything that it meets."""

        capture: Capture
        strict: bool

        def reducer_override(self, thing: Any) -> Any:
            reduced = self.capture.reduced(thing, self.strict)
            return super().reducer_override(thing) if reduced is None else reduced

    return CapturePickler


class _Limited(io.BytesIO):
    """A file that takes so many bytes."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > self._most:
            raise TooLarge(f"modules hold more than {MAX_HELD >> 20} MB")
        return super().write(data)


def _size(buffers: list[Any]) -> int:
    return sum(one.nbytes for one in buffers)


def _is_installed(module: str | None) -> bool:
    file = getattr(sys.modules.get(module or ""), "__file__", None)
    return bool(file and INSTALLED.search(file))


def _environment(names: CodeNames) -> dict[str, str | None]:
    """The variables that code may read."""
    words = [word for word in names.words if word in os.environ or word.isupper()]
    return {word: os.environ.get(word) for word in sorted(words)}


def _version(at: At, code: CodeType) -> int:
    known = _versions.setdefault(at, [])
    if code not in known:
        known.append(code)
    return known.index(code)


def _resolved(name: str, variables: dict[str, Any]) -> str:
    """The full name of a module that a function imports."""
    package = variables.get("__package__")
    return importlib.util.resolve_name(name, package) if name[0] == "." and package else name


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty yet
        return None


def _is_special(name: object) -> bool:
    return isinstance(name, str) and (
        (name.startswith("__") and name.endswith("__")) or name == "_abc_impl"
    )


def _parts(value: Any) -> list[tuple[Step, Any]]:
    """The attributes of an object, or the items of a dictionary, one by one."""
    found: list[tuple[Step, Any]] = []
    if isinstance(value, dict):
        items = dict.items(value)
        found += [((key,), part) for key, part in items if isinstance(key, (str, int))]
    if is_users(type(value).__module__):
        found += (attribute(value, "__dict__") or {}).items()
    return found
