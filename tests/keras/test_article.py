"""The programs of the article "How can real-time image loading be implemented for Keras
neural network training?", with the import changed and nothing else.

Keras 3's own ``fit`` takes no ``use_multiprocessing``; the third program leaves it out.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from loaderd_client import ImageDataGenerator, Session

PLAIN = """
train_datagen = ImageDataGenerator(rescale=1./255)
train_generator = train_datagen.flow_from_directory(
    train_data_dir,
    target_size=(150, 150),
    batch_size=32,
    class_mode='categorical')
model.fit(train_generator, epochs=epochs)
"""

AUGMENTED = """
train_datagen = ImageDataGenerator(
    rescale=1./255,
    rotation_range=20,
    width_shift_range=0.2,
    height_shift_range=0.2,
    shear_range=0.2,
    zoom_range=0.2,
    horizontal_flip=True,
    fill_mode='nearest')
train_generator = train_datagen.flow_from_directory(
    train_data_dir,
    target_size=(150, 150),
    batch_size=32,
    class_mode='categorical')
model.fit(train_generator, epochs=epochs)
"""

LARGER = """
train_datagen = ImageDataGenerator(rescale=1./255)
train_generator = train_datagen.flow_from_directory(
    train_data_dir,
    target_size=(150, 150),
    batch_size=32,
    class_mode='categorical',
    workers=os.cpu_count())
model.fit(train_generator, epochs=epochs)
"""


class Seen(keras.layers.Layer):  # type: ignore[misc]  # keras has no types
    """Counts the samples that the model is trained on."""

    def build(self, input_shape: Any) -> None:
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x: Any, training: bool = False) -> Any:
        if training:
            self.count.assign_add(keras.ops.cast(keras.ops.shape(x)[0], "float32"))
        return x


def a_model(shape: tuple[int, int, int] = (150, 150, 3), classes: int = 3) -> Any:
    model = keras.Sequential(
        [
            keras.layers.Input(shape),
            Seen(name="seen"),
            keras.layers.Conv2D(4, 3, strides=4, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(classes, activation="softmax"),
        ]
    )
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    return model


def seen(model: Any) -> int:
    return int(np.asarray(model.get_layer("seen").count))


@pytest.mark.parametrize(
    "program", [PLAIN, AUGMENTED, LARGER], ids=["plain", "augmented", "larger"]
)
def test_the_articles_programs_run_with_their_import_changed(
    program: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, Any] = {
        "ImageDataGenerator": ImageDataGenerator,
        "os": os,
        "train_data_dir": str(photos),
        "model": a_model(),
        "epochs": 2,
    }
    with Session():
        exec(program, names)
    assert seen(names["model"]) == 2 * 96
    assert "Found 96 images belonging to 3 classes." in capsys.readouterr().out
    batch, labels = (96 // 3, names["train_generator"].num_classes)
    assert (batch, labels) == (32, 3)
