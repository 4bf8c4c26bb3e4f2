"""A script that was written for Keras 2 runs unchanged but for its import line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.daemons import Serve

IMPORT = (
    "from tensorflow.keras.preprocessing.image import ImageDataGenerator, img_to_array, load_img"
)

SCRIPT = """
import sys
import numpy as np
from tensorflow.keras.layers import Conv2D, Dense, Flatten, MaxPooling2D
from tensorflow.keras.models import Sequential
{import_line}

train_dir = sys.argv[1]
img_width, img_height, batch_size = 50, 40, 16

train_datagen = ImageDataGenerator(
    rescale=1. / 255, shear_range=0.2, zoom_range=0.2, horizontal_flip=True,
    validation_split=0.25)
test_datagen = ImageDataGenerator(rescale=1. / 255)

train_generator = train_datagen.flow_from_directory(
    train_dir, target_size=(img_height, img_width), batch_size=batch_size,
    class_mode='categorical', subset='training')
validation_generator = train_datagen.flow_from_directory(
    train_dir, target_size=(img_height, img_width), batch_size=batch_size,
    class_mode='categorical', subset='validation')
test_generator = test_datagen.flow_from_directory(
    train_dir, target_size=(img_height, img_width), batch_size=batch_size,
    class_mode=None, shuffle=False)

x_batch, y_batch = next(train_generator)
print(x_batch.shape, y_batch.shape)
labels = dict((v, k) for k, v in train_generator.class_indices.items())
class_weights = np.bincount(train_generator.classes)

model = Sequential([
    Conv2D(4, (3, 3), activation='relu', input_shape=(img_height, img_width, 3)),
    MaxPooling2D(pool_size=(2, 2)),
    Flatten(),
    Dense(train_generator.num_classes, activation='softmax')])
model.compile(loss='categorical_crossentropy', optimizer='rmsprop', metrics=['accuracy'])
history = model.fit(
    train_generator,
    steps_per_epoch=train_generator.samples // batch_size,
    epochs=3,
    validation_data=validation_generator,
    validation_steps=validation_generator.samples // batch_size)

test_generator.reset()
predictions = model.predict(test_generator, steps=len(test_generator))
predicted = [labels[k] for k in np.argmax(predictions, axis=1)]
assert len(predicted) == len(test_generator.filenames) == test_generator.n
img = load_img(test_generator.filepaths[0], target_size=(img_height, img_width))
x = img_to_array(img)[np.newaxis] / 255
one = model.predict(x)
np.testing.assert_allclose(one[0], predictions[0], atol=1e-4)

i = 0
for batch in test_datagen.flow(x, batch_size=1):
    i += 1
    if i > 20:
        break
print('epochs', len(history.history['val_loss']), labels[0], int(class_weights[0]))
"""


@pytest.mark.parametrize("legacy", ["0", "1"], ids=["keras 3", "keras 2"])
def test_only_the_import_line_changes(legacy: str, photos: Path, serve: Serve) -> None:
    ours = IMPORT.replace("tensorflow.keras.preprocessing.image", "loaderd_client.image")
    with serve():
        said = [run(SCRIPT.format(import_line=line), legacy, photos) for line in (IMPORT, ours)]
    assert said[0] == said[1]
    assert said[1][-1] == "epochs 3 cat 31"


def run(program: str, legacy: str, photos: Path) -> list[str]:
    """What the program prints, Keras's bars and times left out."""
    done = subprocess.run(
        [sys.executable, "-c", program, str(photos)],
        env={**os.environ, "TF_USE_LEGACY_KERAS": legacy},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    return [line for line in lines if line.startswith(("Found", "(", "epochs"))]
