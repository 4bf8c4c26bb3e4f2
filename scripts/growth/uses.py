"""The ways of using a flow and of letting go of it: read or not, closed or not, kept by whom."""

from __future__ import annotations

import contextlib
import copy
import itertools
import os
import pickle
import random
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import cloudpickle
import numpy as np

from loaderd_client import connect
from scripts.growth.sources import Make

FIT, PREDICT, TF_KEPT, TF_READ = "fit", "predict", "kept by tf.data", "read by tf.data"

CHILD_SECONDS = 60.0
LONGEST_INTERRUPT = 0.01


class Keeper:
    """What a program keeps of its flows: the last few of each sort, and a network.

    Args:
        most: things of each sort that are kept.
    """

    def __init__(self, most: int) -> None:
        self.batches: deque[Any] = deque(maxlen=most)
        self.flows: deque[Any] = deque(maxlen=most)
        self.errors: deque[BaseException] = deque(maxlen=most)
        self.datasets: deque[Any] = deque(maxlen=most)
        self.random = random.Random(7)

    @cached_property
    def model(self) -> Any:
        """One for all fits: each new one makes TensorFlow grow by itself.

        Its loss needs no labels, so that it takes all kinds of batches.
        """
        import keras

        layers = keras.layers
        model = keras.Sequential(
            [
                layers.Input((None, None, 3)),
                layers.GlobalAveragePooling2D(),
                layers.Dense(1, activity_regularizer="l2"),
            ]
        )
        model.compile(keras.optimizers.SGD(1e-9))
        return model


def images_of(batch: Any) -> Any:
    """The images of a batch, whatever comes with them."""
    return batch[0] if isinstance(batch, (tuple, list)) else batch


def _unread(make: Make, keeper: Keeper) -> None:
    make()


def _one_batch(make: Make, keeper: Keeper) -> None:
    next(make())


def _half_read(make: Make, keeper: Keeper) -> None:
    flow = make()
    for _ in range((len(flow) + 1) // 2):
        next(flow)


def _wholly_read(make: Make, keeper: Keeper) -> None:
    flow = make()
    for batch, _ in zip(flow, range(len(flow)), strict=False):
        assert len(images_of(batch))


def _two_epochs(make: Make, keeper: Keeper) -> None:
    flow = make()
    for index in itertools.chain(reversed(range(len(flow))), range(len(flow))):
        assert len(images_of(flow[index]))
        if index == 0:
            flow.on_epoch_end()


def _closed(make: Make, keeper: Keeper) -> None:
    flow = make()
    next(flow)
    flow.close()


def _session_closed(make: Make, keeper: Keeper) -> None:
    with connect("auto"):
        next(make())


def _session_left_open(make: Make, keeper: Keeper) -> None:
    connect("auto")
    next(make())


def _flow_kept(make: Make, keeper: Keeper) -> None:
    flow = make()
    next(flow)
    keeper.flows.append(flow)


def _kept_flow_read(make: Make, keeper: Keeper) -> None:
    """Reads on in one that was kept, so that its stream opens again at its place."""
    _flow_kept(make, keeper)
    next(keeper.flows[0])


def _batch_kept(make: Make, keeper: Keeper) -> None:
    keeper.batches.append(next(make()))


def _error_kept(make: Make, keeper: Keeper) -> None:
    """A cell of a notebook fails: its traceback holds the flow and a batch."""
    try:
        flow = make()
        batch = next(flow)
        raise ValueError(f"{flow} gave {len(images_of(batch))} images")
    except ValueError as error:
        keeper.errors.append(error)


def _dataset_kept(make: Make, keeper: Keeper) -> None:
    """A ``tf.data.Dataset``, half read, with its iterator."""
    reading = iter(_tf_dataset(make()))
    next(reading)
    keeper.datasets.append(reading)


def _dataset_read(make: Make, keeper: Keeper) -> None:
    flow = make()
    for batch in _tf_dataset(flow).take(len(flow)):
        assert len(batch)


def _tf_dataset(flow: Any) -> Any:
    """Without a tuner: TensorFlow's destructor of an iterator waits up to a minute for it."""
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    dataset = tf.data.Dataset.from_generator(
        lambda: map(images_of, flow), output_signature=tf.TensorSpec((None, None, None, 3))
    )
    return dataset.with_options(options)


def _fit(make: Make, keeper: Keeper) -> None:
    """TensorFlow keeps the flow for ever."""
    keeper.model.fit(make(), verbose=0)


def _predict(make: Make, keeper: Keeper) -> None:
    keeper.model.predict(make(), verbose=0)


def _copied(make: Make, keeper: Keeper) -> None:
    flow = make()
    next(flow)
    again = copy.deepcopy(flow)
    _same(next(flow), next(again))


def _pickled(make: Make, keeper: Keeper) -> None:
    flow = make()
    _same(next(pickle.loads(cloudpickle.dumps(flow))), next(flow))


def _same(one: Any, other: Any) -> None:
    if not np.array_equal(images_of(one), images_of(other)):
        raise AssertionError("a copy of a flow has other images")


def _pair_in_threads(make: Make, keeper: Keeper) -> None:
    flows = make(), make()
    pairs = [(flow, index) for index in range(len(flows[0])) for flow in flows]
    with ThreadPoolExecutor(4) as pool:
        batches = list(pool.map(lambda pair: pair[0][pair[1]], pairs))
    for one, other in zip(batches[::2], batches[1::2], strict=True):
        _same(one, other)


def _forked_child(make: Make, keeper: Keeper) -> None:
    flow = make()
    next(flow)
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if len(images_of(flow[0])) else 1)
        finally:
            os._exit(2)
    try:
        status = _end_of(child)
    finally:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    if status:
        raise AssertionError(f"a forked child could not read: {status}")


def _end_of(child: int) -> int | None:
    """Its exit status; None if it takes too long."""
    end = time.monotonic() + CHILD_SECONDS
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return None


def _edited(make: Make, keeper: Keeper) -> None:
    """Attributes are set, as programs set them on Keras's iterators."""
    flow = make()
    next(flow)
    if hasattr(flow, "index_array"):  # a dataset has none of these
        flow.batch_size = 5
        flow.shuffle = not flow.shuffle
        next(flow)
        flow.index_array = np.arange(flow.n)[::-1].copy()
    next(flow)


def _reset(make: Make, keeper: Keeper) -> None:
    flow = make()
    for _ in range(3):
        next(flow)
        flow.reset()


def _interrupted(make: Make, keeper: Keeper) -> None:
    """Ctrl-C in ``next``, three times; the cell is run again."""
    flow = make()
    for _ in range(3):
        with contextlib.suppress(KeyboardInterrupt), _interrupts(keeper.random):
            for _ in range(20):
                next(flow)
    next(flow)


@contextlib.contextmanager
def _interrupts(chance: random.Random) -> Iterator[None]:
    """An alarm that strikes within the block, if that lasts."""

    def strike(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, strike)
    try:
        signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-5, LONGEST_INTERRUPT))
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


USES: dict[str, Callable[[Make, Keeper], None]] = {
    "never read": _unread,
    "one batch": _one_batch,
    "half read": _half_read,
    "wholly read": _wholly_read,
    "two epochs by index": _two_epochs,
    "closed": _closed,
    "session closed": _session_closed,
    "session left open": _session_left_open,
    "kept": _flow_kept,
    "kept, read on later": _kept_flow_read,
    "batch kept": _batch_kept,
    "kept by a traceback": _error_kept,
    TF_KEPT: _dataset_kept,
    TF_READ: _dataset_read,
    FIT: _fit,
    PREDICT: _predict,
    "deep copy": _copied,
    "pickled": _pickled,
    "pair in threads": _pair_in_threads,
    "forked child": _forked_child,
    "attributes set": _edited,
    "reset": _reset,
    "interrupted": _interrupted,
}
"""By name; each makes at least one flow and does with it what programs do."""
