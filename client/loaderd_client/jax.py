"""Batches as arrays of JAX; ``sequence.jax()`` makes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax

from loaderd.errors import InvalidArgument, InvalidType
from loaderd_client.core import arguments
from loaderd_client.core.epochs import Epochs, EpochSource, ahead, all_mapped


class JaxEpochs(Epochs):
    """The batches of a sequence as arrays of JAX.

    Each ``iter()`` is an epoch, and the next one the next epoch. A slot in shared memory is used
    again when its batch has been transferred. On the CPU there is no transfer where JAX takes the
    slot's memory as it is; then the slot is used again when the arrays are freed.

    Without ``jax_enable_x64`` JAX makes arrays of 32 bits of those of 64 bits.

    Args:
        sequence: gives the batches.
        sharding: a ``jax.sharding.Sharding`` or a device, for all arrays; None for JAX's default
            device. If it spans several processes, a batch is this process's part, as ``shard``
            gives it.
        prefetch: how many batches are transferred ahead of the one handed out.

    Raises:
        InvalidArgument: it is neither, or ``prefetch`` is negative.
    """

    def __init__(self, sequence: EpochSource, sharding: Any, prefetch: int) -> None:
        super().__init__(sequence)
        if not isinstance(sharding, (jax.sharding.Sharding, jax.Device, type(None))):
            raise InvalidArgument(
                "`sharding` should be a jax.sharding.Sharding, a device, or None. "
                f"Received: {sharding!r}"
            )
        self._sharding = sharding
        self._spans_processes = (
            isinstance(sharding, jax.sharding.Sharding) and not sharding.is_fully_addressable
        )
        self._prefetch = arguments.count("prefetch", prefetch)

    def __iter__(self) -> Iterator[Any]:
        """The batches of an epoch, each in the structure that the sequence gives it.

        Raises:
            InvalidArgument: the sharding does not divide a batch evenly; or it spans processes,
                and their parts of a batch may differ in length.
            InvalidType: a batch has an array, as of texts, that JAX does not take.
            BadImage: a file of the batch could not be read.
            DaemonGone: the daemon went away, and did not come back in time.
        """
        if self._spans_processes:
            self._check_parts()
        return super().__iter__()

    def _handed_over(self, batches: Iterator[Any]) -> Iterator[Any]:
        return ahead(
            all_mapped(self._transferred, batches), self._prefetch, self._sequence._has_next
        )

    def _transferred(self, array: Any) -> jax.Array:
        sharding = self._sharding
        try:
            if not isinstance(sharding, jax.sharding.Sharding):
                return jax.device_put(array, sharding)
            if self._spans_processes:
                return self._joined(array)
            _check_even(sharding, array.shape)
            return jax.device_put(array, sharding)
        except TypeError as error:
            raise InvalidType(
                f"JAX has no arrays of dtype {array.dtype}: give labels of numbers, or read "
                "`sequence.numpy()`"
            ) from error

    def _joined(self, array: Any) -> jax.Array:
        """The array of all processes, of which this one has a part."""
        shard = self._sequence.spec.order.shard
        shape = None  # without shards, what JAX takes it for: every process has another part
        if shard is not None and shard.count > 1:
            shape = (shard.count * len(array), *array.shape[1:])
            _check_even(self._sharding, shape)
        try:
            return jax.make_array_from_process_local_data(self._sharding, array, shape)
        except ValueError as error:
            raise InvalidArgument(
                f"`sharding` does not join arrays of shape {array.shape}, one of each process: "
                "let it divide the first axis as `shard` does, and choose a `batch_size` that the "
                f"devices of a process divide ({error})"
            ) from error

    def _check_parts(self) -> None:
        """Raises where processes would make arrays of different shapes, and wait for each other."""
        if self._sequence.spec.on_error == "skip":
            raise InvalidArgument(
                'with on_error="skip" the batches of processes differ in length, and `sharding` '
                'needs equal ones: use on_error="substitute" or "raise"'
            )
        layout = self._sequence._epoch_layout()
        if not layout.is_even:
            raise InvalidArgument(
                f"the last batch of an epoch of {layout.samples} samples is not as long in every "
                'process, and `sharding` needs equal parts: use remainder="drop" or "pad"'
            )


def _check_even(sharding: jax.sharding.Sharding, shape: tuple[int, ...]) -> None:
    try:
        sharding.shard_shape(shape)
    except ValueError as error:
        raise InvalidArgument(
            f"`sharding` does not divide an array of shape {shape} evenly: choose a `batch_size` "
            'that it divides, and leave a smaller last batch out by remainder="drop", for one '
            "trainer with shard=(0, 1)"
        ) from error
