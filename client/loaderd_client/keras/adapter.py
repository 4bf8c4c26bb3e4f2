"""Which classes of which Keras a sequence is made of.

Keras 3 takes ``keras.utils.PyDataset`` (also called ``Sequence``), Keras 2 its own
``Sequence``: ``tf_keras``, or ``keras`` up to TensorFlow 2.15. A model only takes sequences
of the Keras that it belongs to, and a trainer may hold both: so a sequence is one of all
that are in use.
"""

from __future__ import annotations

import inspect
import os
import sys
from importlib import import_module
from types import FrameType
from typing import Any, Literal, NamedTuple

_NAMES = ("keras", "tf_keras")


def in_use() -> list[Any]:
    """The Kerases of this trainer; imports one if none is loaded yet."""
    names = [name for name in _NAMES if name in sys.modules]
    if os.environ.get("TF_USE_LEGACY_KERAS", "").lower() in ("1", "true"):
        names = [*dict.fromkeys(("tf_keras", *names))]
    return [import_module(name) for name in names or ["keras"]]


def sequences() -> tuple[type, ...]:
    """The base classes of a sequence."""
    return tuple(dict.fromkeys(keras.utils.Sequence for keras in in_use()))


def floatx() -> str:
    """The dtype that Keras computes in."""
    return str(in_use()[0].backend.floatx())


def backend() -> str:
    """What Keras computes with: ``tensorflow``, ``jax`` or ``torch``."""
    keras = in_use()[0]
    return "tensorflow" if is_legacy() else str(keras.backend.backend())


def is_legacy() -> bool:
    """Whether the Keras that settings are read from is Keras 2."""
    return not hasattr(in_use()[0].utils, "PyDataset")


def image_data_format() -> Any:
    """Where Keras expects the channels: ``channels_last`` or ``channels_first``."""
    return in_use()[0].backend.image_data_format()


class Constant:
    """An attribute that always has the same value, whatever is assigned to it."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __get__(self, sequence: object, kind: type) -> Any:
        return self._value

    def __set__(self, sequence: object, value: Any) -> None:
        """Changes nothing."""


class OneWorker:
    """What Keras is told of a sequence: the daemon's workers are enough."""

    workers = Constant(1)
    """Always 1, whatever is assigned. Keras's own threads or processes would render nothing here,
    and on JAX and torch would leave batches of an abandoned pass in a queue, for the next one."""
    use_multiprocessing = Constant(False)
    """Always False, whatever is assigned; see ``workers``."""
    _workers = 1
    _use_multiprocessing = False
    # Keras's PyDataset looks for these two, and warns of a constructor that was not called.


_ADAPTERS = ("data_adapters.py_dataset_adapter", "engine.data_adapter")
_INDEXING = "get_index"
"""What Keras's threads read a sequence by, in an order of their own."""
_ENQUEUERS = "utils.data_utils"
"""Where Keras 2 has its ``OrderedEnqueuer``."""

Reading = Literal["index", "pass", "look"]


def reading(frame: FrameType) -> Reading:
    """How a frame that asks a sequence for an index, or its length, reads it.

    Keras's own pass over the sequence is a generator in the adapter that ``fit`` makes of it
    (Keras 3: ``keras/src/trainers/data_adapters/py_dataset_adapter.py``, Keras 2:
    ``engine/data_adapter.py``); what else that adapter reads is a look.
    """
    if not _module(frame).endswith(_ADAPTERS):
        return "index"
    code = frame.f_code
    if code.co_name == _INDEXING:
        return "index"
    return "pass" if code.co_flags & inspect.CO_GENERATOR else "look"


class EpochEnd(NamedTuple):
    """Who says that an epoch is over.

    Attributes:
        reads: how it reads the sequence.
        enqueuer: the ``uid`` of the ``OrderedEnqueuer`` of Keras 2 by which it reads, if by any.
        steps: how many batches of that were used; None if it is the enqueuer that speaks, which
            has handed out all of an epoch.
    """

    reads: Reading
    enqueuer: int | None = None
    steps: int | None = None


def epoch_end(frame: FrameType) -> EpochEnd:
    """What it means that a frame calls ``on_epoch_end``."""
    reads, caller = reading(frame), frame.f_locals.get("self")
    if reads == "index":
        is_enqueuer = frame.f_code.co_name == "_run" and _module(frame).endswith(_ENQUEUERS)
        return EpochEnd(reads, caller.uid if caller is not None and is_enqueuer else None)
    enqueuer = getattr(caller, "_enqueuer", None)
    if enqueuer is None:
        return EpochEnd(reads)
    return EpochEnd(reads, enqueuer.uid, _steps(frame.f_back))


def _steps(frame: FrameType | None) -> int:
    """The steps of the epoch that ``enumerate_epochs`` of Keras 2 has just come through."""
    if frame is None:
        return 0
    local = frame.f_locals
    steps = int(getattr(local.get("self"), "_current_step", 0))
    if isinstance(local, dict):  # up to Python 3.12: a copy, which the frame keeps, and it the
        local.clear()  # iterator that Keras is about to drop
    return steps


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__"))
