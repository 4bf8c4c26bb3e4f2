"""A model and the state of its loader in one file, which is replaced as a whole.

It is Keras's file of weights with additions: an attribute with the state, and the states of random
generators, which Keras leaves out: those of the model's layers, and PyTorch's own, from which
``Dropout`` without a seed draws there.
"""

from __future__ import annotations

import os
import tempfile
from typing import Any

import h5py
import msgspec
from numpy.typing import NDArray

from loaderd.errors import StateError
from loaderd_client.core import files
from loaderd_client.keras import adapter

Array = NDArray[Any]

_NEW = "new.weights.h5"
_STATE = "loaderd"
_LAYERS = "loaderd_layers"
_TORCH = "loaderd_torch"


class TrainingState(msgspec.Struct, frozen=True):
    """Where a training is.

    Attributes:
        epoch: of ``fit``.
        batches: of it that the model was trained on.
        loader: the state of the sequence.
    """

    epoch: int
    batches: int
    loader: dict[str, Any]


def save(path: str, model: Any, state: TrainingState) -> None:
    """Replaces a checkpoint by another; after a crash at any point one of them is there."""
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    new = os.path.join(folder, _NEW)
    model.save_weights(new, overwrite=True)
    with h5py.File(new, "a") as file:
        file.attrs[_STATE] = msgspec.json.encode(state).decode()
        _write(file, _LAYERS, [adapter.to_numpy(one) for one in _random_states(model)])
        _write(file, _TORCH, adapter.torch_random_states())
    files.replace(new, path)


def take_part(model: Any) -> None:
    """Does what ``save`` does in the trainer that saves, and keeps nothing.

    Saving may be an operation of all trainers together: with a distribution of Keras on JAX,
    ``save_weights`` makes variables, and JAX waits until every process has made them.
    """
    with tempfile.TemporaryDirectory(prefix="loaderd-") as folder:
        model.save_weights(os.path.join(folder, _NEW))


def read(path: str) -> TrainingState | None:
    """The state of a checkpoint; None if there is no checkpoint.

    Raises:
        StateError: the file is damaged, or another program's.
    """
    if not os.path.exists(path):
        return None
    try:
        with h5py.File(path, "r") as file:
            return msgspec.json.decode(file.attrs[_STATE], type=TrainingState)
    except (OSError, KeyError, msgspec.MsgspecError) as error:
        raise StateError(
            f"{path} is no checkpoint of loaderd, or is damaged ({error}): remove it to begin anew"
        ) from error


def load(path: str, model: Any) -> list[Array]:
    """Sets the weights of a model, its optimizer and its random layers to those saved.

    Returns:
        The states of PyTorch's generators, for ``adapter.set_torch_random_states``.

    Raises:
        StateError: the model has other random layers than the one that was saved.
        ValueError: of Keras: it has other weights.
    """
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    model.load_weights(path)
    with h5py.File(path, "r") as file:
        saved, of_torch = _read(file, _LAYERS), _read(file, _TORCH)
    states = _random_states(model)
    if len(saved) != len(states):
        raise StateError(
            f"the model has {len(states)} random layers, and the one in {path} {len(saved)}: make "
            "it as it was, or remove the file to begin anew"
        )
    for state, value in zip(states, saved, strict=True):
        state.assign(value)
    return of_torch


def _random_states(model: Any) -> list[Any]:
    """The variables of seed generators (``keras.random.SeedGenerator``), as of ``Dropout``."""
    weights = {id(one) for one in model.non_trainable_weights}
    return [one for one in model.non_trainable_variables if id(one) not in weights]


def _write(file: Any, group: str, arrays: list[Array]) -> None:
    for number, array in enumerate(arrays):
        file[f"{group}/{number}"] = array


def _read(file: Any, group: str) -> list[Array]:
    count = len(file[group]) if group in file else 0
    return [file[f"{group}/{number}"][()] for number in range(count)]
