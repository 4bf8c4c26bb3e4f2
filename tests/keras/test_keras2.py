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

from tests.conftest import eventually
from tests.process.test_streams import Serve

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
