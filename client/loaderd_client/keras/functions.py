"""The packing of a ``preprocessing_function`` for the workers.

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
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from loaderd.errors import InvalidArgument, InvalidType, MissingDependency
from loaderd.ipc.bundle import Parts, same_bytes
from loaderd.ipc.user_code import PART, Code
from loaderd.launch import search_path
from loaderd.spec.operations import Function, ImagenetPreprocessing, Keras
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
_unsent: dict[At, int] = {}
"""State of modules that was not sent: place → ``id`` of the object."""


class PackedFunction(NamedTuple):
    """A function in the form of a spec and a bundle.

    Attributes:
        operation: the computation of ``keras.applications``, or the user's function.
        parts: its parts of the bundle; see :mod:`loaderd.ipc.user_code`.
    """

    operation: ImagenetPreprocessing | Function | None = None
    parts: Parts = MappingProxyType({})

    @classmethod
    def of(cls, spec: Spec, parts: Parts) -> PackedFunction:
        """The function that was sent with a spec."""
        own = {name: part for name, part in parts.items() if name.partition(".")[0] == PART}
        return cls(spec.first(ImagenetPreprocessing) or spec.function, own)

    @property
    def is_watched(self) -> bool:
        """Whether it is small enough to be pickled again in every epoch."""
        return PART not in self.parts or self.parts[PART].nbytes <= MAX_DATA


def pack(
    function: Callable[..., Any] | None, floatx: str, before: PackedFunction | None = None
) -> PackedFunction:
    """Packs a function for the workers.

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
    name = _name(function)
    if before is not None and not before.is_watched:
        return before
    capture, packed = _packed(function, floatx)
    for text in _left_out(capture, name):
        warn(text)
    if before is not None:
        if _same(packed.parts, before.parts):
            return packed._replace(parts=before.parts)
        if not _same(packed.parts, _packed(function, floatx)[1].parts):
            warn(
                f"preprocessing_function {name} is pickled differently each time, so what is "
                "changed in it does not reach the workers: assign preprocessing_function anew when "
                "it changes",
            )
            return before
    elif not packed.is_watched:
        warn(
            f"preprocessing_function {name} holds more than {MAX_DATA >> 20} MB beside arrays, so "
            "what is changed in it does not reach the workers: assign preprocessing_function anew "
            "when it changes, or keep large data in NumPy arrays",
        )
    if capture.heavy:
        warn(
            f"preprocessing_function {name} makes every worker load "
            f"{', '.join(sorted(capture.heavy))}, which takes seconds and half a gigabyte each: "
            "use NumPy in it, or only Keras's preprocess_input and functions for images",
        )
    # Not the function's own arrays, which may be changed in place.
    return packed._replace(parts={part: np.array(own) for part, own in packed.parts.items()})


def _packed(function: Callable[..., Any], floatx: str) -> tuple[Capture, PackedFunction]:
    """The function packed with its present state."""
    name, place = _name(function), own_place(function)
    capture = Capture(floatx)
    if place is None:
        parts = _by_value(capture, function, name).parts()
    else:
        parts = capture.by_name(function, place).parts() if is_users(place[0]) else {}
    return capture, PackedFunction(
        Function(
            place[0] if place else "",
            name,
            _file(place[0]) if place else "",
            _path(),
            _folder(),
            sys.version_info[:2] if parts else (0, 0),
            _keras(capture, floatx),
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


def _by_value(capture: Capture, function: Callable[..., Any], name: str) -> Code:
    try:
        return capture.by_value(function)
    except MissingDependency as error:
        raise MissingDependency(
            f"preprocessing_function {name} is no function of a module, and sending it takes "
            "cloudpickle: pip install cloudpickle, or put it into a module"
        ) from error
    except Exception as error:  # pickling the user's objects may raise anything
        raise InvalidArgument(
            f"preprocessing_function {name} cannot be sent to workers: {error}; make such "
            "things within the function, or put both into a module, which workers import"
        ) from error


def _keras(capture: Capture, floatx: str) -> Keras:
    data_format = adapter.image_data_format()
    return Keras(
        floatx=floatx,
        data_format=data_format,
        backend=adapter.backend(),
        legacy=adapter.is_legacy(),
        itself=not capture.heavy.isdisjoint(_KERAS),
        preprocess=keras_functions.applications(floatx, data_format),
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


def _left_out(capture: Capture, name: str) -> Iterator[str]:
    """Warnings of state that is not sent, if it is large, of a heavy package, or newly assigned."""
    for at, (value, why) in capture.left_out.items():
        is_new = _unsent.get(at, id(value)) != id(value) and at not in capture.stored
        first = at not in _unsent
        _unsent[at] = id(value)
        is_data = isinstance(why, TooLarge) or keras_functions.is_heavy(value)
        if is_new or (first and is_data):
            where = ".".join((at[0], *(str(step) for step in at[1])))
            yield (
                f"preprocessing_function {name} uses {where}, which is not sent to workers "
                f"({why}): they have what importing {at[0]} makes of it, whatever the program "
                "assigns; make it within the function or the module, or hold it in an object "
                "that is the preprocessing_function"
            )
