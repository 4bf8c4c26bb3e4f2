"""Loops over the epochs of a sequence, for training without Keras."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any, Protocol, TypeVar

from loaderd.ipc.prefetch import Place
from loaderd.sampling.epoch_layout import EpochLayout
from loaderd.spec.spec import Spec
from loaderd_client.core.worker_epochs import DataLoaderWorker

_Item = TypeVar("_Item")


class EpochSource(Protocol):
    """What a loop uses of a sequence."""

    spec: Spec

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...

    def state_dict(self) -> dict[str, Any]:
        """Where the sequence is."""

    def state_at(self, epoch: int, batches: int) -> dict[str, Any]:
        """The state after some batches of an epoch."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues where another sequence was."""

    def _one_epoch(self) -> Iterator[Any]:
        """The batches of the next epoch, or of what is left of a resumed one."""

    def _epoch_layout(self) -> EpochLayout:
        """The division of an epoch into batches."""

    def _next_place(self) -> Place:
        """(epoch, position) of the batch that the next pass begins with."""

    def _has_next(self) -> bool:
        """Whether the next batch of the last pass of a loop is there."""

    def _after_workers(self) -> Place:
        """The first place that no worker of a PyTorch ``DataLoader`` has read."""

    def _begin_share(self, worker: DataLoaderWorker, resumed: bool) -> Place:
        """Begins an epoch, of which a worker reads its share; returns its first place."""


class Epochs:
    """The batches of a sequence: each ``iter()`` is an epoch, and the next one the next epoch.

    An epoch that is left early is over; the next ``iter()`` begins another one.

    Args:
        sequence: gives the batches.
    """

    def __init__(self, sequence: EpochSource) -> None:
        self._sequence = sequence
        self._first: Place | None = None  # of the last epoch that was begun
        self._handed_out = 0  # batches of it

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self._sequence)

    def __iter__(self) -> Iterator[Any]:
        """The batches of an epoch, each in the structure that the sequence gives it.

        Raises:
            BadImage: a file of the batch could not be read.
            DaemonGone: the daemon went away, and did not come back in time.
        """
        batches = self._handed_over(self._batches())
        self._first, self._handed_out = self._sequence._next_place(), 0
        return map(self._counted, batches)  # which refers to none of them

    def state_dict(self) -> dict[str, Any]:
        """Where the loop is, as ``sequence.state_dict`` has it: batches count once handed out."""
        if self._first is None:
            return self._sequence.state_dict()
        epoch, position = self._first
        here = epoch, position + self._handed_out
        return self._sequence.state_at(*max(here, self._sequence._after_workers()))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Has the next ``iter()`` continue where another loop was; see the sequence's.

        Raises:
            InvalidArgument: it is no state.
            StateError: it belongs to a sequence of another spec, or other files.
        """
        self._sequence.load_state_dict(state)
        self._first = None

    def _counted(self, batch: Any) -> Any:
        self._handed_out += 1
        return batch

    def _batches(self) -> Iterator[Any]:
        """The batches of an epoch, as the sequence gives them."""
        return self._sequence._one_epoch()

    def _handed_over(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The same in the form that is handed out; begins nothing yet."""
        return batches


def mapped(function: Callable[[Any], Any], batch: Any) -> Any:
    """A batch of the same structure, with ``function`` of each of its arrays."""
    if isinstance(batch, dict):
        return {name: mapped(function, part) for name, part in batch.items()}
    if isinstance(batch, (list, tuple)):
        return type(batch)(mapped(function, part) for part in batch)
    return function(batch)


def all_mapped(function: Callable[[Any], Any], batches: Iterable[Any]) -> Iterator[Any]:
    """``mapped`` of each batch; refers to none that it has handed out, as that holds a slot."""
    return map(partial(mapped, function), batches)


def ahead(items: Iterable[_Item], count: int, is_next_there: Callable[[], bool]) -> Iterator[_Item]:
    """The items, taken up to ``count`` ahead of the one that is handed out.

    None is waited for while another one is taken; the first is handed out as soon as it is there.
    An error is raised in its turn. It refers to no item that was handed out.

    Args:
        items: where to take them.
        count: how many are taken ahead.
        is_next_there: whether the next can be taken without waiting.
    """
    source, end = iter(items), None
    taken = deque(islice(source, 1))
    while taken:
        yield taken.popleft()
        try:
            while end is None and (not taken or (len(taken) <= count and is_next_there())):
                taken.append(next(source))
        except Exception as error:
            end = error
    if end is not None and not isinstance(end, StopIteration):
        raise end
