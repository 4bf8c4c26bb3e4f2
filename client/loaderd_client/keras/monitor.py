"""The callback that shows in Keras's logs how long training waits for images."""

from __future__ import annotations

import contextlib
import sys
from time import perf_counter
from typing import Any, NamedTuple

from loaderd.errors import LoaderdError
from loaderd.ipc.snapshot import Snapshot
from loaderd_client.core import arguments
from loaderd_client.keras import adapter
from loaderd_client.keras.fit_progress import FitProgress

_Callback: Any = adapter.in_use()[0].callbacks.Callback


ADVISED_SECONDS = 3.0
"""Of training before the advice: less is the start of everything."""


class _Moment(NamedTuple):
    """Counters when an epoch began."""

    time: float
    seconds: float
    images: int


class LoaderMonitor(_Callback):  # type: ignore[misc]  # of the Keras in use
    """Adds ``loader_wait`` and ``images_per_second`` to the logs of every epoch of ``fit``.

    ``loader_wait`` is the share of the training's time, from 0 to 1, that went into waiting for
    batches. The first step of all, in which the model is compiled and the loader starts, does not
    count, nor does the time of validation. ``images_per_second`` is of the same time. The progress
    bar, ``History``, ``CSVLogger``, ``TensorBoard`` and W&B show them. Put it first in the list of
    callbacks, so that those after it see its logs.

    After the first epoch, or the one in which three seconds of training are over, one line says why
    training waits, and what would help most, if that takes a twentieth of its time or more.

    Args:
        advice: whether to print that line.

    Raises:
        InvalidArgument: in ``fit``: it reads no sequence of loaderd (also a ``ValueError``).
    """

    def __init__(self, advice: bool = True) -> None:
        super().__init__()
        self._advises = arguments.flag("advice", advice)
        self._before: Snapshot | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Begins a ``fit``."""
        self._sequence = FitProgress.of(sys._getframe(1)).sequence
        self._due, self._trained = self._advises, 0.0
        self._before = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Notes where the counters are."""
        self._begin()

    def _begin(self) -> None:
        waits = self._waits
        self._begun = _Moment(perf_counter(), waits.seconds, waits.images)
        self._ended = self._begun.time

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Notes the time; what follows the last batch is not training.

        The first step of all compiles the model, while the loader starts: what follows is judged.
        """
        self._ended = perf_counter()
        if self._before is None:
            self._before = self._snapshot()
            self._begin()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Adds the figures to the logs."""
        waits, begun = self._waits, self._begun
        seconds = max(self._ended - begun.time, 1e-9)
        share = min(1.0, (waits.seconds - begun.seconds) / seconds)
        if logs is not None:
            logs["loader_wait"] = share
            logs["images_per_second"] = (waits.images - begun.images) / seconds
        self._trained += seconds
        if self._due and self._trained >= ADVISED_SECONDS:
            self._due = False
            self._advise()

    @property
    def _waits(self) -> Any:
        return self._sequence._reader.waits

    def _snapshot(self) -> Snapshot | None:
        with contextlib.suppress(LoaderdError):  # the daemon went away: fit itself says so
            return self._sequence._supply.session.observe()
        return None

    def _advise(self) -> None:
        """Prints the daemon's verdict, if training waits."""
        now = self._snapshot()
        if now is None:
            return
        from loaderd.monitor.report import derive

        verdict = derive(now, self._before).verdict
        if verdict.bound in ("HIGHLY", "MODERATELY"):
            print(f"\nloaderd: {verdict.text}", file=sys.stderr, flush=True)
