"""The Keras versions in use: their base classes, their settings, and their calls of a sequence.

None is imported for its settings: where no Keras is loaded, they are those that it would have.

Keras 3 accepts ``keras.utils.PyDataset`` (also called ``Sequence``), Keras 2 its own ``Sequence``:
``tf_keras``, or ``keras`` up to TensorFlow 2.15. A model only accepts sequences of its own Keras,
and a trainer may use both, so a sequence derives from the classes of all that are in use.
"""

from __future__ import annotations

import inspect
import os
import sys
from importlib import import_module
from types import FrameType
from typing import Any, Literal, NamedTuple

from loaderd.spec.output import Shard
from loaderd_client.keras import distribution, keras_settings
from loaderd_client.keras.batch_index import PassKind

_NAMES = ("keras", "tf_keras")


def is_loaded() -> bool:
    """Whether any Keras is loaded."""
    return any(sys.modules.get(name) is not None for name in _NAMES)


def in_use() -> list[Any]:
    """The Keras versions of this trainer; imports one if none is loaded yet."""
    names = [name for name in _NAMES if sys.modules.get(name) is not None]
    if _prefers_legacy():
        names = [*dict.fromkeys(("tf_keras", *names))]
    return [import_module(name) for name in names or ["keras"]]


def _prefers_legacy() -> bool:
    return os.environ.get("TF_USE_LEGACY_KERAS", "").lower() in ("1", "true")


def sequences() -> tuple[type, ...]:
    """The base classes of a sequence in the Keras versions that are loaded; none without."""
    if not is_loaded():
        return ()
    return tuple(dict.fromkeys(keras.utils.Sequence for keras in in_use()))


def floatx() -> str:
    """Keras's default dtype (``floatx``)."""
    return str(in_use()[0].backend.floatx()) if is_loaded() else keras_settings.stored().floatx


def backend() -> str:
    """Keras's backend: ``tensorflow``, ``jax`` or ``torch``."""
    if is_legacy():
        return "tensorflow"
    return str(in_use()[0].backend.backend()) if is_loaded() else keras_settings.stored().backend


def is_legacy() -> bool:
    """Whether the first Keras in use, from which settings are read, is Keras 2."""
    return not hasattr(in_use()[0].utils, "PyDataset") if is_loaded() else _prefers_legacy()


def to_numpy(value: Any) -> Any:
    """A variable or tensor of Keras 3 as a NumPy array."""
    return in_use()[0].ops.convert_to_numpy(value)


def torch_random_states() -> list[Any]:
    """The states of PyTorch's global generators, as arrays; none on other backends."""
    if backend() != "torch":
        return []
    import torch

    states = [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]
    return [state.numpy() for state in states]


def set_torch_random_states(states: list[Any]) -> None:
    """Sets them; those of devices that are missing here are left out."""
    if not states or backend() != "torch":
        return
    import torch

    torch.set_rng_state(torch.from_numpy(states[0]))
    for device, state in enumerate(states[1 : torch.cuda.device_count() + 1]):
        torch.cuda.set_rng_state(torch.from_numpy(state), device)


def image_data_format() -> Any:
    """Keras's image data format: ``channels_last`` or ``channels_first``."""
    if is_loaded():
        return in_use()[0].backend.image_data_format()
    return keras_settings.stored().image_data_format


class Constant:
    """An attribute that always has the same value, whatever is assigned to it."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __get__(self, sequence: object, kind: type) -> Any:
        return self._value

    def __set__(self, sequence: object, value: Any) -> None:
        """Changes nothing."""


class OneWorker:
    """Attributes by which Keras reads a sequence with one worker."""

    workers = Constant(1)
    """Always 1, whatever is assigned. Keras's own threads or processes would render nothing here,
    and on JAX and torch would leave batches of an abandoned pass in a queue, for the next one."""
    use_multiprocessing = Constant(False)
    """Always False, whatever is assigned; see ``workers``."""
    _workers = 1
    _use_multiprocessing = False
    # Keras's PyDataset reads these two, and warns of a constructor that was not called.


_ADAPTERS = ("data_adapters.py_dataset_adapter", "engine.data_adapter")
_INDEXING = "get_index"
"""The function by which Keras's threads read a sequence, in any order."""
_ENQUEUERS = "utils.data_utils"
"""The module of Keras 2's ``OrderedEnqueuer``."""
_EPOCHS = "trainers.epoch_iterator"
"""The module of Keras 3's ``EpochIterator``, which counts the steps of ``fit``."""
_TRIAL = "_symbolic_build"
"""The method in which Keras 3 reads a batch to build a model."""

Reading = Literal["index", "pass", "look"]


def reading(frame: FrameType, shard: Shard | None) -> Reading:
    """How the frame that requests an index, or the length, of a sequence reads it.

    Keras's own pass over the sequence is a generator in the adapter that ``fit`` makes of it
    (Keras 3: ``keras/src/trainers/data_adapters/py_dataset_adapter.py``, Keras 2:
    ``engine/data_adapter.py``); any other read of that adapter is a look. There is one before every
    pass: it keeps a dataset with a shard from being divided once more.

    Raises:
        InvalidArgument: it would be divided; see :mod:`loaderd_client.keras.distribution`.
    """
    reads = _reading(frame)
    if reads == "look":
        distribution.prevent_division(frame, shard)
    return reads


def _reading(frame: FrameType) -> Reading:
    if not _module(frame).endswith(_ADAPTERS):
        return "index"
    code = frame.f_code
    if code.co_name == _INDEXING:
        return "index"
    return "pass" if code.co_flags & inspect.CO_GENERATOR else "look"


def kind_of_pass(frame: FrameType) -> PassKind:
    """Describes the pass that begins in a generator of Keras's adapter."""
    is_permuted = bool(getattr(frame.f_locals.get("self"), "shuffle", False))
    above: FrameType | None = frame
    while above is not None and above.f_code.co_name != _TRIAL:
        above = above.f_back
    return PassKind(permuted=is_permuted, trial=above is not None)


def begin_epoch(frame: FrameType, batches: int) -> None:
    """Tells Keras 3 how many batches a pass has, before it begins.

    It counts a sequence once, when ``fit`` begins. After a resume the first pass is shorter.

    Args:
        frame: of the caller of ``on_epoch_begin``.
        batches: of a pass that begins now.
    """
    caller = frame.f_back
    if caller is None or not _module(caller).endswith(_EPOCHS):
        return
    epochs = caller.f_locals["self"]
    goes_on = epochs.steps_per_epoch is not None and epochs._steps_seen > 0
    if not goes_on or epochs._current_iterator is None:
        epochs._num_batches = batches


def epochs_of_fit(frame: FrameType | None) -> Any:
    """The ``EpochIterator`` of the ``fit`` of Keras 3 that has called the frame; None without."""
    while frame is not None:
        code = frame.f_code
        if code.co_name == "fit" and "epoch_iterator" in code.co_varnames:
            local = frame.f_locals
            found = local.get("epoch_iterator")
            if isinstance(local, dict):  # see ``_steps``
                local.clear()
            return found
        frame = frame.f_back
    return None


class EpochEnd(NamedTuple):
    """The caller of ``on_epoch_end``.

    Attributes:
        reads: how it reads the sequence.
        enqueuer: the ``uid`` of the ``OrderedEnqueuer`` of Keras 2 by which it reads, if by any.
        steps: how many batches of that were used; None if the enqueuer itself is the caller, which
            has handed out all of an epoch.
    """

    reads: Reading
    enqueuer: int | None = None
    steps: int | None = None


def epoch_end(frame: FrameType) -> EpochEnd:
    """Describes a frame that calls ``on_epoch_end``."""
    reads, caller = _reading(frame), frame.f_locals.get("self")
    if reads == "index":
        is_enqueuer = frame.f_code.co_name == "_run" and _module(frame).endswith(_ENQUEUERS)
        return EpochEnd(reads, caller.uid if caller is not None and is_enqueuer else None)
    enqueuer = getattr(caller, "_enqueuer", None)
    if enqueuer is None:
        return EpochEnd(reads)
    return EpochEnd(reads, enqueuer.uid, _steps(frame.f_back))


def _steps(frame: FrameType | None) -> int:
    """The steps of the epoch that ``enumerate_epochs`` of Keras 2 has just finished."""
    if frame is None:
        return 0
    local = frame.f_locals
    steps = int(getattr(local.get("self"), "_current_step", 0))
    if isinstance(local, dict):  # up to Python 3.12: a copy, which the frame keeps, and it the
        local.clear()  # iterator that Keras is about to drop
    return steps


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__"))
