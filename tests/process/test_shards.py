"""Trainers that share an epoch have, side by side, the batches of one, byte for byte."""

from __future__ import annotations

import gc
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple, get_args

import msgspec
import numpy as np
import pytest

from loaderd.errors import DatasetNotFound, InvalidArgument
from loaderd.ipc.bundle import Bundle
from loaderd.spec.output import Remainder, Shard
from loaderd.spec.spec import Spec
from loaderd_client import Session
from loaderd_client import augment as A
from loaderd_client.core.batch import Batch
from loaderd_client.core.stream import Stream
from loaderd_client.keras import functions
from loaderd_client.keras.augment_list import augmented
from tests.process import user_functions
from tests.support import listed_functions
from tests.support.augmented import SIZE, augmenting
from tests.support.daemons import Serve
from tests.support.photos import write_photo
from tests.support.specs import with_load, with_transform
from tests.support.streams import a_spec, cached, with_errors

BATCH_SIZES = {1: 10, 2: 7, 3: 7, 4: 5, 8: 11}
"""Of one trainer, by their number: 96 samples are no multiple of any global batch."""

CROP = A.RandomResizedCrop(*SIZE)
MIX = A.RandomMix([A.MixUp(), A.CutMix()])


class Dataset(NamedTuple):
    """A spec, and its bundles."""

    spec: Spec
    bundles: Sequence[Bundle] = ()

    def of(self, batch_size: int, shard: Shard | None = None) -> Spec:
        batch = msgspec.structs.replace(self.spec.batch, batch_size=batch_size)
        return ordered(msgspec.structs.replace(self.spec, batch=batch), shard=shard)


def ordered(spec: Spec, **how: Any) -> Spec:
    return msgspec.structs.replace(spec, order=msgspec.structs.replace(spec.order, **how))


def mixing(photos: Path, **how: Any) -> Dataset:
    return Dataset(ordered(augmenting(photos, [CROP, MIX]), **how))


def weighted(photos: Path) -> Dataset:
    spec = ordered(augmenting(photos, [CROP]), weighted=True)
    return Dataset(spec, [Bundle({"weights": np.arange(96) % 7 / 3})])


def with_a_function(photos: Path) -> Dataset:
    """One whose function draws from the global generators, which are seeded for each row."""
    packed = functions.pack(user_functions.add_noise, "float32")
    assert packed.operation is not None
    return Dataset(with_transform(a_spec(photos), packed.operation), [Bundle(packed.parts)])


def with_a_function_in_its_list(photos: Path) -> Dataset:
    plain = with_load(a_spec(photos), target_size=SIZE, interpolation="bilinear")
    operations = [CROP, A.Function(listed_functions.draw_from_all), MIX]
    found = augmented(operations, plain.load, plain.output, plain.batch)
    mixed = augmenting(photos, [CROP, MIX])
    spec = msgspec.structs.replace(mixed, augment=found.operations, code=found.packed.code)
    return Dataset(spec, [Bundle(found.packed.parts)])


MODES: dict[str, Callable[[Path], Dataset]] = {
    "warps": lambda photos: Dataset(a_spec(photos)),
    "in order": lambda photos: Dataset(a_spec(photos, shuffle=False)),
    "crops": lambda photos: Dataset(augmenting(photos, [CROP, A.RandomFlip()])),
    "mixes": mixing,
    "mixes of repeated": lambda photos: mixing(photos, repeats=3),
    "mixes of balanced": lambda photos: mixing(photos, class_weights="balanced"),
    "mixes of cached": lambda photos: Dataset(
        cached(augmenting(photos, [A.Resize(*SIZE), MIX]), "memory")
    ),
    "weighted": weighted,
    "a function": with_a_function,
    "mixes of what a function made": with_a_function_in_its_list,
}


def read(session: Session, dataset: Dataset, spec: Spec, epochs: int) -> Generator[Batch]:
    with closing(session.open(spec, slots=4, bundles=dataset.bundles)) as stream:
        for epoch in range(epochs):
            for position in range(stream.batches):
                yield stream.take((epoch, position))


def alone(
    session: Session,
    dataset: Dataset,
    count: int,
    remainder: Remainder | None = None,
    epochs: int = 1,
) -> list[list[bytes]]:
    """The batches of one trainer with the global batch size."""
    shard = None if remainder is None else Shard(0, 1, remainder)
    spec = dataset.of(BATCH_SIZES[count] * count, shard)
    return [contents([batch]) for batch in read(session, dataset, spec, epochs)]


def side_by_side(
    session: Session,
    dataset: Dataset,
    count: int,
    remainder: Remainder = "short",
    epochs: int = 1,
) -> list[list[bytes]]:
    """The batches of so many trainers, put together."""
    with ExitStack() as stack:
        trainers = []
        for index in range(count):
            spec = dataset.of(BATCH_SIZES[count], Shard(index, count, remainder))
            trainers.append(stack.enter_context(closing(read(session, dataset, spec, epochs))))
        return [contents(batches) for batches in zip(*trainers, strict=True)]


def contents(batches: Sequence[Batch]) -> list[bytes]:
    """All that batches hold, as if they were one."""
    parts: list[list[Any]] = [
        [batch.ids for batch in batches],
        [batch.images for batch in batches],
        [batch.labels for batch in batches],
    ]
    if batches[0].weights is not None:
        parts.append([batch.weights for batch in batches])
    return [np.concatenate(part).tobytes() for part in parts]


@pytest.mark.parametrize("make", MODES.values(), ids=MODES)
def test_trainers_side_by_side_have_the_batches_of_one(
    serve: Serve, photos: Path, make: Callable[[Path], Dataset]
) -> None:
    dataset = make(photos)
    with serve(workers=2) as daemon, Session(daemon.path) as session:
        for count in BATCH_SIZES:
            epochs = 2 if count == 3 else 1
            whole = alone(session, dataset, count, epochs=epochs)
            assert side_by_side(session, dataset, count, epochs=epochs) == whole, count
            assert len({images for _, images, *_ in whole}) == len(whole) > 1


@pytest.mark.parametrize("remainder", get_args(Remainder))
def test_all_trainers_have_as_many_batches_whatever_becomes_of_the_rest(
    serve: Serve, photos: Path, remainder: Remainder
) -> None:
    dataset = mixing(photos)
    with serve(workers=2) as daemon, Session(daemon.path) as session:
        for count in (2, 3):
            whole = alone(session, dataset, count, remainder)
            assert side_by_side(session, dataset, count, remainder) == whole
            ids = [np.frombuffer(each, np.int32) for each, *_ in whole]
            times = Counter(np.concatenate(ids).tolist())
            read_of_all = {"short": 96, "drop": 96 - 96 % len(ids[0]), "pad": 96}[remainder]
            assert len(times) == read_of_all
            assert max(times.values()) == 1 + (remainder == "pad")
            assert len({len(each) for each in ids}) == 1 + (remainder == "short")


def test_what_is_dropped_changes_nothing_of_the_rest(serve: Serve, photos: Path) -> None:
    dataset = with_a_function(photos)  # which is seeded by the number of its batch
    with serve(workers=2) as daemon, Session(daemon.path) as session:
        plain = alone(session, dataset, 4, epochs=2)
        dropped = side_by_side(session, dataset, 4, "drop", epochs=2)
    assert dropped == [*plain[:4], *plain[5:9]]


def test_a_sample_that_fills_up_an_epoch_is_drawn_anew(serve: Serve, photos: Path) -> None:
    dataset = Dataset(augmenting(photos, [CROP]))
    with serve(workers=2) as daemon, Session(daemon.path) as session:
        ids, images, _ = alone(session, dataset, 8, "pad")[1]
        first, before, _ = alone(session, dataset, 8, "pad")[0]
    last = np.frombuffer(ids, np.int32)[96 - 88 :]
    assert (last == np.frombuffer(first, np.int32)[: len(last)]).all()
    size = len(images) // 88
    assert images[8 * size :] != before[: len(last) * size]


@pytest.mark.parametrize("on_error", ["skip", "substitute"])
@pytest.mark.parametrize("operations", [[CROP], [CROP, MIX]], ids=["crops", "mixes"])
def test_bad_images_are_left_out_or_replaced_as_for_one_trainer(
    serve: Serve, tmp_path: Path, on_error: str, operations: list[Any]
) -> None:
    for number in range(96):
        place = tmp_path / "photos" / "abc"[number % 3] / f"{number:02}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        write_photo(place, number, (60, 80))
        if number % 5 == 0:
            place.write_bytes(b"no picture")
    spec = with_errors(augmenting(tmp_path / "photos", operations), on_error)
    batch = msgspec.structs.replace(spec.batch, substitute_weight=0.25)
    dataset = Dataset(
        msgspec.structs.replace(spec, batch=batch) if on_error == "substitute" else spec
    )
    with serve(2, "--max-bad", "50%") as daemon, Session(daemon.path) as session:
        for count in (2, 3, 4):
            whole = alone(session, dataset, count)
            assert side_by_side(session, dataset, count) == whole
            assert (len(whole[0][0]) < 4 * BATCH_SIZES[count] * count) == (on_error == "skip")


@pytest.mark.parametrize(
    ("batch_size", "shard", "says"),
    [
        (
            19,
            Shard(0, 5),
            'has 1 for 5 trainers, and each needs one: use remainder="drop" or "pad"',
        ),
        (50, Shard(1, 2, "drop"), "leaves none of 96 samples, as a batch of all 2 trainers takes"),
    ],
)
def test_a_shard_that_would_be_without_samples_is_refused_when_it_is_opened(
    serve: Serve, photos: Path, batch_size: int, shard: Shard, says: str
) -> None:
    dataset = Dataset(a_spec(photos))
    with (
        serve(workers=1) as daemon,
        Session(daemon.path) as session,
        pytest.raises(InvalidArgument, match=says),
    ):
        session.open(dataset.of(batch_size, shard), slots=4)


def tables() -> set[str]:
    """The tables of samples that this process has mapped, by inode."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {line.split()[4] for line in lines if "memfd:loaderd-table" in line}


def test_trainers_of_one_host_have_one_table_of_the_files_that_the_first_has_found(
    serve: Serve, photos: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(photos, tmp_path / "photos")
    dataset = Dataset(cached(a_spec(folder), "memory"))
    with serve(workers=2) as daemon, Session(daemon.path) as session, ExitStack() as stack:

        def opened(shard: Shard | None) -> Stream:
            return stack.enter_context(
                closing(session.open(dataset.of(5, shard), slots=4, bundles=dataset.bundles))
            )

        gc.collect()
        before = tables()
        first = opened(Shard(0, 3))
        (folder / "cat" / "new.jpg").write_bytes((folder / "cat" / "000.jpg").read_bytes())
        others = [opened(Shard(index, 3)) for index in (1, 2)]
        assert len(tables() - before) == 1
        assert {len(stream.manifest) for stream in (first, *others)} == {96}
        assert len(opened(None).manifest) == 97
        ids = [stream.take((0, 0)).ids for stream in (first, *others)]
        assert len(set(np.concatenate(ids).tolist())) == 15
        assert [stream.cache for stream in daemon.snapshot().streams] == ["memory"] * 4


def test_the_other_trainers_open_without_a_look_at_the_files(
    serve: Serve, photos: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(photos, tmp_path / "photos")
    dataset = Dataset(a_spec(folder))
    with serve(workers=2) as daemon, Session(daemon.path) as session, ExitStack() as stack:

        def opened(shard: Shard) -> Stream:
            return stack.enter_context(closing(session.open(dataset.of(5, shard), slots=4)))

        first = opened(Shard(0, 8))
        folder.rename(tmp_path / "elsewhere")
        others = [opened(Shard(index, 8)) for index in range(1, 8)]
        with pytest.raises(DatasetNotFound):
            opened(Shard(0, 9))
        assert [len(stream.manifest) for stream in (first, *others)] == [96] * 8


def test_stat_and_status_say_which_trainer_reads_and_where_that_was_found(
    serve: Serve, photos: Path
) -> None:
    dataset = Dataset(a_spec(photos))
    with serve(workers=1) as daemon, Session(daemon.path) as session, ExitStack() as stack:
        for shard in (None, Shard(1, 8, found="RANK")):
            stack.enter_context(closing(session.open(dataset.of(5, shard), slots=4)))
        assert [one.shard_text for one in daemon.snapshot().streams] == ["", "1/8 by RANK"]
        words = [sys.executable, "-m", "loaderd", "status", "--json", "--socket", daemon.path]
        status = json.loads(subprocess.run(words, check=True, capture_output=True).stdout)
        assert status["shards"] == ["1/8 by RANK"]


def test_no_trainer_chooses_a_seed_of_its_own(serve: Serve, photos: Path) -> None:
    dataset = Dataset(ordered(a_spec(photos), seed=None))
    with serve(workers=1) as daemon, Session(daemon.path) as session:
        session.open(dataset.of(5, Shard(0, 1)), slots=4).close()
        with pytest.raises(InvalidArgument, match="needs a seed, the same one for all"):
            session.open(dataset.of(5, Shard(0, 2)), slots=4)
