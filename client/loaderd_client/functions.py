"""A ``preprocessing_function`` on its way to the workers.

- One of ``keras.applications.*.preprocess_input`` is recognised by where it comes from and
  by what it does to a probe: workers do its arithmetic and never load Keras.
- A function that a module holds travels by its name.
- Anything else (a lambda, a closure, what the script itself defines) is pickled by value
  with cloudpickle.
"""

from __future__ import annotations

import io
import pickletools
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from loaderd.errors import InvalidArgument, InvalidType, MissingDependency
from loaderd.launch import search_path
from loaderd.render.normalize import Imagenet, imagenet
from loaderd.wire.spec import DataFormat, Function, Preprocessing

_APPLICATIONS = re.compile(
    r"(keras|tf_keras|tensorflow\.python\.keras)(\.src|\.api)*\.applications\b"
)
_INSTALLED = re.compile(r"-packages/|/lib\w*/python[\d.]*/")
_HEAVY = {"tensorflow", "keras", "tf_keras", "jax", "torch"}
_MAIN = ("__main__", "__mp_main__")


class Packed(NamedTuple):
    """A function as a pipeline and a bundle hold it.

    Attributes:
        preprocessing: the arithmetic of ``keras.applications``, if it is that.
        data_format: where that looks for the channels.
        function: the user's function, if it is one.
        pickled: its bytes, if it travels by value.
    """

    preprocessing: Preprocessing | None = None
    data_format: DataFormat = "channels_last"
    function: Function | None = None
    pickled: NDArray[np.uint8] | None = None


def pack(function: Callable[..., Any] | None, floatx: str) -> Packed:
    """Makes a function ready to travel.

    Args:
        function: takes an image and returns one; None for none.
        floatx: what Keras computes in.

    Raises:
        InvalidArgument: it cannot be pickled; the text says why.
        MissingDependency: that takes cloudpickle, which is not installed.
    """
    if function is None:
        return Packed()
    if not callable(function):
        raise InvalidType(f"`preprocessing_function` should be callable. Received: {function!r}")
    known = _recognise(function, floatx)
    if known is not None:
        return known
    name = getattr(function, "__qualname__", type(function).__qualname__)
    if _is_importable(function):
        return Packed(function=Function(function.__module__, name, _file(function), _path()))
    asked = Function("", name, path=_path(), python=sys.version_info[:2])
    return Packed(function=asked, pickled=_pickled(function, name, floatx))


def _recognise(function: Callable[..., Any], floatx: str) -> Packed | None:
    """Which of Keras's it is; None if it is none, or does something that we do not know."""
    if not _APPLICATIONS.match(getattr(function, "__module__", None) or ""):
        return None
    if getattr(function, "__name__", "") != "preprocess_input":
        return None
    probe = np.random.RandomState(0).uniform(0, 255, (3, 3, 3)).astype(floatx)
    does = np.asarray(function(probe.copy()))
    if np.array_equal(does, probe):
        return Packed()
    for known in _candidates():
        assert known.preprocessing is not None
        ours = imagenet(probe.copy(), known.preprocessing, known.data_format, floatx)
        if np.array_equal(does, ours):
            return known
    return None


def _candidates() -> Iterator[Packed]:
    for mode in get_args(Preprocessing):
        for data_format in get_args(DataFormat):
            yield Packed(mode, data_format)


def _is_importable(function: Callable[..., Any]) -> bool:
    """Whether its module holds it under its name, and is not the script itself."""
    module = getattr(function, "__module__", None)
    found: Any = sys.modules.get(module or "")
    if found is None or module in _MAIN:
        return False
    for name in getattr(function, "__qualname__", "<lambda>").split("."):
        found = getattr(found, name, None)
    return found is function


def _file(function: Callable[..., Any]) -> str:
    """Of the function's module; packages may lie elsewhere for the daemon."""
    file = getattr(sys.modules[function.__module__], "__file__", None) or ""
    return "" if not file or _INSTALLED.search(file) else search_path.absolute(file) or file


def _path() -> tuple[str, ...]:
    folders = (search_path.absolute(entry) for entry in sys.path if isinstance(entry, str))
    return tuple(dict.fromkeys(folder for folder in folders if folder is not None))


def _pickled(function: Callable[..., Any], name: str, floatx: str) -> NDArray[np.uint8]:
    try:
        import cloudpickle
    except ImportError as error:
        raise MissingDependency(
            f"preprocessing_function {name} is no function of a module, and sending it takes "
            "cloudpickle: pip install cloudpickle, or put it into a module"
        ) from error

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
        """Sends the arithmetic of ``keras.applications`` in place of Keras's functions."""

        def reducer_override(self, thing: Any) -> Any:
            known = _recognise(thing, floatx) if callable(thing) else None
            if known is None:
                return super().reducer_override(thing)
            return Imagenet, (known.preprocessing, known.data_format, floatx)

    file = io.BytesIO()
    try:
        Pickler(file).dump(function)
    except Exception as error:  # what it refers to may refuse in any way
        raise InvalidArgument(
            f"preprocessing_function {name} cannot be sent to workers: {error}; make such "
            "things within the function, or put both into a module, which workers import"
        ) from error
    _warn_of_keras(file.getvalue(), name)
    return np.frombuffer(file.getvalue(), np.uint8)


def _warn_of_keras(pickled: bytes, name: str) -> None:
    names = {str(value) for _, value, _ in pickletools.genops(pickled) if isinstance(value, str)}
    heavy = {one.partition(".")[0] for one in names} & _HEAVY
    if heavy:
        warnings.warn(
            f"preprocessing_function {name} makes every worker load {', '.join(sorted(heavy))}, "
            "which takes seconds and half a gigabyte each: use NumPy in it, or import "
            "preprocess_input by its own name",
            stacklevel=2,
        )
