"""Trains a small network from a folder of class folders, fed by loaderd.

All that differs from a program for Keras alone is the first import, and a callback that
shows what ``loaderd-stat`` says after each epoch.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras

from loaderd.errors import LoaderdError
from loaderd_client import ImageDataGenerator

SIZE = (150, 150)
ENOUGH = 2.0  # times chance, in the last epoch


class ShowStat(keras.callbacks.Callback):  # type: ignore[misc]
    """Prints one shot of ``loaderd-stat`` after each epoch."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Is called by Keras while the daemon fills the next epoch's first batches."""
        print(f"\nloaderd-stat, after epoch {epoch + 1}:", flush=True)
        command = Path(sys.executable).with_name("loaderd-stat")
        subprocess.run([command], check=True)  # it finds the daemon by LOADERD_NAME
        print(flush=True)


def network(classes: int) -> Any:
    """A small convolutional network."""
    layers = keras.layers
    model = keras.Sequential([layers.Input((*SIZE, 3))])
    for filters in (16, 32, 64):
        model.add(layers.Conv2D(filters, 3, strides=2, activation="relu"))
        model.add(layers.MaxPooling2D())
    model.add(layers.GlobalAveragePooling2D())
    model.add(layers.Dense(classes, activation="softmax"))
    model.compile(keras.optimizers.Adam(3e-3), "categorical_crossentropy", metrics=["accuracy"])
    return model


def flows(directory: str) -> tuple[Any, Any]:
    """Batches for training, turned and mirrored by chance, and batches for validation."""
    options: dict[str, Any] = {"target_size": SIZE, "batch_size": 32, "class_mode": "categorical"}
    changed = ImageDataGenerator(
        rescale=1 / 255, rotation_range=20, horizontal_flip=True, validation_split=0.2
    )
    as_they_are = ImageDataGenerator(rescale=1 / 255, validation_split=0.2)
    return (
        changed.flow_from_directory(directory, subset="training", **options),
        as_they_are.flow_from_directory(directory, subset="validation", **options),
    )


def main() -> None:
    """Trains, and holds the accuracy of the last epoch against chance."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", help="holds one folder of images per class")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument(
        "--must-learn", action="store_true", help="end with 1 if accuracy stays near chance"
    )
    args = parser.parse_args()
    train, validation = flows(args.directory)
    model = network(train.num_classes)
    history = model.fit(
        train, validation_data=validation, epochs=args.epochs, callbacks=[ShowStat()]
    )
    accuracy, chance = history.history["val_accuracy"][-1], 1 / train.num_classes
    print(f"validation accuracy in the last epoch: {accuracy:.0%}; chance would be {chance:.0%}")
    if args.must_learn and accuracy < ENOUGH * chance:
        sys.exit("demo: the network has learnt next to nothing: the images do not reach it as made")


if __name__ == "__main__":
    try:
        main()
    except (LoaderdError, subprocess.CalledProcessError) as error:
        sys.exit(f"demo: {error}")
