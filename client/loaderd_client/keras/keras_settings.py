"""Keras's settings where Keras is not loaded, from the file and the variables that it reads.

After ``keras/src/backend/config.py``; Keras 2 reads the same file. Nothing is written.
"""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple, get_args

from loaderd.errors import InvalidArgument
from loaderd.spec.base import DataFormat

_FLOATS = ("float16", "float32", "float64")


class KerasSettings(NamedTuple):
    """What Keras would have set when it was imported."""

    floatx: str = "float32"
    image_data_format: DataFormat = "channels_last"
    backend: str = "tensorflow"


def stored() -> KerasSettings:
    """The settings of ``keras.json`` and ``KERAS_BACKEND``; Keras's defaults for those not there.

    Raises:
        InvalidArgument: the file has a value that Keras refuses.
    """
    path = os.path.expanduser(os.path.join(_home(), "keras.json"))
    found = KerasSettings(**_known(path))
    for name, allowed in (("floatx", _FLOATS), ("image_data_format", get_args(DataFormat))):
        value = getattr(found, name)
        if value not in allowed:
            raise InvalidArgument(
                f"{path}: {name} should be one of {', '.join(allowed)}. Received: {value!r}"
            )
    return found._replace(backend=os.environ.get("KERAS_BACKEND") or found.backend)


def _home() -> str:
    if "KERAS_HOME" in os.environ:
        return os.environ["KERAS_HOME"]
    home = os.path.expanduser("~")
    return os.path.join(home if os.access(home, os.W_OK) else "/tmp", ".keras")


def _known(path: str) -> dict[str, Any]:
    """The values of the file that matter here; none if it is missing or no JSON, as in Keras."""
    if not os.path.exists(path):
        return {}
    try:
        with open(path) as file:
            values = json.load(file)
    except ValueError:
        return {}
    return {name: values[name] for name in KerasSettings._fields if name in values}
