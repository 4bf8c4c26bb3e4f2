"""The callbacks with which a ``fit`` continues after a crash."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Annotated, Any

import msgspec

from loaderd.errors import InvalidArgument, StateError
from loaderd_client.core import arguments, files
from loaderd_client.keras import adapter, checkpoint
from loaderd_client.keras.checkpoint import TrainingState
from loaderd_client.keras.fit_progress import FitProgress

_Callback: Any = adapter.in_use()[0].callbacks.Callback
_States = Annotated[dict[int, dict[str, Any]], msgspec.Meta(min_length=1)]


class _FitCallback(_Callback):  # type: ignore[misc]  # of the Keras in use
    """Follows a ``fit`` of a sequence."""

    _fit: FitProgress
    _path: str

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Counts the batches that the model was trained on."""
        self._fit.train(batch)

    def _load_state(self, state: dict[str, Any], instead: str) -> None:
        """Loads a state of the file; a refusal names the file, and says what to do ``instead``."""
        try:
            self._fit.sequence.load_state_dict(state)
        except (InvalidArgument, StateError) as error:
            raise StateError(f"{self._path}: {error}: {instead}") from error


class BackupAndRestore(_FitCallback):
    """Saves model and loader while ``fit`` runs; after a crash ``fit`` continues at the next batch.

    It replaces ``keras.callbacks.BackupAndRestore``, which begins the epoch again. Run the same
    program again: ``fit`` loads what was saved last and trains on the batches that are left of that
    epoch, and then on whole epochs. With deterministic operations it ends with the weights of a
    run that was not interrupted.

    Weights, optimizer, the states of random layers and the loader's position are one file, which is
    replaced as a whole. Not in it: the state of other callbacks, metrics (those of an epoch that
    was interrupted are of the batches after it), and global random generators.

    Put it last in the list of callbacks, so that it saves what the others have done.

    Where several trainers share a dataset (``shard``), the first one writes the file and removes
    it, and all load it, so they must all see the same ``folder``. The others write theirs into a
    temporary folder, which they remove, as saving may be an operation of all trainers together.

    Args:
        folder: where to save, for this training only; made if missing.
        save_freq: ``"epoch"``, or a number of batches after each of which to save. What would come
            after the last batch of an epoch is saved at the end of the epoch.
        delete_checkpoint: whether to remove what was saved when ``fit`` ends, so that the next run
            trains anew.

    Raises:
        InvalidArgument: a value is not allowed (also a ``ValueError``). In ``fit``: it reads no
            sequence of loaderd, or the model is not built.
        StateError: in ``fit``: what was saved is damaged, or of another spec, dataset or model
            (also a ``ValueError``).
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        save_freq: str | int = "epoch",
        delete_checkpoint: bool = True,
    ) -> None:
        super().__init__()
        self._path = os.path.join(os.path.abspath(os.fspath(folder)), "loaderd.weights.h5")
        self._delete = arguments.flag("delete_checkpoint", delete_checkpoint)
        self._every = None if save_freq == "epoch" else _count(save_freq)
        self._unsaved = 0
        self._epoch = 0
        self._restored = 0
        self._of_torch: list[Any] = []

    def on_train_begin(self, logs: Any = None) -> None:
        """Loads what was saved, if anything was."""
        self._fit = FitProgress.of(sys._getframe(1))
        if not self.model.built:
            raise InvalidArgument(
                "BackupAndRestore needs a model that is built before `fit`: begin it with "
                "keras.Input, or call model.build((None, height, width, channels))"
            )
        self._unsaved = self._restored = 0
        self._of_torch = []
        state = checkpoint.read(self._path)
        if state is not None:
            self._load_state(state.loader, "remove the file to begin anew")  # first: may be refused
            self._of_torch = checkpoint.load(self._path, self.model)
            self.model._initial_epoch = state.epoch
            self._restored = state.batches

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Begins an epoch, or what is left of one."""
        self._epoch = epoch
        self._fit.begin_epoch(self._restored)
        self._restored = 0
        self.model._initial_epoch = None  # another fit of this model begins anew
        if self._fit.begins_alike:
            self._restore_torch()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Restores what the beginning of a pass has changed."""
        self._restore_torch()

    def _restore_torch(self) -> None:
        """Sets PyTorch's generators, of which its ``DataLoader`` takes a number for each pass."""
        adapter.set_torch_random_states(self._of_torch)
        self._of_torch = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Saves, every ``save_freq`` batches."""
        before = self._fit.batches
        super().on_train_batch_end(batch, logs)
        self._unsaved += self._fit.batches - before
        if self._every is not None and self._unsaved >= self._every and not self._fit.is_last:
            self._save(self._epoch, self._fit.batches)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Saves."""
        if self._every is None or self._unsaved >= self._every:
            self._save(epoch + 1, 0)

    def on_train_end(self, logs: Any = None) -> None:
        """Removes what was saved."""
        self.model._initial_epoch = None
        if self._delete and self._fit.saves:
            with contextlib.suppress(FileNotFoundError):
                os.remove(self._path)
            with contextlib.suppress(OSError):  # it has files of others
                os.rmdir(os.path.dirname(self._path))

    def _save(self, epoch: int, batches: int) -> None:
        self._unsaved = 0
        if self._fit.saves:
            state = TrainingState(epoch, batches, self._fit.state())
            checkpoint.save(self._path, self.model, state)
        else:
            checkpoint.take_part(self.model)


class LoaderState(_FitCallback):
    """Saves the loader's position at the end of every epoch of ``fit``, for those of its restart.

    For programs that save their model by ``keras.callbacks.ModelCheckpoint`` or Keras's own
    ``BackupAndRestore``: when ``fit`` begins with an epoch after the first (``initial_epoch``, or
    as Keras restores it), the loader continues where it was at the end of the epoch before. Put it
    before the callbacks that save the model, so that after a crash no model is without a position.

    Where several trainers share a dataset (``shard``), the first one writes the file, and all read
    it.

    Args:
        path: a file for the positions of all epochs, for this training only.

    Raises:
        InvalidArgument: ``path`` is a folder (also a ``ValueError``). In ``fit``: it reads no
            sequence of loaderd.
        StateError: in ``fit``: the file has no position for the epoch, or is of another spec or
            dataset, or damaged; or it is missing, and neither a state was loaded into the sequence
            nor an epoch of it read (also a ``ValueError``).
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__()
        self._path = os.path.abspath(os.fspath(path))
        if os.path.isdir(self._path):
            raise InvalidArgument(
                f"`path` should be a file, and {self._path} is a folder: give a file in it, as "
                f"{os.path.join(self._path, 'loader.json')}"
            )
        self._states: dict[int, dict[str, Any]] | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Begins a ``fit``."""
        self._fit, self._states = FitProgress.of(sys._getframe(1)), None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Loads the position of the first epoch."""
        if self._states is None:
            self._states = self._restored(epoch)
        self._fit.begin_epoch()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Saves the position of the next epoch."""
        assert self._states is not None
        self._states[epoch + 1] = self._fit.state()
        if self._fit.saves:
            self._save()

    def _save(self) -> None:
        os.makedirs(os.path.dirname(self._path), exist_ok=True)
        new = f"{self._path}.new"
        with open(new, "wb") as file:
            file.write(msgspec.json.encode(self._states))
        files.replace(new, self._path)

    def _restored(self, epoch: int) -> dict[int, dict[str, Any]]:
        """The positions up to an epoch, where the sequence continues."""
        if not epoch:
            return {}
        if not os.path.exists(self._path):
            self._check_begun(epoch)
            return {}
        try:
            with open(self._path, "rb") as file:
                states = msgspec.json.decode(file.read(), type=_States)
        except msgspec.MsgspecError as error:
            raise StateError(
                f"{self._path} has no states of a loader ({error}): remove it, and "
                f"{_without(epoch)}"
            ) from error
        if epoch not in states:
            raise StateError(
                f"{self._path} has the loader's positions for epochs {sorted(states)}, and `fit` "
                f"begins with epoch {epoch}: set `initial_epoch` to one of them, or remove the "
                f"file, and {_without(epoch)}"
            )
        self._load_state(states[epoch], f"remove the file, and {_without(epoch)}")
        return {number: state for number, state in states.items() if number <= epoch}

    def _check_begun(self, epoch: int) -> None:
        """Refuses a sequence at its beginning, which nobody has told where ``fit`` goes on."""
        if self._fit.state() == self._fit.sequence.state_at(0, 0):
            raise StateError(
                f"`fit` begins with epoch {epoch}, and {self._path}, which should have the "
                "loader's position, is missing: give LoaderState the file that the epochs before "
                f"have written; without one, {_without(epoch)}"
            )


def _without(epoch: int) -> str:
    """What to do where ``fit`` begins with an epoch, and no file has its position."""
    return (
        f"begin anew with initial_epoch=0, or call x.load_state_dict(x.state_at({epoch}, 0)) for "
        "the sequence x before `fit`, to begin with that epoch of it"
    )


def _count(save_freq: Any) -> int:
    if isinstance(save_freq, bool) or not isinstance(save_freq, int) or save_freq < 1:
        raise InvalidArgument(
            f'`save_freq` should be "epoch" or a number of batches. Received: {save_freq!r}'
        )
    return save_freq
