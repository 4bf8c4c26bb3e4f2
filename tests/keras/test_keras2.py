"""Keras 2 (``tf_keras``) takes the same iterators, and may fork the trainer over them.

Each program runs in a Python of its own: a process has one Keras.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import chain, pairwise
from pathlib import Path

import pytest

from tests.support.daemons import Serve, eventually

HEAD = """
import json, os, sys
import numpy as np
import tensorflow as tf
from loaderd_client.image import ImageDataGenerator

train_data_dir = sys.argv[1]
seen = []

class Model(tf.keras.Model):
    # Keeps a number for each image that it is trained on.
    def __init__(self):
        super().__init__()
        self.flat = tf.keras.layers.Flatten()
        self.dense = tf.keras.layers.Dense(3, activation="softmax")

    def call(self, x):
        return self.dense(self.flat(x))

    def train_step(self, data):
        tf.py_function(lambda x: seen.append(np.sort(x.numpy().sum((1, 2, 3))).tolist()),
                       [data[0]], [])
        return super().train_step(data)

model = Model()
model.compile("adam", "categorical_crossentropy")
epochs = 2
"""

THE_ARTICLES_THIRD = """
train_datagen = ImageDataGenerator(rescale=1./255)
train_generator = train_datagen.flow_from_directory(
    train_data_dir,
    target_size=(150, 150),
    batch_size=32,
    class_mode='categorical',
    workers=os.cpu_count())
model.fit(train_generator, epochs=epochs, use_multiprocessing=True)
"""

OF_FORKED_CHILDREN = """
train_generator = ImageDataGenerator(horizontal_flip=True).flow_from_directory(
    train_data_dir, target_size=(40, 50), seed=5)
model.fit(train_generator, epochs=epochs, shuffle=False, workers=3, use_multiprocessing=True)
expected = ImageDataGenerator(horizontal_flip=True).flow_from_directory(
    train_data_dir, target_size=(40, 50), seed=5)
for batch in seen:
    np.testing.assert_allclose(batch, np.sort(next(expected)[0].sum((1, 2, 3))), rtol=1e-5)
"""

FIT_IS_FIRST = """
from tf_keras.src.utils.data_utils import OrderedEnqueuer
OrderedEnqueuer._wait_queue = lambda self: self.stop_signal.wait()
steps_of_fits = (None, 2)  # a whole epoch each, and parts
"""

ENQUEUER_IS_FIRST = """
import threading, time
from tf_keras.src.utils.data_utils import OrderedEnqueuer

def wait_queue(self):
    while self.queue.unfinished_tasks and not self.stop_signal.is_set():
        time.sleep(0.001)

def send_sequence(self, send=OrderedEnqueuer._send_sequence):
    send(self)
    self.sent = getattr(self, "sent", 0) + 1
    if self.sent > 1:
        ended.set()

class Waits(tf.keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        assert ended.wait(60)
        ended.clear()

ended = threading.Event()
OrderedEnqueuer._wait_queue, OrderedEnqueuer._send_sequence = wait_queue, send_sequence
callbacks = [Waits()]
steps_of_fits = (None, 6, 2)  # also two epochs at once
"""

EPOCH_AFTER_EPOCH = """
def flow():
    return ImageDataGenerator(horizontal_flip=True).flow_from_directory(
        train_data_dir, target_size=(40, 50), seed=5)

train, reference = flow(), flow()
for steps in steps_of_fits:
    model.fit(train, epochs=2, steps_per_epoch=steps, shuffle=False, workers=2,
              use_multiprocessing=FORKED, callbacks=globals().get("callbacks"))
    for epoch in range(2):
        for step in range(steps or 3):
            batch = np.sort(reference[step % 3][0].sum((1, 2, 3)))
            np.testing.assert_allclose(seen.pop(0), batch, rtol=1e-5)
            if step % 3 == 2:
                reference.on_epoch_end()
        if step % 3 < 2:
            reference.on_epoch_end()
"""

OF_THREADS = """
train_generator = ImageDataGenerator().flow_from_directory(train_data_dir, target_size=(40, 50))
model.fit(train_generator, epochs=epochs, workers=4)
"""

ALL_FORMS = """
def flow(**options):
    return ImageDataGenerator(rescale=1 / 255).flow_from_directory(
        train_data_dir, target_size=(40, 50), **options)

train, test = flow(), flow(shuffle=False)
assert isinstance(train, tf.keras.utils.Sequence)
history = model.fit(train, epochs=epochs, validation_data=test, validation_steps=2)
assert len(history.history["val_loss"]) == epochs
loss = model.evaluate(test)
np.testing.assert_allclose(model.evaluate(test), loss, rtol=1e-5)
predicted = model.predict(test)
assert predicted.shape == (96, 3)
for form in ("fit_generator", "evaluate_generator", "predict_generator"):
    if hasattr(tf.keras.Sequential, form):
        sequential = tf.keras.Sequential([tf.keras.layers.Flatten(), tf.keras.layers.Dense(3)])
        sequential.compile("adam", "mse")
        getattr(sequential, form)(test)
by_hand = np.concatenate([model.predict_on_batch(test[i][0]) for i in range(len(test))])
np.testing.assert_allclose(predicted, by_hand, rtol=1e-4, atol=1e-6)
del seen[2 * len(train):]
"""


def run(program: str, photos: Path) -> list[list[float]]:
    tail = "\nprint('seen', json.dumps(seen))"
    done = subprocess.run(
        [sys.executable, "-c", HEAD + program + tail, str(photos)],
        env={**os.environ, "TF_USE_LEGACY_KERAS": "1"},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = done.stdout.splitlines()[-1]
    assert said.startswith("seen ")
    seen: list[list[float]] = json.loads(said.removeprefix("seen "))
    return seen


@pytest.mark.parametrize(
    "program",
    [THE_ARTICLES_THIRD, OF_FORKED_CHILDREN, OF_THREADS, ALL_FORMS],
    ids=["the article's third program", "forked children", "threads", "all forms"],
)
def test_every_sample_comes_once_per_epoch(program: str, photos: Path, serve: Serve) -> None:
    shm = set(os.listdir("/dev/shm"))
    with serve() as daemon:
        seen = run(program, photos)
        epochs = [sorted(chain(*seen[first : first + 3])) for first in (0, 3)]
        for epoch in epochs:
            assert len(epoch) == 96
            assert all(b - a > 1e-9 for a, b in pairwise(epoch))
        assert same(*epochs)
        eventually(lambda: not daemon.snapshot().streams)
    eventually(lambda: set(os.listdir("/dev/shm")) <= shm)


@pytest.mark.parametrize(
    ("first", "forked"),
    [(FIT_IS_FIRST, True), (ENQUEUER_IS_FIRST, False)],
    ids=["fit, of forked children", "the enqueuer, of threads"],
)
def test_an_epoch_follows_another_whoever_is_the_first_to_say_that_it_is_over(
    first: str, forked: bool, photos: Path, serve: Serve
) -> None:
    with serve():
        run(first + EPOCH_AFTER_EPOCH.replace("FORKED", str(forked)), photos)


def same(one: list[float], other: list[float]) -> bool:
    return all(abs(a - b) < 1e-5 * abs(a) for a, b in zip(one, other, strict=True))


def test_both_kerases_may_be_in_use(photos: Path, serve: Serve) -> None:
    program = """
import keras
both = ImageDataGenerator().flow_from_directory(train_data_dir, target_size=(40, 50))
assert isinstance(both, keras.utils.PyDataset)
assert isinstance(both, tf.keras.utils.Sequence)
"""
    with serve():
        run("import keras" + program, photos)
