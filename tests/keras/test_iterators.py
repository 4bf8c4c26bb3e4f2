"""Iterators over streams: what scripts do with them beside reading one batch after another."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras.src.legacy.preprocessing.image import ImageDataGenerator as Original
from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter
from PIL import ImageFile

from loaderd.errors import BadImage, EmptyDataset, InvalidType, NoSuchColumn
from loaderd_client import ImageDataGenerator, Session, image_dataset_from_directory
from tests.support.daemons import Serve, eventually, stream_of
from tests.support.photos import write_photo

AUGMENTED: dict[str, Any] = {
    "horizontal_flip": True,
    "vertical_flip": True,
    "channel_shift_range": 40.0,
}
"""Random, and yet bit by bit as in Keras."""
FLOW: dict[str, Any] = {"target_size": (20, 30), "batch_size": 16, "class_mode": "sparse"}


@pytest.fixture(autouse=True)
def session(serve: Serve) -> Iterator[Session]:
    with serve(), Session("auto") as session:
        yield session


def both(photos: Path, seed: int = 3, **options: Any) -> tuple[Any, Any]:
    flow = FLOW | options
    ours = ImageDataGenerator(**AUGMENTED).flow_from_directory(photos, seed=seed, **flow)
    return ours, Original(**AUGMENTED).flow_from_directory(photos, seed=seed, **flow)


def check_next(ours: Any, theirs: Any, count: int = 1) -> None:
    for _ in range(count):
        for one, other in zip(next(ours), next(theirs), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("taken", [0, 1, 5, 6, 8])
def test_after_a_reset_the_stream_goes_on_as_in_keras(
    photos: Path, shuffle: bool, taken: int
) -> None:
    ours, theirs = both(photos, shuffle=shuffle)
    for _ in range(3):
        check_next(ours, theirs, taken)
        ours.reset()
        theirs.reset()
    check_next(ours, theirs, 14)


def test_a_seed_may_be_the_last_of_all(photos: Path) -> None:
    ours, theirs = both(photos, seed=2**32 - 3)
    check_next(ours, theirs, 3)
    assert len(next(ours)[0]) == 16  # where Keras has no seed left, ours begin at 0 again


def test_without_a_seed_one_is_picked_and_told(photos: Path) -> None:
    generator = ImageDataGenerator(**AUGMENTED)
    first = generator.flow_from_directory(photos, **FLOW)
    again = generator.flow_from_directory(photos, seed=first.seed, **FLOW)
    other = generator.flow_from_directory(photos, **FLOW)
    assert first.seed != other.seed
    check_next(first, again, 7)


def test_fit_sees_the_stream_that_next_gives(photos: Path) -> None:
    generator = ImageDataGenerator(**AUGMENTED)
    by_next = generator.flow_from_directory(photos, seed=3, **FLOW)
    fitted = PyDatasetAdapter(generator.flow_from_directory(photos, seed=3, **FLOW), shuffle=True)
    for _ in range(3):
        fitted.on_epoch_begin()
        for batch in fitted.get_numpy_iterator():
            np.testing.assert_array_equal(batch[0], next(by_next)[0])
        fitted.on_epoch_end()


def test_the_attributes_tell_where_the_stream_is(photos: Path) -> None:
    ours, theirs = both(photos)
    for _ in range(8):
        for name in ("batch_index", "total_batches_seen", "n", "samples", "num_classes"):
            assert getattr(ours, name) == getattr(theirs, name)
        if ours.index_array is None:
            assert theirs.index_array is None
        elif ours.batch_index:
            np.testing.assert_array_equal(ours.index_array, theirs.index_array)
        check_next(ours, theirs)
    for name in ("classes", "labels", "filenames"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    for name in ("image_shape", "target_size", "class_indices", "filepaths", "directory"):
        assert getattr(ours, name) == getattr(theirs, name)
    with ours.lock:
        assert ours.next()[0].shape == (16, 20, 30, 3)


def test_an_iterator_is_endless(photos: Path) -> None:
    ours, theirs = both(photos)
    for count, batch in enumerate(ours):
        np.testing.assert_array_equal(batch[0], next(theirs)[0])
        if count == 13:
            break


# -- a generator that changes ----------------------------------------------------------


def test_what_is_fit_or_set_later_counts_from_the_next_batch_on(photos: Path) -> None:
    options: dict[str, Any] = {"featurewise_center": True, "horizontal_flip": True}
    generators = ImageDataGenerator(**options), Original(**options)
    ours, theirs = (g.flow_from_directory(photos, seed=3, **FLOW) for g in generators)
    with pytest.warns(UserWarning, match="hasn't been fit"):
        check_next(ours, theirs, 2)
    for generator in generators:
        generator.fit(np.arange(4 * 5 * 3.0).reshape(1, 4, 5, 3))
    check_next(ours, theirs, 2)
    for generator in generators:
        generator.rescale = 1 / 255
        generator.mean = np.array([1.0, 2.0, 3.0])
    check_next(ours, theirs, 9)


def test_processing_may_be_set_later(photos: Path) -> None:
    ours, theirs = both(photos, shuffle=False)
    check_next(ours, theirs, 2)
    for one in (ours, theirs):
        one.set_processing_attrs(
            one.image_data_generator,
            (33, 21),
            "grayscale",
            "channels_last",
            None,
            "",
            "png",
            None,
            "nearest",
            False,
        )
    check_next(ours, theirs, 9)
    assert ours.image_shape == (33, 21, 1)


def test_arrays_stay_when_the_generator_changes(photos: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (20, 6, 7, 3), np.uint8)
    generator = ImageDataGenerator()
    train = generator.flow(x, np.arange(20), batch_size=5, shuffle=False)
    expected = x.astype(np.float32)
    x[:] = 0  # the trainer's own copy counts no more
    np.testing.assert_array_equal(next(train)[0], expected[:5])
    generator.rescale = 2.0
    np.testing.assert_array_equal(next(train)[0], 2 * expected[5:10])
    np.testing.assert_array_equal(train.x, expected)


def test_a_subclass_that_overrides_what_workers_do_is_refused(photos: Path) -> None:
    class Mine(ImageDataGenerator):
        def standardize(self, x: Any) -> Any:
            return x / 3

    with pytest.raises(ValueError, match="Mine overrides standardize"):
        Mine().flow_from_directory(photos)


# -- what may happen to a stream -------------------------------------------------------


def test_a_stream_goes_on_when_its_workers_are_killed(photos: Path, serve: Serve) -> None:
    ours, theirs = both(photos)
    for _ in range(5):
        check_next(ours, theirs, 3)
        for pid in workers_of(ours):
            with contextlib.suppress(ProcessLookupError):  # killed before, and still in the picture
                os.kill(pid, signal.SIGKILL)
    check_next(ours, theirs, 3)


def workers_of(iterator: Any) -> list[int]:
    from loaderd.ipc import dial

    return [worker.pid for worker in dial.observe(iterator._supply.session.path).workers]


def test_a_stream_that_is_opened_again_lists_nothing_again(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("cat", "dog", "emu"):
        os.symlink(photos / name, folder / name)
    ours, theirs = both(folder, follow_links=True)
    check_next(ours, theirs, 2)
    (folder / "ant").mkdir()
    os.link(photos / "cat" / "000.jpg", folder / "ant" / "new.jpg")
    ours.reset()
    theirs.reset()
    check_next(ours, theirs, 12)


def _child(iterator: Any, index: int, pipe: Any) -> None:
    pipe.send([np.array(part) for part in iterator[index]])
    pipe.recv()


def test_forked_children_serve_the_index_that_they_are_asked_for(photos: Path) -> None:
    ours, theirs = both(photos)
    context = multiprocessing.get_context("fork")
    pipes, children = [], []
    for index in (5, 0, 3):
        mine, its = context.Pipe()
        child = context.Process(target=_child, args=(ours, index, its))
        child.start()
        pipes.append((index, mine))
        children.append(child)
    expected = [next(theirs) for _ in range(len(ours))]
    for index, pipe in pipes:
        assert pipe.poll(30)
        for one, other in zip(pipe.recv(), expected[index], strict=True):
            np.testing.assert_array_equal(one, other)
    check = next(ours)  # the parent's own stream is as it was
    np.testing.assert_array_equal(check[0], expected[0][0])
    for _, pipe in pipes:
        pipe.send(None)
    for child in children:
        child.join(30)
        assert child.exitcode == 0


def test_a_closed_iterator_gives_its_memory_back(photos: Path) -> None:
    gc.collect()  # what other tests have left
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        ours, _ = both(photos)
        next(ours)
        ours.close()
    del ours
    eventually(lambda: len(os.listdir("/proc/self/fd")) <= before)  # less if others are freed


# -- attributes that scripts set -------------------------------------------------------


def test_labels_and_order_may_be_set_before_predict(photos: Path) -> None:
    ours, theirs = both(photos)
    check_next(ours, theirs, 2)
    for one in (ours, theirs):
        one.shuffle = False
        one.class_mode = None
        one.reset()
    for _ in range(len(ours)):
        np.testing.assert_array_equal(next(ours), next(theirs))
    plain = ImageDataGenerator().flow_from_directory(photos, shuffle=False, **FLOW)
    np.testing.assert_array_equal(ours[5].shape, plain[5][0].shape)


@pytest.mark.parametrize(
    ("name", "value"),
    [("batch_size", 5), ("batch_size", 96), ("seed", 77), ("dtype", "float64"),
     ("color_mode", "grayscale"), ("interpolation", "bilinear"), ("shuffle", False)],
)  # fmt: skip
def test_what_is_set_counts_from_the_next_epoch_on_as_in_keras(
    photos: Path, name: str, value: Any
) -> None:
    ours, theirs = both(photos)
    check_next(ours, theirs, 6)
    for one in (ours, theirs):
        setattr(one, name, value)
        if name == "color_mode":
            one_shape = (20, 30, 1)
            theirs.image_shape = one_shape
    assert len(ours) == len(theirs)
    check_next(ours, theirs, 2 * len(theirs) + 1)


def test_a_note_on_the_generator_changes_nothing() -> None:
    x = np.zeros((10, 4, 4, 3), np.uint8)
    generator = ImageDataGenerator(featurewise_center=True)
    generator.mean = np.ones((1, 1, 3))
    train = generator.flow(x, batch_size=5)
    next(train)
    stream, memory = stream_of(train), train.x
    generator.note = 1  # type: ignore[attr-defined]
    generator.mean = np.ones((1, 1, 3))
    np.testing.assert_array_equal(next(train), -1)
    assert stream_of(train) is stream
    assert train.x is memory


def test_threads_go_on_when_one_of_them_changes_the_generator(photos: Path) -> None:
    generator = ImageDataGenerator()
    train = generator.flow_from_directory(photos, **FLOW)

    def read(_: int) -> list[int]:
        return [len(next(train)[0]) for _ in range(30)]

    with ThreadPoolExecutor(4) as threads:
        counts = threads.map(read, range(4))
        for factor in range(1, 12):
            generator.rescale = factor / 255
            train.reset()
        assert all(count == 16 for thread in counts for count in thread)


def test_a_forked_child_means_what_its_parent_means(photos: Path) -> None:
    ours, theirs = both(photos)
    expected = {index: batch[0] for index, batch in enumerate(next(theirs) for _ in range(4))}
    ours[0]
    context = multiprocessing.get_context("fork")
    for index, batch in ((3, expected[3]), (1, expected[1])):
        mine, its = context.Pipe()
        child = context.Process(target=_child, args=(ours, index, its))
        child.start()
        assert mine.poll(30)
        np.testing.assert_array_equal(mine.recv()[0], batch)
        mine.send(None)
        child.join(30)


def test_workers_give_up_the_memory_of_closed_streams(photos: Path) -> None:
    ours, _ = both(photos)
    eventually(lambda: len(workers_of(ours)) == 2)
    workers = workers_of(ours)
    next(ours)
    before = [mapped(pid) for pid in workers]
    x = np.zeros((20, 6, 7, 3), np.uint8)
    for _ in range(6):
        generator = ImageDataGenerator(preprocessing_function=np.sqrt, rotation_range=20)
        other = generator.flow(x, batch_size=2)
        for _ in range(12):
            next(other)
        other.close()
    eventually(lambda: all(map(int.__le__, [mapped(pid) for pid in workers], before)))


def mapped(pid: int) -> int:
    """Segments that a process maps."""
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return sum("/dev/shm" in line or "memfd" in line for line in maps)


# -- what else the trainer may have said -----------------------------------------------


def test_truncated_pictures_are_taken_where_pil_was_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cat").mkdir()
    write_photo(tmp_path / "cat" / "a.jpg", 1)
    whole = (tmp_path / "cat" / "a.jpg").read_bytes()
    (tmp_path / "cat" / "a.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(BadImage, match="truncated"):
        next(ImageDataGenerator().flow_from_directory(tmp_path, **FLOW))
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    ours = next(ImageDataGenerator().flow_from_directory(tmp_path, **FLOW))[0]
    theirs = next(Original().flow_from_directory(tmp_path, **FLOW))[0]
    np.testing.assert_array_equal(ours, theirs)


def test_a_directory_may_be_bytes(photos: Path) -> None:
    assert ImageDataGenerator().flow_from_directory(os.fsencode(photos), **FLOW).n == 96  # type: ignore[arg-type]


def test_classes_that_are_all_misspelt_are_named(photos: Path) -> None:
    with pytest.raises(EmptyDataset, match="No images found in the folders 'cta', 'dgo'"):
        ImageDataGenerator().flow_from_directory(photos, classes=["cta", "dgo"])


def test_a_rescale_that_is_no_number_is_told(photos: Path) -> None:
    with pytest.raises(ValueError, match="`rescale` should be a number"):
        ImageDataGenerator(rescale="1/255").flow_from_directory(photos)  # type: ignore[arg-type]


def test_a_misspelt_argument_is_refused_by_the_name_of_the_public_class(photos: Path) -> None:
    wrong: dict[str, Any] = {"rotaton_range": 20}
    with pytest.raises(TypeError, match=r"^ImageDataGenerator\.__init__\(\) .*'rotaton_range'"):
        ImageDataGenerator(**wrong)
    with pytest.raises(TypeError, match=r"^ImageDataGenerator\.flow_from_directory\(\) got"):
        ImageDataGenerator().flow_from_directory(photos, **wrong)
    with pytest.raises(TypeError, match=r"^ImageDataGenerator\.flow_from_dataframe\(\) missing"):
        ImageDataGenerator().flow_from_dataframe()  # type: ignore[call-arg]


def test_a_column_that_is_not_there_is_named_with_those_that_are(photos: Path) -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame([["a.jpg", "cat", *range(30)]], columns=["file", "label", *range(30)])
    cases: list[dict[str, Any]] = [
        {},
        {"x_col": "file"},
        {"x_col": "file", "class_mode": "raw", "y_col": ["a"]},
    ]
    for options in cases:
        with pytest.raises(
            NoSuchColumn, match=r"^._col=.* which has: 'file', 'label', 0, .*17, …$"
        ):
            ImageDataGenerator().flow_from_dataframe(table, photos, **options)
    with pytest.raises(KeyError, match=r"^weight_col='w' is no column"):
        ImageDataGenerator().flow_from_dataframe(
            table, photos, x_col="file", y_col="label", weight_col="w"
        )
    with pytest.raises(InvalidType, match="`dataframe` should be a pandas DataFrame"):
        ImageDataGenerator().flow_from_dataframe(None, photos)


@pytest.mark.parametrize("name", ["map", "prefetch", "cache", "batch", "take"])
def test_a_method_of_datasets_points_to_what_to_use(photos: Path, name: str) -> None:
    sequence = image_dataset_from_directory(photos)
    with pytest.raises(AttributeError, match=f"no attribute '{name}': (use|it makes) "):
        getattr(sequence, name)
    with pytest.raises(
        AttributeError, match=r"'LoaderSequence' object has no attribute 'batches'$"
    ):
        sequence.batches  # type: ignore[union-attr]  # noqa: B018


def test_warnings_name_the_line_of_the_program(photos: Path) -> None:
    options: dict[str, Any] = {"rescale": 1 / 255, "dtype": "uint8", "featurewise_center": True}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        generator = ImageDataGenerator(**options, featurewise_std_normalization=True)
        flow = generator.flow_from_directory(photos, class_mode=None)
        network = keras.Sequential([keras.layers.GlobalAveragePooling2D()])
        network.predict(flow, verbose=0)
    ours = [one for one in caught if "makes fractions" in str(one.message)]
    ours += [one for one in caught if "This ImageDataGenerator specifies" in str(one.message)]
    assert len(ours) >= 3
    assert {one.filename for one in ours} == {__file__}


def test_tiffs_are_warned_of_as_in_keras(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    write_photo(tmp_path / "cat" / "a.TIFF", 1)
    for generator in (ImageDataGenerator(), Original()):
        with pytest.warns(UserWarning, match="multiple bands"):
            generator.flow_from_directory(tmp_path, **FLOW)


def test_what_keras_asks_of_a_sequence_is_there_without_a_warning(photos: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sequence = ImageDataGenerator().flow_from_directory(photos, max_queue_size=3)
        sequence.workers, sequence.use_multiprocessing = 4, True
        asked = sequence.workers, sequence.use_multiprocessing, sequence.max_queue_size
        assert asked == (1, False, 3)
