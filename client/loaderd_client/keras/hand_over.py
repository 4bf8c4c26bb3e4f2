"""The batches of a sequence for training loops without Keras."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from loaderd.errors import MissingDependency
from loaderd_client.core.epochs import Epochs, EpochSource

if TYPE_CHECKING:
    from loaderd_client.jax import JaxEpochs
    from loaderd_client.torch import TorchEpochs


class HandOver:
    """The epochs of a sequence as NumPy arrays, tensors of PyTorch, or arrays of JAX."""

    def numpy(self: EpochSource) -> Epochs:
        """The epochs as NumPy arrays: each ``iter()`` is one, and the next one the next epoch.

        Returns:
            An iterable with a length, of batches as ``sequence[i]`` has them: (images, labels),
            images alone, (images, labels, weights), or a dictionary. Images are of shape (rows,
            height, width, channels), or (rows, channels, height, width) with ``channels_first``,
            and of the sequence's dtype. Labels have a row for each image: int32 (rows,), or
            float32 (rows, classes) or (rows, 1), by ``label_mode`` or ``class_mode``. Weights are
            float32 (rows,). The loop raises ``BadImage`` where a file of a batch could not be read,
            and ``DaemonGone`` where the daemon went away and did not come back in time.
        """
        return Epochs(self)

    def torch(
        self: EpochSource, device: Any = None, non_blocking: bool = True, prefetch: int = 2
    ) -> TorchEpochs:
        """The epochs as tensors of PyTorch: each ``iter()`` is one, and the next the next epoch.

        The tensors may be changed in place. On the CPU they lie in the batch's slot, without a
        copy. If the sequence shares its stream with other trainers (``share``), they are copies, as
        a change of that memory would reach these.

        Args:
            device: where the tensors are made, as ``"cuda"``; None for the CPU.
            non_blocking: whether copies to a CUDA device go through pinned memory and on a stream
                of their own, beside the work on it.
            prefetch: how many batches are copied to it ahead of the one handed out.

        Returns:
            A ``torch.utils.data.IterableDataset`` of batches with the structure, shapes and dtypes
            of ``numpy()``, except that class numbers of int32 become int64, which PyTorch's losses
            take. The loop raises the same errors, and ``InvalidType`` for an array, as of texts,
            that is no tensor.

        Raises:
            MissingDependency: PyTorch is not installed.
            InvalidArgument: there is no such device, or ``prefetch`` is negative.
        """
        epochs: type[TorchEpochs] = _module("torch").TorchEpochs
        return epochs(self, device, non_blocking, prefetch)

    def jax(self: EpochSource, sharding: Any = None, prefetch: int = 2) -> JaxEpochs:
        """The epochs as arrays of JAX: each ``iter()`` is one, and the next one the next epoch.

        Args:
            sharding: a ``jax.sharding.Sharding`` or a device, for all arrays; None for JAX's
                default device. If it spans several processes, a batch is this process's part, as
                ``shard`` gives it.
            prefetch: how many batches are transferred ahead of the one handed out.

        Returns:
            An iterable with a length, of batches with the structure, shapes and dtypes of
            ``numpy()``; over several processes the first axis is that of all their rows. Without
            ``jax_enable_x64`` JAX makes arrays of 32 bits of those of 64 bits. The loop raises the
            same errors; ``InvalidType`` for an array, as of texts, that JAX does not take; and
            ``InvalidArgument`` where ``sharding`` does not divide a batch evenly.

        Raises:
            MissingDependency: JAX is not installed.
            InvalidArgument: ``sharding`` is neither, or ``prefetch`` is negative.
        """
        epochs: type[JaxEpochs] = _module("jax").JaxEpochs
        return epochs(self, sharding, prefetch)


def _module(name: str) -> Any:
    """The module of ours that needs a package of this name."""
    try:
        return import_module(f"loaderd_client.{name}")
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise MissingDependency(
            f"sequence.{name}() needs {name}, which this Python lacks: pip install {name}"
        ) from error
