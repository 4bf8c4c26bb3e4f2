"""How far a ``fit`` has come in its sequence."""

from __future__ import annotations

from types import FrameType
from typing import Any, Self

from loaderd.errors import InvalidArgument
from loaderd_client.keras import adapter
from loaderd_client.keras.sequence import LoaderSequence


class FitProgress:
    """Counts the batches that a model was trained on.

    Keras reads ahead of the model, so the sequence itself knows only what was read. All passes of a
    ``fit`` are whole epochs of its sequence, or what is left of one, and a pass may last for
    several epochs of ``fit`` (``steps_per_epoch``), but none of these has batches of two passes.

    Args:
        epochs: Keras's ``EpochIterator``.
        sequence: which it reads.

    Attributes:
        sequence: the same.
        batches: that the model was trained on in the present epoch of ``fit``.
    """

    def __init__(self, epochs: Any, sequence: LoaderSequence) -> None:
        self.sequence = sequence
        self.batches = 0
        self._epochs = epochs
        self._steps_per_epoch = epochs.steps_per_epoch
        self._trained = 0  # batches of the sequence's epoch
        self._before = (0, 0)  # ``batches`` and ``_trained`` when the epoch of ``fit`` began
        self._epoch: int | None = None  # of the sequence; None until a batch of its pass was read

    @classmethod
    def of(cls, frame: FrameType) -> Self:
        """That of the ``fit`` that has called a frame.

        Raises:
            InvalidArgument: it reads no sequence of loaderd.
        """
        epochs = adapter.epochs_of_fit(frame)
        sequence = getattr(getattr(epochs, "data_adapter", None), "py_dataset", None)
        if not isinstance(sequence, LoaderSequence):
            raise InvalidArgument(
                "this callback needs `fit` of Keras 3 with a sequence or iterator of loaderd as "
                f"its `x`, and not something made of it. Found: {type(sequence).__name__}"
            )
        return cls(epochs, sequence)

    def begin_epoch(self, batches: int = 0) -> None:
        """Begins an epoch of ``fit``, of which ``batches`` were trained on before a resume."""
        steps = self._steps_per_epoch
        self._epochs.steps_per_epoch = steps and steps - batches
        if self._trained in (0, len(self.sequence)):  # a pass begins
            self._trained = len(self.sequence) - self.sequence._places.pass_length
            self._epoch = None
        self.batches = batches
        self._before = batches, self._trained

    def train(self, step: int) -> None:
        """Counts a step of the present epoch (from 0), and those before it."""
        batches, trained = self._before
        self.batches = batches + step + 1
        self._trained = min(trained + step + 1, len(self.sequence))
        if self._epoch is None:
            self._epoch = self.sequence._places.epoch

    @property
    def saves(self) -> bool:
        """Whether this trainer saves: it is the first, or only one, of those that share a dataset.

        The state of a loader is the same in all of them, so one file is enough, and none can be at
        another batch than the others after a crash.
        """
        shard = self.sequence.spec.order.shard
        return shard is None or shard.index == 0

    @property
    def begins_alike(self) -> bool:
        """Whether Keras makes an iterator for this epoch, also where it was not resumed."""
        return self._steps_per_epoch is None and self._trained == 0

    @property
    def is_last(self) -> bool:
        """Whether no batch follows in this epoch of ``fit``."""
        steps = self._steps_per_epoch
        is_over = steps is not None and self.batches >= steps
        return is_over or self._trained >= len(self.sequence)

    def state(self) -> dict[str, Any]:
        """The state of the sequence as if only these batches had been read."""
        if self._epoch is None or self._trained >= len(self.sequence):
            return self.sequence.state_dict()  # nothing is read ahead of a pass
        return self.sequence.state_at(self._epoch, self._trained)
