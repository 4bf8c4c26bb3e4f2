"""Bad images are raised, substituted or skipped; each is told once; too many end the stream."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree

import msgspec
import numpy as np
import pytest

from loaderd.errors import BadImage, NoRoom, StreamClosed, TooManyBadImages
from loaderd.ipc import dial
from loaderd.spec.base import Cache, OnError
from loaderd.spec.source import Directory
from loaderd.spec.spec import Spec
from loaderd_client import ImageDataGenerator, LoaderSequence, Session
from loaderd_client.core.batch import Batch
from loaderd_client.core.stream import Stream
from tests.support.daemons import Serve, eventually
from tests.support.streams import a_spec, digest, run_of

BAD = ("cat/003.jpg", "dog/007.jpg", "dog/008.jpg")


@pytest.fixture
def damaged(photos: Path, tmp_path: Path) -> Path:
    """The photos, of which three cannot be read."""
    folder = copytree(photos, tmp_path / "damaged")
    (folder / BAD[0]).write_bytes(b"")
    (folder / BAD[1]).write_bytes((folder / BAD[1]).read_bytes()[:200])
    (folder / BAD[2]).write_text("this is no picture")
    return folder


def asks(
    folder: Path, on_error: OnError, weight: float | None = None, cache: Cache = "none"
) -> Spec:
    plain = a_spec(folder)
    return msgspec.structs.replace(
        plain,
        source=Directory(directory=str(folder), extensions=(".jpg",)),
        batch=msgspec.structs.replace(plain.batch, substitute_weight=weight),
        on_error=on_error,
        cache=cache,
    )


def paths(stream: Stream, batches: Iterator[Batch]) -> list[str]:
    names = stream.manifest.filenames()
    return [names[sample] for batch in batches for sample in batch.ids]


def test_substitutes_are_of_the_same_class_and_the_same_for_any_workers_and_deaths(
    serve: Serve, damaged: Path
) -> None:
    runs = []
    for workers in (1, 3):
        with serve(workers, "--max-bad=5%") as daemon, Session(daemon.path) as session:
            stream = session.open(asks(damaged, "substitute", 0.0), slots=6)
            names = stream.manifest.filenames()
            classes = stream.manifest.labels
            batches = [(batch.place, batch.ids, digest(batch)) for batch in run_of(stream)]
            runs.append([one for _, _, one in batches])
            got = [names[i] for _, ids, _ in batches for i in ids]
            assert len(got) == 2 * 96
            assert not set(got) & set(BAD)
            counts = np.bincount(classes[np.concatenate([ids for _, ids, _ in batches])])
            assert counts.tolist() == (2 * np.bincount(classes)).tolist()
            assert daemon.snapshot().streams[0].bad == 3
    assert runs[0] == runs[1]


def test_substitutes_have_the_weight_that_was_asked_for(serve: Serve, damaged: Path) -> None:
    with serve(2, "--max-bad=5%") as daemon, Session(daemon.path) as session:
        stream = session.open(asks(damaged, "substitute", 0.0), slots=6)
        names = stream.manifest.filenames()
        weights = []
        for batch in run_of(stream, epochs=1):
            assert batch.weights is not None
            assert len(batch.weights) == len(batch.ids)
            weights += batch.weights.tolist()
        assert sorted(weights) == [0.0] * 3 + [1.0] * 93
        assert len(names) == 96


def test_skipped_images_are_left_out_and_all_others_come_as_ever(
    serve: Serve, damaged: Path
) -> None:
    with serve(2, "--max-bad=5%") as daemon, Session(daemon.path) as session:
        stream = session.open(asks(damaged, "skip"), slots=6)
        got = paths(stream, run_of(stream, epochs=1))
        assert sorted(got) == sorted(set(stream.manifest.filenames()) - set(BAD))


def test_a_batch_of_bad_images_alone_is_an_error(serve: Serve, damaged: Path) -> None:
    spec = asks(damaged, "skip")
    order = msgspec.structs.replace(spec.order, shuffle=False)
    spec = msgspec.structs.replace(
        spec, order=order, batch=msgspec.structs.replace(spec.batch, batch_size=1)
    )
    with serve(1, "--max-bad=5%") as daemon, Session(daemon.path) as session:
        stream = session.open(spec, slots=6)
        with pytest.raises(BadImage, match="every image"):
            list(run_of(stream))


def test_each_is_logged_once_and_listed_with_its_reason(serve: Serve, damaged: Path) -> None:
    with serve(2, "--max-bad=5%") as daemon, Session(daemon.path) as session:
        stream = session.open(asks(damaged, "skip"), slots=6)
        assert len(list(run_of(stream, epochs=2))) == 24
        listed = {os.fsdecode(bad.path): bad for bad in dial.list_bad(daemon.path)}
        assert sorted(listed) == sorted(str(damaged / name) for name in BAD)
        assert "not an image" in listed[str(damaged / BAD[2])].reason
        assert all(bad.times >= 2 for bad in listed.values())
        assert daemon.snapshot().daemon.bad == 3
    for name in BAD:
        assert daemon.log.count(f"bad image {damaged / name}") == 1


@pytest.mark.parametrize("on_error", ["substitute", "skip"])
def test_more_than_max_bad_ends_the_stream_with_a_summary(
    serve: Serve, damaged: Path, on_error: OnError
) -> None:
    with serve(2, "--max-bad=2%") as daemon, Session(daemon.path) as session:
        good = session.open(asks(damaged, "raise"), slots=6)
        stream = session.open(asks(damaged, on_error), slots=6)
        words = r"3 of 96 .*--max-bad allows 2: .* --max-bad 5%.*LOADERD_MAX_BAD=5%.*\.jpg: "
        with pytest.raises(TooManyBadImages, match=words):
            list(run_of(stream))
        assert good.slots == 6
        assert [one.id for one in daemon.snapshot().streams] == [1]


def test_a_trainer_that_is_behind_hears_of_too_many_and_for_good(
    serve: Serve, damaged: Path
) -> None:
    """The daemon has ended the stream while batches that are ready wait to be taken."""
    with serve(2, "--max-bad=1%") as daemon, Session(daemon.path) as session:
        sequence = LoaderSequence(asks(damaged, "skip"), session)
        with contextlib.suppress(TooManyBadImages):
            sequence.fetch(0)  # from here on batches are made ahead
        eventually(lambda: not daemon.snapshot().streams)
        for _ in range(2):
            with pytest.raises(TooManyBadImages):
                for index in range(len(sequence)):
                    sequence.fetch(index)
        assert daemon.log.count("too many bad images") == 1


def test_a_sequence_whose_session_was_closed_says_so(serve: Serve, photos: Path) -> None:
    with serve(1) as daemon:
        with Session(daemon.path) as session:
            sequence = LoaderSequence(asks(photos, "raise"), session)
            sequence.fetch(0)
        with pytest.raises(StreamClosed):
            sequence.fetch(1)
        assert not daemon.snapshot().streams


def test_with_a_cache_the_bytes_are_those_without(serve: Serve, damaged: Path) -> None:
    with serve(2, "--max-bad=5%") as daemon, Session(daemon.path) as session:
        runs = []
        for cache in ("none", "memory"):
            stream = session.open(asks(damaged, "substitute", cache=cache), slots=6)
            runs.append([digest(batch) for batch in run_of(stream)])
        assert runs[0] == runs[1]


def test_lack_of_memory_is_no_bad_image(serve: Serve, photos: Path, tmp_path: Path) -> None:
    from PIL import Image

    folder = copytree(photos, tmp_path / "some")
    Image.new("RGB", (10_000, 9_000)).save(folder / "dog" / "huge.jpg", "png")
    with serve(1, "--worker-memory=200M") as daemon, Session(daemon.path) as session:
        stream = session.open(asks(folder, "substitute"), slots=4)
        with pytest.raises(NoRoom, match=r"huge\.jpg.*--worker-memory"):
            list(run_of(stream))
        assert daemon.snapshot().daemon.bad == 0


def test_keras_trains_on_substitutes_that_weigh_nothing(serve: Serve, damaged: Path) -> None:
    import keras

    with serve(2, "--max-bad=5%") as daemon, Session(daemon.path):
        train = ImageDataGenerator(rescale=1 / 255).flow_from_directory(
            str(damaged), target_size=(16, 16), on_error="substitute", substitute_weight=0.0
        )
        _, _, weights = train[0]
        assert weights.shape == (32,)
        model = keras.Sequential(
            [keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax")]
        )
        model.compile("sgd", "categorical_crossentropy")
        history = model.fit(train, epochs=2, verbose=0)
        assert len(history.history["loss"]) == 2
