"""Batches as tensors of PyTorch; ``sequence.torch()`` makes them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import numpy as np
import torch
from torch.utils.data import IterableDataset

from loaderd.errors import InvalidArgument, InvalidType, LoaderdError, StateError
from loaderd_client.core import arguments
from loaderd_client.core.epochs import Epochs, EpochSource, ahead, all_mapped, mapped
from loaderd_client.core.worker_epochs import DataLoaderWorker, WorkerState


class TorchEpochs(Epochs, IterableDataset):  # type: ignore[misc]  # torch has no types here
    """The batches of a sequence as tensors; an ``IterableDataset``.

    Each ``iter()`` is an epoch, and the next one the next epoch. Tensors may be changed in place.
    On the CPU they lie in the batch's slot in shared memory, without a copy; the slot is used again
    when the last of them is freed. If the sequence shares its stream with others, they are copies.

    Class numbers of int32 become int64, which PyTorch's losses take. All else keeps its dtype:
    masks are uint8, and bfloat16 is ``torch.bfloat16``.

    In a ``DataLoader`` with worker processes each of them reads its share of the batches.

    Args:
        sequence: gives the batches.
        device: where the tensors are made; None for the CPU.
        non_blocking: whether copies to a CUDA device go through pinned memory and on a stream of
            their own.
        prefetch: how many batches are copied to a CUDA device ahead of the one handed out.

    Raises:
        InvalidArgument: there is no such device, or ``prefetch`` is negative.
    """

    def __init__(
        self, sequence: EpochSource, device: Any, non_blocking: bool, prefetch: int
    ) -> None:
        super().__init__(sequence)
        self._device = _device(device)
        may_overlap = arguments.flag("non_blocking", non_blocking)
        self._overlaps = may_overlap and self._device.type == "cuda"
        self._prefetch = arguments.count("prefetch", prefetch)
        self._resumed: int | None = None  # in a worker: batches of its share that it has read

    def __iter__(self) -> Iterator[Any]:
        """The batches of an epoch, each in the structure that the sequence gives it.

        Raises:
            InvalidArgument: it is called in a worker of a ``DataLoader``, for another device.
            InvalidType: a batch has an array, as of texts, that is no tensor.
            BadImage: a file of the batch could not be read.
            DaemonGone: the daemon went away, and did not come back in time.
        """
        batches = super().__iter__()
        self._handed_out, self._resumed = self._resumed or 0, None
        return batches

    def state_dict(self) -> dict[str, Any]:
        """Where the loop is; see ``sequence.state_dict``.

        Of the workers of a ``DataLoader`` it knows which epochs they have begun, and counts these
        as read. A ``StatefulDataLoader`` of ``torchdata`` knows their batches: save its own state.
        """
        worker = DataLoaderWorker.here()
        if worker is None or self._first is None:
            return super().state_dict()
        begun = self._sequence.state_at(*self._first)
        return msgspec.structs.asdict(
            WorkerState(begun, self._handed_out, worker.number, worker.workers)
        )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Has the next ``iter()`` continue where another loop was; see the sequence's.

        Raises:
            InvalidArgument: it is no state of such a loop.
            StateError: it belongs to a sequence of another spec, or other files; or it is that of
                a worker, and the trainer has read later epochs by itself, or has joined a shared
                stream at another epoch.
        """
        worker = DataLoaderWorker.here()
        if worker is None:
            super().load_state_dict(state)
            return
        saved = WorkerState.of(state, worker)
        here, _ = self._sequence._next_place()
        first = self._first_counted()
        super().load_state_dict(saved.begun)
        epoch, _ = self._sequence._next_place()
        if here > epoch:
            raise StateError(
                f"the state is of epoch {epoch}, and the trainer has read up to epoch {here} "
                "without workers: make the sequence anew before you load it"
            )
        if first != self._first_counted():
            raise StateError(
                "the trainer has joined its shared stream at another epoch than that of the state, "
                "and counts from there: load the state into a StatefulDataLoader without workers, "
                "or leave out `share`"
            )
        self._resumed = saved.read

    def _first_counted(self) -> tuple[int, int]:
        """The stream's place, in samples, that the sequence counts as its first."""
        first = self._sequence.state_at(0, 0)
        return first["epoch"], first["samples"]

    def _handed_over(self, batches: Iterator[Any]) -> Iterator[Any]:
        if self._device.type == "cpu":
            return all_mapped(own_tensor_of, batches)
        tensors = all_mapped(tensor_of, batches)
        if not self._overlaps:
            return all_mapped(lambda tensor: tensor.to(self._device), tensors)
        copies = DeviceCopies(self._device, self._prefetch + 1)
        return map(
            copies.receive,
            ahead(map(copies.send, tensors), self._prefetch, self._sequence._has_next),
        )

    def _batches(self) -> Iterator[Any]:
        worker = DataLoaderWorker.here()
        if worker is None:
            return super()._batches()
        try:
            return self._share(worker)
        except LoaderdError as error:  # which would end a worker that persists, if raised here
            return _raising(error)

    def _share(self, worker: DataLoaderWorker) -> Iterator[Any]:
        """The batches that a worker reads: every n-th, as a ``DataLoader`` takes them in turn."""
        if self._device.type != "cpu":
            raise InvalidArgument(
                f"a worker of a DataLoader makes no tensors on {self._device}: leave `num_workers` "
                "at 0, as loaderd's own workers do the work, or leave out `device`"
            )
        _, start = self._sequence._begin_share(worker, self._resumed is not None)
        positions = range(start, len(self))[worker.number :: worker.workers]
        return map(self._sequence.__getitem__, positions[self._resumed or 0 :])


def _raising(error: LoaderdError) -> Iterator[Any]:
    raise error
    yield


def own_tensor_of(array: Any) -> torch.Tensor:
    """A tensor that may be changed: of an array's memory, or of a copy if others read it too."""
    return tensor_of(array if array.flags.writeable else array.copy())


def tensor_of(array: Any) -> torch.Tensor:
    """A tensor to copy from, of an array's memory; int32 is copied, as int64.

    Read-only memory is exposed as if it were writable: PyTorch has no tensors that are read-only,
    and would warn.
    """
    if not array.flags.writeable:
        array = np.asarray(_Writable(array)).view(array.dtype)
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    try:
        return torch.from_numpy(array.astype(np.int64) if array.dtype == np.int32 else array)
    except TypeError as error:
        raise InvalidType(
            f"an array of dtype {array.dtype} is no tensor: give labels of numbers, or read "
            "`sequence.numpy()`"
        ) from error


class _Writable:
    """Exports an array's memory as writable."""

    def __init__(self, array: Any) -> None:
        self._array = array
        place, _ = array.__array_interface__["data"]
        self.__array_interface__ = {**array.__array_interface__, "data": (place, False)}


def _device(device: Any) -> torch.device:
    try:
        found = torch.device("cpu" if device is None else device)
    except (RuntimeError, TypeError) as error:
        raise InvalidArgument(
            f'`device` should be a device of PyTorch, as "cuda:0". Received: {device!r}'
        ) from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise InvalidArgument(
            f"`device` is {found}, but PyTorch finds no CUDA device here: leave it out, or install "
            "a PyTorch for CUDA"
        )
    return found


class _Staging:
    """Pinned memory for one batch.

    Attributes:
        sent: when the copies out of it are complete; None before the first.
    """

    def __init__(self) -> None:
        self.sent: Any = None
        self._buffers: list[torch.Tensor] = []

    def fill(self, batch: Any) -> Any:
        """Copies a batch into it, as soon as its last one has been copied out."""
        if self.sent is not None:
            self.sent.synchronize()
        old, self._buffers = iter(self._buffers), []
        return mapped(lambda tensor: self._filled(next(old, None), tensor), batch)

    def _filled(self, buffer: torch.Tensor | None, tensor: torch.Tensor) -> torch.Tensor:
        fits = (
            buffer is not None
            and buffer.dtype == tensor.dtype
            and buffer.shape[1:] == tensor.shape[1:]
            and len(buffer) >= len(tensor)
        )
        if buffer is None or not fits:
            buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        self._buffers.append(buffer)
        return buffer[: len(tensor)].copy_(tensor)


class DeviceCopies:
    """Copies of batches to a CUDA device, beside the work on it.

    A batch is copied into pinned memory, where its slot is free again, and from there by the device
    on a stream of its own.

    Args:
        device: where to.
        count: batches that may be on their way at once.
    """

    def __init__(self, device: torch.device, count: int) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._ring = deque(_Staging() for _ in range(count))

    def send(self, batch: Any) -> tuple[Any, Any]:
        """Begins to copy a batch.

        Returns:
            The batch on the device, and the event after which it is complete.
        """
        staging = self._ring[0]
        self._ring.rotate(-1)
        staged = staging.fill(batch)
        with torch.cuda.stream(self._stream):
            sent = mapped(lambda tensor: tensor.to(self._device, non_blocking=True), staged)
            staging.sent = self._stream.record_event()
        return sent, staging.sent

    def receive(self, sent: tuple[Any, Any]) -> Any:
        """A batch, for work that begins when its copy is complete."""
        batch, event = sent
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(event)
        # Else its memory might be given away while this stream still reads it.
        mapped(lambda tensor: tensor.record_stream(stream), batch)
        return batch
