"""Keras and TensorFlow that divide a dataset among processes themselves.

- Keras, from 3.16 on: where a ``keras.distribution`` of several processes shards datasets, each
  process reads every so many-th index of a ``PyDataset``
  (``keras/src/trainers/data_adapters/py_dataset_adapter.py``). A sequence with ``shard`` has a
  block of each batch already, so all its indices are read. Keras up to 3.15 refuses a ``PyDataset``
  there.
- TensorFlow: ``MultiWorkerMirroredStrategy`` takes a batch of ``fit`` for that of all workers, and
  keeps a part of it in each (``experimental_distribute_dataset``).
"""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

from loaderd.errors import InvalidArgument
from loaderd.spec.output import WHOLE, Shard


def prevent_division(frame: FrameType, shard: Shard | None) -> None:
    """Keeps a dataset that is sharded from being divided once more.

    Args:
        frame: of Keras's adapter, before it reads the dataset.
        shard: of the sequence.

    Raises:
        InvalidArgument: Keras would have all processes read the same batches, or TensorFlow would
            leave out a part of each; says what to do.
    """
    _read_whole(frame.f_locals.get("self"), shard or WHOLE)
    if shard is not None and shard.count > 1 and _divides_batches(sys.modules.get("tensorflow")):
        raise InvalidArgument(
            "MultiWorkerMirroredStrategy would leave out a part of each batch, as this dataset has "
            "a shard: give `fit` what strategy.distribute_datasets_from_function makes of it"
        )


def _read_whole(keras_adapter: Any, shard: Shard) -> None:
    """Has an adapter of Keras 3.16 read all indices."""
    count = getattr(keras_adapter, "_num_data_shards", 1)
    if count == 1:
        return
    index = keras_adapter._data_shard_id
    if (shard.index, shard.count) != (index, count):
        raise InvalidArgument(
            f"keras.distribution shards datasets among {count} processes: give this one "
            f'shard=({index}, {count}) here, or shard="auto"'
        )
    keras_adapter._data_shard_id, keras_adapter._num_data_shards = 0, 1


def _divides_batches(tensorflow: Any) -> bool:
    """Whether a strategy with workers in other processes is in use."""
    if not hasattr(tensorflow, "distribute"):
        return False
    strategy = tensorflow.distribute.get_strategy()
    if not isinstance(strategy, tensorflow.distribute.MultiWorkerMirroredStrategy):
        return False
    return bool(strategy.num_replicas_in_sync > len(strategy.extended.worker_devices))
