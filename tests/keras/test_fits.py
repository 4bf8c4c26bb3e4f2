"""Real fits, on whatever backend Keras runs: every sample once per epoch, as ``fit`` asks.

Run them on another backend with ``KERAS_BACKEND=jax`` or ``KERAS_BACKEND=torch``.
"""

from __future__ import annotations

import collections
import gc
import itertools
import multiprocessing
from collections.abc import Iterator
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from loaderd.errors import StreamClosed
from loaderd_client import ImageDataGenerator, LoaderSequence, Session, image_dataset_from_directory
from loaderd_client.core.batch import Batch
from tests.keras.test_article import a_model, seen
from tests.support.daemons import kill_private, stream_of

SIZE = (32, 32)


@pytest.fixture(autouse=True)
def session() -> Iterator[Session]:
    with Session() as session:
        yield session


def flow(photos: Path, **options: Any) -> LoaderSequence:
    given: dict[str, Any] = {"target_size": SIZE, "batch_size": 8, "seed": 5} | options
    return ImageDataGenerator(rescale=1 / 255, validation_split=0.25).flow_from_directory(
        photos, **given
    )


class Diary:
    """Writes down what is taken from a sequence, in the order in which it is asked for."""

    def __init__(self, sequence: LoaderSequence) -> None:
        self.batches: list[Batch] = []
        fetched = sequence._fetched

        def noted(*asked: Any) -> Batch:
            batch: Batch = fetched(*asked)
            # The place and the ids, not the arrays: those would hold the lease.
            self.batches.append(batch._replace(images=np.empty(0), labels=None))
            return batch

        sequence._fetched = noted  # type: ignore[assignment, method-assign]

    def epochs(self) -> dict[int, list[int]]:
        """Of every epoch: the samples of the batches that were taken, each batch once."""
        found: dict[int, dict[int, list[int]]] = collections.defaultdict(dict)
        for batch in self.batches:
            epoch, position = batch.place
            found[epoch][position] = batch.ids.tolist()
        return {
            epoch: list(itertools.chain.from_iterable(batches.values()))
            for epoch, batches in found.items()
        }


def small_model() -> Any:
    return a_model((*SIZE, 3))


def test_fit_shuffles_and_trains_on_every_sample_once_per_epoch(photos: Path) -> None:
    train = flow(photos)
    diary, model = Diary(train), small_model()
    model.fit(train, epochs=3, verbose=0)
    assert seen(model) == 3 * 96
    epochs = diary.epochs()
    assert [sorted(epochs[epoch]) for epoch in range(3)] == [list(range(96))] * 3
    assert epochs[0] != epochs[1] != epochs[2]


def test_probes_consume_nothing(photos: Path) -> None:
    train = flow(photos)
    diary, model = Diary(train), small_model()
    model.fit(train, epochs=1, verbose=0)
    assert set(diary.epochs()) == {0}
    assert seen(model) == 96


def test_validation_sees_the_same_samples_every_time(photos: Path) -> None:
    train, held_out = flow(photos, subset="training"), flow(photos, subset="validation")
    diary, model = Diary(held_out), small_model()
    history = model.fit(train, validation_data=held_out, epochs=2, verbose=0).history
    assert len(history["val_loss"]) == 2
    assert train.n + held_out.n == 96
    assert not set(train.filenames) & set(held_out.filenames)
    assert all(sorted(ids) == list(range(held_out.n)) for ids in diary.epochs().values())


def test_steps_per_epoch_below_the_length_goes_on_where_it_stopped(photos: Path) -> None:
    train = flow(photos)
    diary, model = Diary(train), small_model()
    assert len(train) == 12
    model.fit(train, steps_per_epoch=4, epochs=6, verbose=0)
    assert seen(model) == 6 * 4 * 8
    epochs = diary.epochs()
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(96))


class StopAtOnce(keras.callbacks.Callback):  # type: ignore[misc]  # keras has no types
    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == 3:
            self.model.stop_training = True


def test_an_early_stop_leaves_a_sequence_that_fits_again(photos: Path) -> None:
    train = flow(photos)
    diary, model = Diary(train), small_model()
    stop = keras.callbacks.EarlyStopping(monitor="loss", min_delta=1e9)
    assert len(model.fit(train, epochs=50, callbacks=[stop], verbose=0).history["loss"]) == 2
    model.fit(train, epochs=5, callbacks=[StopAtOnce()], verbose=0)
    before = seen(model)
    model.fit(train, epochs=1, verbose=0)
    assert seen(model) - before == 96
    whole = [ids for ids in diary.epochs().values() if len(ids) >= 96]
    assert all(sorted(ids) == list(range(96)) for ids in whole)


class Crash(keras.callbacks.Callback):  # type: ignore[misc]  # keras has no types
    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == 5:
            raise KeyboardInterrupt


def test_an_interrupted_fit_leaves_a_sequence_that_fits_again(photos: Path) -> None:
    train, model = flow(photos), small_model()
    with pytest.raises(KeyboardInterrupt):
        model.fit(train, epochs=1, callbacks=[Crash()], verbose=0)
    diary, before = Diary(train), seen(model)
    model.fit(train, epochs=1, verbose=0)
    assert seen(model) - before == 96
    *_, ids = diary.epochs().values()  # Keras looks at two batches before
    assert sorted(ids) == list(range(96))


def test_predict_lines_up_with_filenames(photos: Path) -> None:
    kinds = flow(photos, shuffle=False, class_mode="sparse")
    identity = keras.Sequential(
        [keras.layers.Input((*SIZE, 3)), keras.layers.GlobalAveragePooling2D()]
    )
    predicted = identity.predict(kinds, verbose=0)
    again = identity.predict(kinds, verbose=0)
    assert predicted.shape == (96, 3)
    np.testing.assert_array_equal(predicted, again)
    means = np.concatenate([kinds[i][0].mean((1, 2)) for i in range(len(kinds))])
    np.testing.assert_allclose(predicted, means, atol=1e-5)
    assert [name.split("/")[0] for name in kinds.filenames] == [
        kinds.class_names[label] for label in kinds.classes
    ]


def test_evaluate_with_few_steps_begins_at_the_first_batch_each_time(photos: Path) -> None:
    held_out, model = flow(photos, shuffle=False), small_model()
    losses = [model.evaluate(held_out, steps=3, verbose=0)[0] for _ in range(3)]
    assert losses[0] == pytest.approx(losses[1]) == pytest.approx(losses[2])


@pytest.mark.parametrize("assigned", [False, True], ids=["given", "assigned"])
def test_workers_4_trains_on_every_sample_once_per_epoch(photos: Path, assigned: bool) -> None:
    train = flow(photos) if assigned else flow(photos, workers=4, use_multiprocessing=True)
    if assigned:
        train.workers = 4
        train.use_multiprocessing = True
    diary, model = Diary(train), small_model()
    model.fit(train, epochs=3, verbose=0)
    assert seen(model) == 3 * 96
    epochs = diary.epochs()
    assert [sorted(epochs[epoch]) for epoch in range(3)] == [list(range(96))] * 3


def test_threads_that_ask_for_all_indices_get_the_epoch(photos: Path) -> None:
    train = flow(photos)
    with ThreadPool(4) as pool:
        for epoch in range(3):
            batches = pool.map(train.fetch, range(len(train)))
            assert {batch.place[0] for batch in batches} == {epoch}
            ids = np.concatenate([batch.ids for batch in batches])
            assert sorted(ids.tolist()) == list(range(96))
            train.on_epoch_end()


_INHERITED: list[LoaderSequence] = []


def take_inherited(index: int) -> list[int]:
    """What Keras 2 does in its forked processes: ask a global sequence for an index."""
    ids: list[int] = _INHERITED[0].fetch(index).ids.tolist()
    return ids


def test_a_forked_child_serves_any_index(photos: Path) -> None:
    held_out = flow(photos, shuffle=False)
    expected = [held_out.fetch(index).ids.tolist() for index in range(len(held_out))]
    _INHERITED[:] = [held_out]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(take_inherited, range(len(held_out))) == expected
    assert held_out.fetch(0).ids.tolist() == expected[0]


def test_a_list_of_all_batches_holds_the_epoch_and_nothing_changes(photos: Path) -> None:
    train = flow(photos, batch_size=2, max_queue_size=2)
    held = [train[i] for i in range(len(train))]
    sums = [float(images.sum()) for images, _ in held]
    for i in range(len(train)):
        train[i]
    gc.collect()
    assert [float(images.sum()) for images, _ in held] == sums
    assert len(held) == 48


@pytest.mark.parametrize(
    ("class_mode", "shape", "dtype"),
    [
        ("categorical", (8, 3), "float32"),
        ("sparse", (8,), "float32"),
        ("binary", (8,), "float32"),
        ("input", (8, *SIZE, 3), "float32"),
    ],
)
def test_labels_are_shaped_as_keras_shapes_them(
    photos: Path, class_mode: str, shape: tuple[int, ...], dtype: str
) -> None:
    images, labels = flow(photos, class_mode=class_mode)[0]
    assert labels.shape == shape
    assert labels.dtype == dtype
    if class_mode == "input":
        np.testing.assert_array_equal(images, labels)
        assert not np.shares_memory(images, labels)


def test_without_labels_a_batch_is_its_images(photos: Path) -> None:
    assert flow(photos, class_mode=None)[0].shape == (8, *SIZE, 3)


def test_image_dataset_from_directory_trains_on_both_halves(photos: Path) -> None:
    pair = image_dataset_from_directory(
        photos,
        label_mode="categorical",
        image_size=SIZE,
        batch_size=8,
        seed=3,
        validation_split=0.25,
        subset="both",
    )
    assert isinstance(pair, list)
    train, held_out = pair
    assert train.class_names == held_out.class_names == ["cat", "dog", "emu"]
    assert len(train.file_paths) == 72
    assert not set(train.file_paths) & set(held_out.file_paths)
    model = small_model()
    model.fit(train, validation_data=held_out, epochs=2, verbose=0)
    assert seen(model) == 2 * 72


def test_image_dataset_splits_as_keras_does(photos: Path) -> None:
    pytest.importorskip("tensorflow", reason="Keras makes its own dataset with TensorFlow")
    options: dict[str, Any] = {
        "seed": 9, "validation_split": 0.3, "subset": "validation", "image_size": SIZE
    }  # fmt: skip
    theirs = keras.utils.image_dataset_from_directory(photos, verbose=False, **options)
    ours = image_dataset_from_directory(photos, **options)
    assert isinstance(ours, LoaderSequence)
    assert ours.file_paths == theirs.file_paths


def test_an_index_beyond_the_length_is_refused_in_keras_words(photos: Path) -> None:
    with pytest.raises(ValueError, match="Asked to retrieve element 12, but the Sequence"):
        flow(photos)[12]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"color_mode": "cmyk"}, 'expected "rgb", "rgba", or "grayscale"'),
        ({"class_mode": "raw"}, "Invalid class_mode: raw; expected one of"),
        ({"interpolation": "cubic"}, "bicubic, hamming"),
        ({"subset": "test"}, "Invalid subset name: test"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"target_size": (0, 5)}, "target_size must be positive"),
        ({"target_size": 150}, r"`target_size` should be \(height, width\)"),
        ({"target_size": "150"}, r"`target_size` should be \(height, width\)"),
        ({"batch_size": 2.5}, "`batch_size` should be a whole number"),
        ({"seed": 1.5}, "`seed` should be a whole number"),
        ({"classes": "cat"}, "`classes` should be a list of names"),
    ],
)
def test_values_that_are_not_allowed_are_named(
    photos: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        flow(photos, **options)


@pytest.mark.parametrize(
    "options",
    [{"rotation_range": "20"}, {"shear_range": float("nan")}, {"zoom_range": None}, {"cval": "a"},
     {"rescale": float("inf")}, {"width_shift_range": [0.1, float("nan")]}],
)  # fmt: skip
def test_numbers_that_are_none_are_named(photos: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        ImageDataGenerator(**options).flow_from_directory(photos)


def test_a_validation_subset_of_nothing_says_what_is_missing(photos: Path) -> None:
    with pytest.raises(ValueError, match="needs `validation_split`"):
        ImageDataGenerator().flow_from_directory(photos, subset="validation")


def test_a_rescale_that_a_dtype_truncates_is_told(photos: Path) -> None:
    generator = ImageDataGenerator(rescale=1 / 255, dtype="uint8")
    with pytest.warns(UserWarning, match="makes fractions, which dtype='uint8' truncates"):
        train = generator.flow_from_directory(photos)
    assert train[0][0].max() <= 1


def test_next_is_endless_and_reset_begins_again(photos: Path) -> None:
    held_out = flow(photos, shuffle=False)
    first = next(held_out)[1].copy()
    for _ in range(len(held_out) - 1):
        next(held_out)
    np.testing.assert_array_equal(next(held_out)[1], first)
    next(held_out)
    held_out.reset()
    np.testing.assert_array_equal(next(held_out)[1], first)


def test_after_an_interrupt_the_sequence_goes_on(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = flow(photos)
    expected = [train.fetch(index).ids.tolist() for index in range(4)]
    again = flow(photos)
    again.fetch(0)
    stream = stream_of(again)
    undisturbed, interrupts = stream._try, iter([KeyboardInterrupt])

    def interrupted_once(*wait: Any) -> Any:
        for interrupt in interrupts:
            raise interrupt
        return undisturbed(*wait)

    monkeypatch.setattr(stream, "_try", interrupted_once)
    with pytest.raises(KeyboardInterrupt):
        again.fetch(1)
    assert [again.fetch(index).ids.tolist() for index in range(4)] == expected


def test_a_closed_sequence_stays_closed(photos: Path) -> None:
    train = flow(photos)
    train.close()
    with pytest.raises(StreamClosed):
        train[0]


def test_a_private_daemon_that_died_is_started_again(photos: Path, session: Session) -> None:
    train = flow(photos)
    expected = train.fetch(0).ids.tolist()
    kill_private(session)
    for index in range(1, len(train) - 1):  # the epoch goes on
        assert len(train.fetch(index).ids)
    assert train.fetch(0).ids.tolist() == expected
    assert len(flow(photos)) == 12


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_resumed_fit_gets_what_is_left_of_an_epoch_and_then_whole_ones(
    photos: Path, shuffle: bool
) -> None:
    first, train = flow(photos, shuffle=shuffle), flow(photos, shuffle=shuffle)
    train.load_state_dict(first.state_at(2, 9))
    diary, model = Diary(train), small_model()
    losses = model.fit(train, epochs=5, initial_epoch=2, shuffle=shuffle, verbose=0).history["loss"]
    assert len(losses) == 3
    assert seen(model) == 3 * 8 + 2 * 96
    epochs = diary.epochs()
    segment: Any = first
    expected = np.concatenate([segment._now.ids((2, position)) for position in range(9, 12)])
    assert epochs[2][-24:] == expected.tolist()
    assert [sorted(epochs[epoch]) for epoch in (3, 4)] == [list(range(96))] * 2
    assert train.state_dict()["epoch"] == 5


def test_the_batches_of_an_unshuffled_epoch_have_an_order_of_the_epochs_own(photos: Path) -> None:
    orders = []
    for _ in range(2):
        train = flow(photos, shuffle=False)
        diary = Diary(train)
        small_model().fit(train, epochs=2, verbose=0)
        orders.append([batch.place for batch in diary.batches[-24:]])
    assert orders[0] == orders[1]
    assert sorted(orders[0]) == [(epoch, one) for epoch in range(2) for one in range(12)]
    assert [one for _, one in orders[0][:12]] != [one for _, one in orders[0][12:]]
