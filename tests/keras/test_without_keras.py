"""Training loops without Keras: it is not imported, and a sequence is one of its own later."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loaderd.errors import InvalidArgument, MissingDependency
from loaderd_client import ImageDataGenerator, Session, image_dataset_from_directory
from loaderd_client.core.epochs import Epochs, ahead
from loaderd_client.core.supply import is_ready
from loaderd_client.keras import keras_settings
from tests.support.daemons import Serve, eventually

HEAD = """
import sys
from loaderd_client import ImageDataGenerator, image_dataset_from_directory

folder = sys.argv[1]
options = {"image_size": (40, 50), "batch_size": 8, "seed": 3, "verbose": False}

def loaded():
    return sorted({"keras", "tf_keras", "tensorflow"} & sys.modules.keys())

def dataset():
    return image_dataset_from_directory(folder, **options)

def flow():
    return ImageDataGenerator(rescale=1 / 255).flow_from_directory(
        folder, target_size=(40, 50), batch_size=8, class_mode="sparse")

def a_model(keras):
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model
"""


def run(program: str, photos: Path, **env: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HEAD + program, str(photos)],
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_dataset_and_a_flow_are_read_without_keras(photos: Path, serve: Serve) -> None:
    program = """
for batches in (dataset().numpy(), flow().numpy()):
    for epoch in range(2):
        assert sum(len(images) for images, labels in batches) == 96
given = dataset()
given.on_epoch_end()
next(given)
assert isinstance(given, type(given)) and not isinstance(given, list)
assert not loaded(), loaded()
"""
    with serve():
        run(program, photos)


@pytest.mark.parametrize("package", ["torch", "jax"])
def test_neither_do_these_import_it(package: str, photos: Path, serve: Serve) -> None:
    pytest.importorskip(package)
    program = f"""
for batches in (dataset().{package}(), flow().{package}()):
    assert sum(len(images) for images, labels in batches) == 96
assert {package!r} in sys.modules
assert not loaded(), loaded()
"""
    with serve():
        run(program, photos)


def test_what_was_made_before_keras_was_imported_is_a_sequence_of_it(
    photos: Path, serve: Serve
) -> None:
    program = """
import copy, pickle, warnings
import numpy as np
from loaderd_client.image import Iterator
warnings.simplefilter("error", UserWarning)

class Zeros(Iterator):
    def _get_batches_of_transformed_samples(self, index_array):
        return np.zeros((len(index_array), 4)), np.zeros(len(index_array))

first, second, third = dataset(), flow(), flow()
zeros = Zeros(20, 8, shuffle=True, seed=1, max_queue_size=4)
for _ in first.numpy():
    pass
assert not loaded()
import keras
assert pickle.loads(pickle.dumps(third)).n == 96  # before anybody has asked what it is
for one in (first, second, third, zeros):
    assert isinstance(one, keras.utils.PyDataset)
    assert issubclass(type(one), keras.utils.PyDataset)
    assert type(one) is one.__class__
    assert one.workers == 1
    history = a_model(keras).fit(one, epochs=2, verbose=0)
    assert len(history.history["loss"]) == 2
assert (first.max_queue_size, zeros.max_queue_size) == (10, 4)
assert copy.copy(second).n == 96
"""
    with serve():
        run(program, photos)


def test_it_is_one_of_both_versions_if_they_are_loaded_one_after_the_other(
    photos: Path, serve: Serve
) -> None:
    program = """
given = dataset()
import tf_keras
assert isinstance(given, tf_keras.utils.Sequence)
import keras
assert isinstance(given, keras.utils.PyDataset) and isinstance(given, tf_keras.utils.Sequence)
for version in (tf_keras, keras):
    a_model(version).fit(given, verbose=0)
"""
    with serve():
        run(program, photos)


def test_a_function_that_imports_keras_brings_it_along(photos: Path, serve: Serve) -> None:
    program = """
import numpy as np

def plain(x):
    return x / 2

def preprocessed(x):
    from keras.applications.vgg16 import preprocess_input
    return preprocess_input(x)

def batch_of(function):
    return next(ImageDataGenerator(preprocessing_function=function).flow_from_directory(
        folder, target_size=(40, 50), shuffle=False))[0]

assert batch_of(plain).max() <= 127.5
assert not loaded()
ours = batch_of(preprocessed)
assert loaded()
np.testing.assert_array_equal(ours, preprocessed(batch_of(None)))
"""
    with serve() as daemon:
        run(program, photos)
        for pid in daemon.workers():
            assert "tensorflow" not in Path(f"/proc/{pid}/maps").read_text()


# -- settings --------------------------------------------------------------------------

AS_KERAS_READS_THEM = """
import importlib.util, sys
from unittest.mock import MagicMock

folder = importlib.util.find_spec("keras").submodule_search_locations[0]
for name in ("keras", "keras.src", "keras.src.backend", "keras.src.backend.common"):
    sys.modules[name] = MagicMock()
export = MagicMock(keras_export=lambda names: lambda function: function)
sys.modules["keras.src.api_export"] = export
spec = importlib.util.spec_from_file_location("config", folder + "/src/backend/config.py")
config = importlib.util.module_from_spec(spec)
spec.loader.exec_module(config)
print(config.floatx(), config.image_data_format(), config.backend())
"""
"""Runs Keras's own module of settings, without the rest of Keras."""


@pytest.mark.parametrize(
    ("stored", "env"),
    [
        (None, {}),
        ('{"floatx": "float16", "image_data_format": "channels_first", "epsilon": 1e-7}', {}),
        ('{"backend": "torch"}', {"KERAS_BACKEND": ""}),
        ('{"backend": "torch"}', {"KERAS_BACKEND": "tensorflow"}),
        ("no JSON", {"KERAS_BACKEND": "jax"}),
    ],
    ids=["no file", "values", "an empty variable", "a variable", "no JSON"],
)
def test_settings_are_those_that_keras_would_have(
    stored: str | None, env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if stored is not None:
        (tmp_path / "keras.json").write_text(stored)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    ours = keras_settings.stored()
    done = subprocess.run(
        [sys.executable, "-c", AS_KERAS_READS_THEM], capture_output=True, text=True
    )
    assert done.stdout.split() == list(ours), done.stderr


def test_they_lie_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras/keras.json").write_text(json.dumps({"floatx": "float64"}))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KERAS_HOME", raising=False)
    assert keras_settings.stored().floatx == "float64"


def test_a_flow_follows_them(photos: Path, serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "keras.json").write_text('{"image_data_format": "channels_first"}')
    program = """
assert next(iter(dataset().numpy()))[0].shape == (8, 3, 40, 50)
assert next(flow())[0].shape == (8, 3, 40, 50)
assert not loaded()
"""
    with serve():
        run(program, photos, KERAS_HOME=str(tmp_path))


def test_a_setting_that_keras_refuses_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keras.json").write_text('{"floatx": "bfloat16"}')
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(InvalidArgument, match=r"keras.json: floatx should be one of float16, "):
        keras_settings.stored()


# -- epochs ----------------------------------------------------------------------------


@pytest.mark.parametrize("package", ["torch", "jax"])
def test_a_package_that_is_missing_is_named(
    package: str, photos: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"loaderd_client.{package}", raising=False)
    with serve():
        train = image_dataset_from_directory(photos, image_size=(40, 50), verbose=False)
        with pytest.raises(MissingDependency, match=f"pip install {package}"):
            getattr(train, package)()


def test_epochs_are_whole_and_in_orders_of_their_own(photos: Path, serve: Serve) -> None:
    options: dict[str, Any] = {"target_size": (40, 50), "batch_size": 8, "seed": 3}
    with serve():
        flow, same = (ImageDataGenerator().flow_from_directory(photos, **options) for _ in range(2))
        batches = flow.numpy()
        assert len(batches) == 12
        first, second = ([labels for _, labels in batches] for _ in range(2))
        for epoch in (first, second):
            for labels in epoch:
                np.testing.assert_array_equal(labels, next(same)[1])
        assert not np.array_equal(np.concatenate(first), np.concatenate(second))


def test_an_epoch_that_is_left_early_is_over(photos: Path, serve: Serve) -> None:
    options: dict[str, Any] = {"target_size": (40, 50), "batch_size": 32, "seed": 3}
    with serve():
        left, whole = (
            ImageDataGenerator().flow_from_directory(photos, **options) for _ in range(2)
        )
        for _ in left.numpy():
            break
        list(whole.numpy())
        for ours, theirs in zip(left.numpy(), whole.numpy(), strict=True):
            np.testing.assert_array_equal(ours[0], theirs[0])


class _Ahead(Epochs):
    """Epochs that are read ahead of what is handed out, as those on devices are."""

    def _handed_over(self, batches: Iterator[Any]) -> Iterator[Any]:
        return ahead(batches, 3, self._sequence._has_next)


def test_a_loader_that_is_late_delays_no_batch_that_is_there(photos: Path, serve: Serve) -> None:
    with serve(workers=2) as daemon, Session(daemon.path):
        train: Any = image_dataset_from_directory(
            photos, image_size=(40, 50), batch_size=8, max_queue_size=4, verbose=False
        )
        batches = iter(_Ahead(train))
        next(batches)
        eventually(lambda: is_ready(train._supply, (0, 4)))
        daemon.process.send_signal(signal.SIGSTOP)
        try:
            assert len([*itertools.islice(batches, 4)]) == 4
        finally:
            daemon.process.send_signal(signal.SIGCONT)
        assert len([*batches]) == 12 - 5


@pytest.mark.parametrize("kind", [Epochs, _Ahead])
@pytest.mark.parametrize("count", [0, 5, 12, 17])
def test_a_loop_continues_where_another_was(
    photos: Path, serve: Serve, kind: type[Epochs], count: int
) -> None:
    """Batches count when they are handed out, however many were read ahead."""

    def loop() -> Epochs:
        made = image_dataset_from_directory(
            photos, image_size=(40, 50), batch_size=8, seed=3, verbose=False
        )
        return kind(made)  # type: ignore[arg-type]  # no list, without a split

    def batches(epochs: Epochs, total: int) -> Iterator[Any]:
        while total > 0:
            for images, labels in itertools.islice(epochs, total):
                total -= 1
                yield images.copy(), labels.copy()

    with serve(workers=2) as daemon, Session(daemon.path):
        first, second, whole = loop(), loop(), loop()
        for _ in batches(first, count):
            pass
        state = first.state_dict()
        assert (state["epoch"], state["samples"]) == (count // 12, count % 12 * 8)
        second.load_state_dict(state)
        assert second.state_dict() == state
        expected = list(batches(whole, 24))[count:]
        for ours, theirs in zip(batches(second, 24 - count), expected, strict=True):
            for own, other in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(own, other)
