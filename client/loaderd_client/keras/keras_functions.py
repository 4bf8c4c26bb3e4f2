"""Keras's functions that user code uses, and their replacements in workers.

- ``keras.applications.*.preprocess_input`` is recognised by its module and by its result for a
  probe image; workers compute it with NumPy.
- ``array_to_img``, ``img_to_array``, ``load_img``, ``save_img`` and ``smart_resize`` are
  recognised by their module.
- Modules of Keras and TensorFlow have stand-ins that load the real ones for any other attribute.

So a worker loads Keras and TensorFlow only for code that needs them.
"""

from __future__ import annotations

import functools
import itertools
import re
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NamedTuple, get_args

import numpy as np

from loaderd.render.transforms import keras_images, stand_ins
from loaderd.render.transforms.normalize import Imagenet, imagenet
from loaderd.spec.base import DataFormat, Preprocessing
from loaderd_client.keras import adapter

HEAVY = {"tensorflow", "keras", "tf_keras", "jax", "torch"}
"""Packages whose import takes seconds and hundreds of megabytes."""

_APPLICATIONS = re.compile(
    r"(keras|tf_keras|tensorflow\.python\.keras)(\.src|\.api)*\.applications\b"
)
_IMAGES = re.compile(r"(keras|tf_keras)(\.src)?\.utils\.image_utils$")


class Arithmetic(NamedTuple):
    """The computation of a ``preprocess_input``.

    Attributes:
        mode: Keras's name for it; None for the identity.
        data_format: the axis of the channels.
    """

    mode: Preprocessing | None
    data_format: DataFormat


def arithmetic(function: Any, floatx: str) -> Arithmetic | None:
    """The computation of a ``preprocess_input``; None for other functions, or an unknown one."""
    if not _APPLICATIONS.match(getattr(function, "__module__", None) or ""):
        return None
    if getattr(function, "__name__", "") != "preprocess_input":
        return None
    return _probed(function, floatx, adapter.image_data_format())


@functools.lru_cache(maxsize=64)
def _probed(function: Callable[..., Any], floatx: str, data_format: str) -> Arithmetic | None:
    """The computation by its result for a small image; it depends on ``data_format``."""
    del data_format
    probe = np.random.RandomState(0).uniform(0, 255, (3, 3, 3)).astype(floatx)
    does = np.asarray(function(probe.copy()))
    if np.array_equal(does, probe):
        return Arithmetic(None, "channels_last")
    for mode, axis in itertools.product(get_args(Preprocessing), get_args(DataFormat)):
        if np.array_equal(does, imagenet(probe.copy(), mode, axis, floatx)):
            return Arithmetic(mode, axis)
    return None


def image_function(thing: Any) -> str | None:
    """The name, if it is one of Keras's functions for images; else None."""
    module, name = getattr(thing, "__module__", None), getattr(thing, "__name__", None)
    if name not in keras_images.NAMES or not _IMAGES.match(module or ""):
        return None
    real = getattr(sys.modules.get(str(module)), str(name), None)
    return str(name) if real is thing else None


def replacement(thing: Any, floatx: str) -> tuple[Callable[..., Any], tuple[Any, ...]] | None:
    """The replacement of an object in workers.

    Returns:
        A function that makes it, and its arguments; None if the object is pickled unchanged.
    """
    if isinstance(thing, ModuleType):
        if stand_ins.members(thing.__name__) is None and _application(thing, floatx) is None:
            return None
        return stand_ins.module, (thing.__name__,)
    if not callable(thing):
        return None
    image = image_function(thing)
    if image is not None:
        return stand_ins.image_function, (image,)
    known = _without_mode(thing, floatx)
    return None if known is None else (Imagenet, (*known, floatx))


def _application(module: ModuleType, floatx: str) -> Arithmetic | None:
    """The computation of a module of ``keras.applications``."""
    return _without_mode(vars(module).get("preprocess_input"), floatx)


def _without_mode(function: Any, floatx: str) -> Arithmetic | None:
    """The computation, unless it takes more, as that of ``imagenet_utils`` does: ``mode``."""
    code = getattr(function, "__code__", None)
    if code is None or code.co_varnames[: code.co_argcount] != ("x", "data_format"):
        return None
    return arithmetic(function, floatx)


def attribute(thing: Any, name: str) -> Any:
    """An attribute, or None; the ``__getattr__`` of the user's objects may raise anything."""
    try:
        return getattr(thing, name, None)
    except Exception:
        return None


def stands_in(module: str, attributes: Sequence[str]) -> bool:
    """Whether a stand-in has the attributes used of a module that is not imported yet."""
    members = stand_ins.members(module)
    return members is not None and (not attributes or attributes[0] in members)


def root_of(thing: Any) -> str:
    """The top-level package of a function, a class, a module, or an object's class."""
    if isinstance(thing, ModuleType):
        name = thing.__name__
    else:
        name = attribute(thing, "__module__") or type(thing).__module__
    return name.partition(".")[0] if isinstance(name, str) else ""


def is_heavy(thing: Any) -> bool:
    """Whether it is of a package that is slow to import."""
    return root_of(thing) in HEAVY


@functools.cache
def applications(
    floatx: str, data_format: str
) -> tuple[tuple[str, Preprocessing | None, DataFormat], ...]:
    """(name, mode, format) of each ``keras.applications`` module with a known function."""
    del data_format  # a setting that the functions read
    found = []
    for name, module in sorted(vars(adapter.in_use()[0].applications).items()):
        known = _application(module, floatx) if isinstance(module, ModuleType) else None
        if known is not None:
            found.append((name, *known))
    return tuple(found)
