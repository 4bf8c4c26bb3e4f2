"""Keras's layers in ``augment=[...]``: each is read by its ``get_config()``, as an operation.

The operation of a layer has its name, and settings of the same names. Every setting is kept, found
in one of the tables below, or refused by name. Two things differ from a layer within a model:

- Draws follow from the dataset's seed, epoch and sample; the layer's own ``seed`` is not used.
- Operations apply to every batch of the dataset, while layers augment in training alone: a dataset
  for validation should not have random ones.

Keras is not imported: what is in the list has been imported by the caller.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import cache
from typing import Any, get_args

import numpy as np

from loaderd.augment.operation import Operation
from loaderd.augment.policies import AnyOperation
from loaderd.errors import InvalidArgument
from loaderd.spec.base import DataFormat

Settings = dict[str, Any]

_KERAS = re.compile(r"(keras|tf_keras)(\.src)?\.(layers|models|engine)\b")
"""The modules of Keras's layers and models."""
_CHAINS = ("Sequential", "Pipeline")
"""Layers that apply others, one after the other."""
_OTHER_NAMES = {"Resizing": "Resize"}
"""Operations that have another name than the layer."""
_OTHERWISE = {
    name: f"it {what} in another way than {name} of loaderd_client.augment: put that in its place"
    for name, what in (
        ("AugMix", "draws and applies its operations"),
        ("CutMix", "draws parts and weights"),
        ("RandAugment", "draws and applies its operations"),
    )
}
"""Layers that do something else than the operation of their name, and what to do."""
_WITHOUT_EFFECT = (
    "name",
    "trainable",  # no layer here has weights to train
    "seed",  # draws follow from the dataset's seed
    "rng_type",  # of Keras 2: where TensorFlow keeps the state of its generator
    "batch_input_shape",  # of Keras 2: images have the dataset's shape
)
"""Settings that change no image."""
_FIXED = {
    ("Normalization", "invert"): False,
    ("Resizing", "pad_to_aspect_ratio"): False,
    ("Resizing", "fill_mode"): "constant",
    ("Resizing", "fill_value"): 0.0,
}
"""Settings that operations lack, by (layer, setting), with the only value that can be kept."""
_FILTERS = {
    "nearest": "nearest",
    "bilinear": "bilinear",
    "bicubic": "bicubic",
    "lanczos3": "lanczos",
}
"""Keras's interpolations with the same weights as Pillow's; ``area`` and others have others."""


def is_chain(one: object) -> bool:
    """Whether something is a Sequential, or another layer that applies others in a row."""
    return _name(one) in _CHAINS


def read(one: Any, data_format: DataFormat) -> tuple[Any, ...]:
    """The operation of a layer, or those of a chain of layers; anything else as it is.

    Args:
        one: what is in the list.
        data_format: of the dataset.

    Raises:
        InvalidArgument: it is a layer that has no operation, that has a setting that cannot be
            kept, or whose class is not Keras's own.
    """
    name = _name(one)
    if name is None:
        return (one,)
    if name in _CHAINS:
        return tuple(operation for layer in one.layers for operation in read(layer, data_format))
    try:
        return (_operation(one, name, data_format),)
    except InvalidArgument as error:
        raise InvalidArgument(f"augment: Keras's layer {name}: {error}") from None


def _name(one: object) -> str | None:
    """The name of the class of one of Keras's layers; None for what is no layer.

    Raises:
        InvalidArgument: the class is derived from one of Keras's, and may do anything.
    """
    kind = type(one)
    base = next((base for base in kind.__mro__ if _KERAS.match(base.__module__)), None)
    if base is None or not hasattr(one, "get_config"):
        return None
    if base is not kind or getattr(sys.modules.get(kind.__module__), kind.__name__, None) != kind:
        raise InvalidArgument(
            f"augment: {kind.__name__} is not Keras's own layer, but derived from "
            f"{base.__name__}: only layers of Keras itself can run as operations"
        )
    return kind.__name__


@cache
def _kinds() -> dict[str, type[Operation]]:
    return {kind.__name__: kind for kind in get_args(AnyOperation)}


def _operation(layer: Any, name: str, data_format: DataFormat) -> Operation:
    kind = _kinds().get(_OTHER_NAMES.get(name, name))
    if kind is None:
        raise InvalidArgument("there is no operation for it")
    if name in _OTHERWISE:
        raise InvalidArgument(_OTHERWISE[name])
    settings = dict(layer.get_config())
    for key in _WITHOUT_EFFECT:
        settings.pop(key, None)
    _check_common(settings, data_format)
    if name in _READERS:
        _READERS[name](settings, layer, data_format)
    for key in [key for key in settings if key not in kind.__struct_fields__]:
        _check_fixed(name, key, settings.pop(key))
    return kind(**settings)


def _refusal(setting: str, why: str, value: object) -> InvalidArgument:
    return InvalidArgument(f"`{setting}` {why}. Received: {value!r}")


def _check_common(settings: Settings, data_format: DataFormat) -> None:
    """Checks, and takes out, what layers of all kinds have, and operations have not."""
    policy = settings.pop("dtype", "float32")
    dtype = policy.get("config", {}).get("name") if isinstance(policy, dict) else policy
    if dtype != "float32":
        raise _refusal(
            "dtype", 'must be "float32", in which datasets compute: pass it to the layer', dtype
        )
    values = settings.pop("value_range", (0, 255))
    if not np.array_equal(values, (0, 255)):
        raise _refusal(
            "value_range",
            "must be (0, 255), as images have these values here: put Rescaling last",
            values,
        )
    layout = settings.pop("data_format", data_format)
    if layout != data_format:
        raise _refusal("data_format", f'must be that of the dataset, "{data_format}"', layout)


def _check_fixed(name: str, setting: str, value: object) -> None:
    if (name, setting) not in _FIXED:
        raise _refusal(setting, "is no setting of the operation", value)
    if value != _FIXED[name, setting]:
        raise _refusal(setting, f"must be {_FIXED[name, setting]!r} for the operation", value)


# -- layers whose settings have another form --------------------------------------------------


def _read_contrast(settings: Settings, layer: Any, data_format: DataFormat) -> None:
    """One number, which only older Keras versions report, is both limits there."""
    factor = settings["factor"]
    if isinstance(factor, int | float):
        settings["factor"] = (factor, factor)


def _read_shear(settings: Settings, layer: Any, data_format: DataFormat) -> None:
    """Keras reports one number f as (-f, f), which it does not take as an argument."""
    for name in ("x_factor", "y_factor"):
        low, high = settings[name]
        if low == -high:
            settings[name] = high


def _read_resizing(settings: Settings, layer: Any, data_format: DataFormat) -> None:
    filter = settings["interpolation"]
    if filter not in _FILTERS:
        raise _refusal("interpolation", f"must be one of {', '.join(_FILTERS)}", filter)
    settings["interpolation"] = _FILTERS[filter]
    settings.setdefault("antialias", False)  # older Keras versions have none


def _read_normalization(settings: Settings, layer: Any, data_format: DataFormat) -> None:
    """Of a layer that was adapted, mean and variance are its weights."""
    if settings["mean"] is None:
        weights = layer.get_weights()
        if len(weights) < 2:
            raise _refusal("mean", "is not known: adapt the layer first, or pass it", None)
        settings["mean"], settings["variance"] = weights[0], weights[1]
    axis = settings.pop("axis")
    channels = ((-1,), (3,)) if data_format == "channels_last" else ((-3,), (1,))
    if np.ndim(settings["mean"]) and tuple(axis) not in channels:
        raise _refusal("axis", f"must be {channels[0][0]}, the channels of the dataset", axis)


_READERS: dict[str, Callable[[Settings, Any, DataFormat], None]] = {
    "Normalization": _read_normalization,
    "RandomContrast": _read_contrast,
    "RandomShear": _read_shear,
    "Resizing": _read_resizing,
}
