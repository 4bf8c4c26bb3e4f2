"""The packing of the user's functions for the workers.

They are a ``preprocessing_function``, or those of ``A.Function`` in a list of operations.

- ``keras.applications.*.preprocess_input`` is recognised; workers compute it with NumPy.
- A function of a module is sent by name.
- Any other (a lambda, a closure, a function of the script) is pickled by value with cloudpickle.

The last two are sent with the state that they use (:mod:`loaderd_client.keras.capture`). Programs
may change it while they train, so iterators call :func:`pack` again in every epoch; it is fast, and
returns equal parts if nothing has changed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
import numpy as np

from loaderd.errors import InvalidArgument, InvalidType, MissingDependency
from loaderd.ipc.bundle import Parts, same_bytes
from loaderd.ipc.user_code import PART, Code
from loaderd.launch import search_path
from loaderd.spec.operations import (
    GivenAs,
    ImagenetPreprocessing,
    Keras,
    NamedFunction,
    UserCode,
    labelled,
)
from loaderd.spec.spec import Spec
from loaderd_client.core.user_warnings import warn
from loaderd_client.keras import adapter, keras_functions
from loaderd_client.keras.capture import (
    INSTALLED,
    MAX_DATA,
    At,
    Capture,
    TooLarge,
    is_users,
    own_place,
)

_KERAS = {"keras", "tf_keras", "tensorflow"}
_INSTEAD = {
    None: "leave it out",
    "tf": "put Rescaling(1 / 127.5, offset=-1) last in the list",
    "torch": 'put Normalization("imagenet") last in the list',
    "caffe": "put it into the model, as a Lambda layer",
}
"""What to write for a ``preprocess_input``, by its mode."""
_unsent: dict[At, int] = {}
"""State of modules that was not sent: place → ``id`` of the object."""


class PackedFunction(NamedTuple):
    """Functions in the form of a spec and a bundle.

    Attributes:
        operation: the computation of ``keras.applications``, or the user's functions.
        parts: their parts of the bundle; see :mod:`loaderd.ipc.user_code`.
    """

    operation: ImagenetPreprocessing | UserCode | None = None
    parts: Parts = MappingProxyType({})

    @classmethod
    def of(cls, spec: Spec, parts: Parts) -> PackedFunction:
        """The functions that were sent with a spec."""
        own = {name: part for name, part in parts.items() if name.partition(".")[0] == PART}
        return cls(spec.first(ImagenetPreprocessing) or spec.function, own)

    @property
    def code(self) -> UserCode | None:
        """The user's functions."""
        return self.operation if isinstance(self.operation, UserCode) else None

    @property
    def is_watched(self) -> bool:
        """Whether they are small enough to be pickled again in every epoch."""
        return PART not in self.parts or self.parts[PART].nbytes <= MAX_DATA


class _FunctionsToPack(NamedTuple):
    """What a user has given.

    Attributes:
        functions: at least one.
        given_as: in which way.
        floatx: Keras's.
    """

    functions: tuple[Callable[..., Any], ...]
    given_as: GivenAs
    floatx: str

    @property
    def label(self) -> str:
        """What they are called in messages."""
        return labelled(self.given_as, [_name(one) for one in self.functions])

    @property
    def anew(self) -> str:
        """What brings a change to workers that is not noticed."""
        if self.given_as == "A.Function":
            return "make the dataset anew"
        return "assign preprocessing_function anew"


def pack(
    function: Callable[..., Any] | None, floatx: str, before: PackedFunction | None = None
) -> PackedFunction:
    """Packs the function of a generator for the workers.

    Args:
        function: takes an image and returns one; None for none.
        floatx: Keras's ``floatx``.
        before: the same function as it was sent before, if it was. A large one (not
            ``is_watched``) is not pickled again, as the user was warned.

    Raises:
        InvalidArgument: it cannot be pickled; the message says why.
        MissingDependency: it needs cloudpickle, which is not installed.
    """
    if function is None:
        return PackedFunction()
    if not callable(function):
        raise InvalidType(f"`preprocessing_function` should be callable. Received: {function!r}")
    known = keras_functions.arithmetic(function, floatx)
    if known is not None:
        if known.mode is None:
            return PackedFunction()
        return PackedFunction(ImagenetPreprocessing(mode=known.mode, data_format=known.data_format))
    return _packed(_FunctionsToPack((function,), "preprocessing_function", floatx), before)


def pack_listed(
    functions: Sequence[Callable[..., Any]], before: PackedFunction | None = None
) -> PackedFunction:
    """Packs the functions of a list of operations for the workers.

    Args:
        functions: in the order of their numbers.
        before: the same functions as they were sent before, if they were; see ``pack``.

    Raises:
        InvalidArgument: one cannot be pickled, or is one of Keras whose result is no image of
            bytes.
        MissingDependency: one needs cloudpickle, which is not installed.
    """
    if not functions:
        return PackedFunction()
    floatx = adapter.floatx()
    for function in functions:
        known = keras_functions.arithmetic(function, floatx)
        if known is not None:
            raise InvalidArgument(
                "A.Function takes and returns images of bytes, and preprocess_input of "
                f"keras.applications makes others: {_INSTEAD[known.mode]}"
            )
    return _packed(_FunctionsToPack(tuple(functions), "A.Function", floatx), before)


class ListedFunctions:
    """The functions of a list, whose state programs may change while they train.

    Args:
        functions: as the spec's ``code`` numbers them.

    Attributes:
        may_have_changed: whether they are to be looked at before the next batch.
    """

    def __init__(self, functions: Sequence[Callable[..., Any]]) -> None:
        self._functions = tuple(functions)
        self.may_have_changed = False

    def are_due(self, between_epochs: bool) -> bool:
        """Whether to look at them, at the end of an epoch or between two; true once."""
        due = bool(self._functions) and (self.may_have_changed or between_epochs)
        self.may_have_changed = self.may_have_changed and not due
        return due

    def changed(self, spec: Spec, parts: Parts) -> tuple[Spec, Parts] | None:
        """The spec and its parts with their present state; None if it is the same."""
        before = PackedFunction.of(spec, parts)
        packed = pack_listed(self._functions, before)
        if packed.parts is before.parts and packed.code == spec.code:
            return None
        others = {name: part for name, part in parts.items() if name not in before.parts}
        return msgspec.structs.replace(spec, code=packed.code), {**others, **packed.parts}


def _packed(given: _FunctionsToPack, before: PackedFunction | None) -> PackedFunction:
    """The functions, or those of before if they and their state are the same."""
    if before is not None and not before.is_watched:
        return before
    capture, packed = _captured(given)
    for text in _left_out(capture, given.label):
        warn(text)
    if before is not None:
        if _same(packed.parts, before.parts):
            return packed._replace(parts=before.parts)
        if not _same(packed.parts, _captured(given)[1].parts):
            warn(
                f"{given.label} is pickled differently each time, so what is changed in it does "
                f"not reach the workers: {given.anew} when it changes",
            )
            return before
    elif not packed.is_watched:
        warn(
            f"{given.label} holds more than {MAX_DATA >> 20} MB beside arrays, so what is changed "
            f"in it does not reach the workers: {given.anew} when it changes, or keep large data "
            "in NumPy arrays",
        )
    if capture.heavy:
        warn(
            f"{given.label} makes every worker load {', '.join(sorted(capture.heavy))}, which "
            "takes seconds and half a gigabyte each: use NumPy in it, or only Keras's "
            "preprocess_input and functions for images",
        )
    # Not the functions' own arrays, which may be changed in place.
    return packed._replace(parts={part: np.array(own) for part, own in packed.parts.items()})


def _captured(given: _FunctionsToPack) -> tuple[Capture, PackedFunction]:
    """The functions packed with their present state."""
    capture = Capture(given.floatx)
    places = [own_place(function) for function in given.functions]
    unnamed: list[Callable[..., Any]] = []
    for function, place in zip(given.functions, places, strict=True):
        if place is None:
            unnamed.append(function)
        elif is_users(place[0]):
            capture.add(function, place)
    parts = _code(capture, tuple(unnamed), given).parts()
    if not adapter.is_loaded() and not capture.imports.isdisjoint(_KERAS):
        adapter.in_use()  # what stands in for it in workers is made of what is loaded here
        return _captured(given)
    named = [
        NamedFunction(place[0] if place else "", _name(function), _file(place[0]) if place else "")
        for function, place in zip(given.functions, places, strict=True)
    ]
    return capture, PackedFunction(
        UserCode(
            tuple(named),
            _path(),
            _folder(),
            sys.version_info[:2] if parts else (0, 0),
            _keras(capture, given.floatx),
            given.given_as,
        ),
        parts=parts,
    )


def _same(parts: Parts, others: Parts) -> bool:
    return parts.keys() == others.keys() and all(
        same_bytes(part, others[name]) for name, part in parts.items()
    )


def _name(function: Callable[..., Any]) -> str:
    name = keras_functions.attribute(function, "__qualname__")
    return name if isinstance(name, str) else type(function).__qualname__


def _code(
    capture: Capture, unnamed: tuple[Callable[..., Any], ...], given: _FunctionsToPack
) -> Code:
    label = labelled(given.given_as, [_name(one) for one in unnamed])
    try:
        return capture.code(unnamed)
    except MissingDependency as error:
        raise MissingDependency(
            f"{label} is no function of a module, and sending it takes cloudpickle: pip install "
            "cloudpickle, or put it into a module"
        ) from error
    except Exception as error:  # pickling the user's objects may raise anything
        raise InvalidArgument(
            f"{label} cannot be sent to workers: {error}; make such things within the function, "
            "or put both into a module, which workers import"
        ) from error


def _keras(capture: Capture, floatx: str) -> Keras:
    data_format = adapter.image_data_format()
    return Keras(
        floatx=floatx,
        data_format=data_format,
        backend=adapter.backend(),
        legacy=adapter.is_legacy(),
        itself=not capture.heavy.isdisjoint(_KERAS),
        preprocess=keras_functions.applications(floatx, data_format) if adapter.is_loaded() else (),
    )


def _file(module: str) -> str:
    """The file of a module; empty for installed packages, whose paths may differ in the daemon."""
    file = getattr(sys.modules[module], "__file__", None) or ""
    return "" if not file or INSTALLED.search(file) else search_path.absolute(file) or file


def _path() -> tuple[str, ...]:
    folders = (search_path.absolute(entry) for entry in sys.path if isinstance(entry, str))
    return tuple(dict.fromkeys(folder for folder in folders if folder is not None))


def _folder() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # it was removed
        return ""


def _left_out(capture: Capture, label: str) -> Iterator[str]:
    """Warnings of state that is not sent, if it is large, of a heavy package, or newly assigned."""
    for at, (value, why) in capture.left_out.items():
        is_new = _unsent.get(at, id(value)) != id(value) and at not in capture.stored
        first = at not in _unsent
        _unsent[at] = id(value)
        is_data = isinstance(why, TooLarge) or keras_functions.is_heavy(value)
        if is_new or (first and is_data):
            where = ".".join((at[0], *(str(step) for step in at[1])))
            yield (
                f"{label} uses {where}, which is not sent to workers ({why}): they have what "
                f"importing {at[0]} makes of it, whatever the program assigns; make it within the "
                "function or the module, or hold it in an object that is the function"
            )
