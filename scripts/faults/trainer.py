"""A trainer of the storm: ``python -m scripts.faults.trainer keras|plain WHICH DATA``.

It trains until the end of the epoch in which SIGTERM comes. ``LOADERD_SOCKET`` is the daemon's
address, ``LOADERD_HISTORY`` its log of batches.
"""

from __future__ import annotations

import faulthandler
import random
import signal
import sys
import threading
from typing import Any

from scripts.faults import batch_log, flows

ENDLESS = 10**9

stopped = threading.Event()


def with_keras(which: str, data: str) -> None:
    """Train a small network."""
    import keras

    class Stop(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.stop_training = stopped.is_set()

    train, validation = flows.of(which, data)
    model = _network(keras, train.num_classes)
    model.fit(train, validation_data=validation, epochs=ENDLESS, verbose=0, callbacks=[Stop()])


def _network(keras: Any, classes: int) -> Any:
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((*flows.SIZE, 3)),
            layers.Conv2D(4, 3, strides=4, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(classes, activation="softmax"),
        ]
    )
    model.compile("sgd", "categorical_crossentropy")
    return model


def without_keras(which: str, data: str) -> None:
    """Take batches in Keras's order, without training."""
    flows.without_keras()
    train, validation = flows.of(which, data)
    rng = random.Random(which)
    while not stopped.is_set():
        _read(train, rng)
        if validation is not None:
            _read(validation, None)


def _read(sequence: Any, rng: random.Random | None) -> None:
    """One pass; ``fit`` permutes the indices, ``evaluate`` does not."""
    indices = list(range(sequence.num_batches))
    if rng is not None:
        rng.shuffle(indices)
    for index in indices:
        images, labels = sequence[index]
        assert len(images) == len(labels)
    sequence.on_epoch_end()


def main() -> None:
    """Train until SIGTERM."""
    from loaderd_client import connect

    kind, which, data = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    faulthandler.register(signal.SIGUSR1)  # where it is, if it hangs
    batch_log.install()
    with connect("auto"):
        (with_keras if kind == "keras" else without_keras)(which, data)


if __name__ == "__main__":
    main()
