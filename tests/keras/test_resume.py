"""A trainer that is killed continues, by the state of its sequence, with exactly what is left."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import random
import shutil
import signal
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loaderd.errors import InvalidArgument, StateError
from loaderd_client import (
    ImageDataGenerator,
    LoaderSequence,
    Session,
    image_dataset_from_archive,
    image_dataset_from_dataframe,
    image_dataset_from_directory,
)
from loaderd_client import augment as A
from tests.support.archives import samples, shards_of
from tests.support.daemons import Daemon, shared

SIZE = (16, 16)
EPOCHS = 2
Make = Callable[[Path], Any]
Read = Callable[[Any], Iterator[Any]]


def dataset(photos: Path, **options: Any) -> LoaderSequence:
    given: dict[str, Any] = {
        "image_size": SIZE,
        "batch_size": 8,
        "seed": 3,
        "verbose": False,
    } | options
    sequence = image_dataset_from_directory(photos, **given)
    assert isinstance(sequence, LoaderSequence)
    return sequence


def flow(photos: Path, **options: Any) -> Any:
    generator = ImageDataGenerator(rotation_range=20, zoom_range=0.2, horizontal_flip=True)
    given: dict[str, Any] = {"target_size": SIZE, "batch_size": 8, "seed": 3} | options
    return generator.flow_from_directory(photos, **given)


def arrays(photos: Path) -> Any:
    images = np.random.default_rng(1).integers(0, 256, (96, *SIZE, 3)).astype("float32")
    generator = ImageDataGenerator(horizontal_flip=True)
    return generator.flow(images, np.arange(96), batch_size=8, shuffle=True, seed=3)


def archives(photos: Path) -> Any:
    folder = photos.parent / "packed"
    if not folder.exists():
        folder.mkdir()
        shards_of(folder, samples(photos), 3)
    return image_dataset_from_archive(
        folder / "train-{000..002}.tar",
        image_size=SIZE,
        batch_size=8,
        seed=3,
        verbose=False,
        augment=[A.RandomFlip()],
    )


def boxes(photos: Path) -> Any:
    paths = sorted(str(path) for path in photos.rglob("*.jpg"))
    count = len(paths)
    table = {
        "image": paths,
        "box": [[[1.0, 2.0, 30.0 + number % 9, 40.0]] for number in range(count)],
        "kind": [[number % 3] for number in range(count)],
    }
    return image_dataset_from_dataframe(
        table, boxes="box", box_labels="kind", image_size=SIZE, batch_size=8, verbose=False
    )


MODES: dict[str, Make] = {
    "shuffled": dataset,
    "unshuffled": lambda photos: dataset(photos, shuffle=False),
    "picked seed": lambda photos: dataset(photos, seed=None),
    "flow": flow,
    "flow with a picked seed": lambda photos: flow(photos, seed=None),
    "unshuffled flow": lambda photos: flow(photos, shuffle=False),
    "flow of arrays": arrays,
    "augmented": lambda photos: dataset(
        photos, augment=[A.RandomResizedCrop(*SIZE), A.RandomHue(0.2)]
    ),
    "mixed": lambda photos: dataset(
        photos, label_mode="categorical", augment=[A.RandomFlip(), A.MixUp()]
    ),
    "boxes": boxes,
    "sharded": lambda photos: dataset(photos, batch_size=4, shard=(1, 2)),
    "sharded, mixed and padded": lambda photos: dataset(
        photos,
        label_mode="categorical",
        batch_size=3,
        shard=(2, 3),
        remainder="pad",
        augment=[A.MixUp()],
    ),
    "archives": archives,
    "skip": lambda photos: dataset(photos, on_error="skip"),
    "substitute in a flow": lambda photos: flow(
        photos, on_error="substitute", substitute_weight=0.5
    ),
    "balanced and repeated": lambda photos: dataset(
        photos, class_weights="balanced", augment=[A.RepeatedAugmentation(2), A.RandomFlip()]
    ),
}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with shared("--max-bad=5%", f"--cache-dir={tmp_path_factory.mktemp('cache')}") as daemon:
        yield daemon


@pytest.fixture
def session(daemon: Daemon) -> Iterator[Session]:
    with Session(daemon.path) as session:
        yield session


def arrays_of(batch: Any) -> Iterator[np.ndarray]:
    if isinstance(batch, dict):
        batch = [batch[name] for name in sorted(batch)]
    for part in batch if isinstance(batch, (tuple, list)) else [batch]:
        yield from arrays_of(part) if isinstance(part, (dict, tuple, list)) else [np.asarray(part)]


def digest(batch: Any) -> str:
    sha = hashlib.sha256()
    for array in arrays_of(batch):
        sha.update(repr((array.dtype, array.shape)).encode() + array.tobytes())
    return sha.hexdigest()


def delivered(sequence: Any) -> int:
    """How many batches were delivered, as its state says."""
    state = sequence.state_dict()
    of_all_trainers = sequence._epoch_layout().global_size
    return int(state["epoch"]) * len(sequence) + int(state["samples"]) // int(of_all_trainers)


def by_next(sequence: Any) -> Iterator[Any]:
    while delivered(sequence) < EPOCHS * len(sequence):
        yield next(sequence)


def in_loops(sequence: Any) -> Iterator[Any]:
    while delivered(sequence) < EPOCHS * len(sequence):
        yield from sequence


def ways_to_read(mode: str) -> list[Read]:
    """A loop over a flow never ends."""
    return [by_next] if "flow" in mode else [by_next, in_loops]


def train(address: str, make: Callable[[], Any], read: Read, tell: int) -> None:
    """Writes after every batch its digest, and the state that was saved then."""
    with Session(address):
        sequence = make()
        for batch in read(sequence):
            line = [digest(batch), sequence.state_dict()]
            os.write(tell, json.dumps(line).encode() + b"\n")


def trained(
    daemon: Daemon, make: Callable[[], Any], read: Read, killed_after: float = float("inf")
) -> list[Any]:
    """What a trainer in a forked child wrote until it ended, or was killed after some lines."""
    receive, tell = os.pipe()
    child = os.fork()
    if not child:
        try:
            train(daemon.path, make, read, tell)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    os.close(tell)
    lines = []
    with open(receive, "rb") as file:
        for line in file:
            lines.append(json.loads(line))
            if len(lines) == killed_after:
                os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL)
    return lines


undisturbed: dict[str, list[Any]] = {}
"""What trainers wrote that were not killed: the same, however the sequence was read."""


def check_kill(daemon: Daemon, mode: str, root: Path, read: Read, after: int) -> None:
    def make() -> Any:
        return MODES[mode](root)

    first = trained(daemon, make, read, after)
    state = first[-1][1]
    assert len(json.dumps(state)) <= 200

    def made(state: dict[str, Any]) -> Any:
        sequence = make()
        sequence.load_state_dict(state)
        return sequence

    second = trained(daemon, lambda: made(state), read)
    beginning = state | {"epoch": 0, "samples": 0}  # with the seed that may have been picked
    key = json.dumps([daemon.path, mode, beginning])
    if key not in undisturbed:
        undisturbed[key] = trained(daemon, lambda: made(beginning), read)
    assert first + second == undisturbed[key]


@pytest.mark.parametrize("mode", MODES)
def test_a_killed_trainer_continues_with_exactly_the_batches_that_are_left(
    daemon: Daemon, flawed: Path, photos: Path, mode: str
) -> None:
    root = flawed if "skip" in mode or "substitute" in mode else photos
    choice = random.Random(mode)
    read = choice.choice(ways_to_read(mode))
    check_kill(daemon, mode, root, read, choice.randrange(1, 20))


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mode", MODES)
def test_a_trainer_may_be_killed_after_any_batch(
    daemon: Daemon, flawed: Path, photos: Path, mode: str
) -> None:
    root = flawed if "skip" in mode or "substitute" in mode else photos
    for _ in range(50):
        read = random.choice(ways_to_read(mode))
        check_kill(daemon, mode, root, read, random.randrange(1, 23))


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize("make", [dataset, flow, boxes], ids=lambda make: str(make.__name__))
def test_a_state_counts_what_was_handed_out(photos: Path, make: Make) -> None:
    sequence = make(photos)
    found = []
    for _ in range(len(sequence) + 1):
        state = sequence.state_dict()
        found.append((state["epoch"], state["samples"]))
        next(sequence)
    assert found == [*((0, 8 * number) for number in range(len(sequence))), (1, 0)]


@pytest.mark.usefixtures("session")
def test_looks_and_lengths_deliver_nothing(photos: Path) -> None:
    sequence = dataset(photos)
    sequence.preview(4)
    len(sequence)
    assert sequence.state_dict()["samples"] == 0


@pytest.mark.usefixtures("session")
def test_reads_by_index_count_once_each_and_keep_their_places(photos: Path) -> None:
    sequence, other = dataset(photos), dataset(photos)
    first = [digest(sequence[index]) for index in range(3)]
    assert digest(sequence[1]) == first[1]
    state = sequence.state_dict()
    assert (state["epoch"], state["samples"]) == (0, 24)
    sequence.on_epoch_end()
    assert sequence.state_dict()["epoch"] == 1
    other.load_state_dict(state)
    assert [digest(other[index]) for index in range(3)] == first
    other.on_epoch_end()
    assert digest(other[0]) == digest(sequence[0])


@pytest.mark.usefixtures("session")
def test_a_batch_that_failed_is_not_delivered_again(flawed: Path) -> None:
    sequence, other = dataset(flawed, shuffle=False), dataset(flawed, shuffle=False)
    with pytest.raises(OSError, match=r"003\.jpg"):
        next(sequence)
    other.load_state_dict(sequence.state_dict())
    assert digest(next(other)) == digest(next(sequence))


@pytest.mark.usefixtures("session")
def test_a_state_may_be_loaded_in_the_middle_of_a_loop(photos: Path) -> None:
    sequence = dataset(photos)
    first = [digest(batch) for batch in sequence]
    state, found = sequence.state_at(0, 9), []
    for batch in sequence:
        found.append(digest(batch))
        if len(found) == 2:
            sequence.load_state_dict(state)
    assert found[2:] == first[9:]


@pytest.mark.usefixtures("session")
def test_a_flow_that_was_reset_in_mid_epoch_continues_with_its_numbers(photos: Path) -> None:
    sequence, other = flow(photos), flow(photos)
    for _ in range(5):
        next(sequence)
    sequence.reset()
    next(sequence)
    other.load_state_dict(sequence.state_dict())
    assert digest(next(other)) == digest(next(sequence))
    assert other.total_batches_seen == sequence.total_batches_seen


@pytest.mark.usefixtures("session")
def test_a_resumed_sequence_may_be_reset_and_copied(photos: Path) -> None:
    sequence = dataset(photos)
    state = sequence.state_at(3, 7)
    sequence.load_state_dict(state)
    other = copy.copy(sequence)
    assert other.state_dict() == state
    assert digest(next(other)) == digest(next(sequence))
    other.reset()
    next(other)
    found = other.state_dict()
    assert (found["epoch"], found["samples"]) == (4, 8)


# -- what is refused -------------------------------------------------------------------


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"image_size": (16, 17)}, "how images are loaded"),
        ({"augment": [A.RandomFlip()]}, "what is done to images"),
        ({"data_format": "channels_first"}, "the form of batches"),
        ({"batch_size": 4}, "`batch_size`"),
        ({"shuffle": False}, "`shuffle`"),
        ({"class_weights": "balanced"}, "`shuffle`, or how often samples come"),
        ({"on_error": "skip"}, "`on_error`"),
        ({"class_names": ["emu", "dog", "cat"]}, "96 files as before, but not the same"),
    ],
)
def test_the_state_of_another_spec_is_refused_with_what_differs(
    photos: Path, options: dict[str, Any], named: str
) -> None:
    state = dataset(photos).state_dict()
    with pytest.raises(StateError, match="What differs: ") as refused:
        dataset(photos, **options).load_state_dict(state)
    assert named in str(refused.value)


@pytest.mark.usefixtures("session")
def test_files_that_were_added_or_removed_are_counted(photos: Path, tmp_path: Path) -> None:
    root = tmp_path / "photos"
    shutil.copytree(photos, root)
    few = dataset(root).state_dict()
    for number in range(3):
        shutil.copy(root / "cat/000.jpg", root / f"cat/new{number}.jpg")
    many = dataset(root)
    with pytest.raises(StateError, match="3 files were added: it had 96, now 99"):
        many.load_state_dict(few)
    (root / "cat/new0.jpg").unlink()
    with pytest.raises(StateError, match="1 file was removed: it had 99, now 98"):
        dataset(root).load_state_dict(many.state_dict())


@pytest.mark.usefixtures("session")
def test_what_changes_no_byte_is_not_compared(photos: Path, tmp_path: Path) -> None:
    state = dataset(photos).state_at(1, 2)
    moved = tmp_path / "elsewhere"
    shutil.copytree(photos, moved)
    other = dataset(moved, cache="memory", max_queue_size=3)
    other.load_state_dict(state)
    assert other.state_dict() == state


@pytest.mark.usefixtures("session")
def test_a_refused_state_leaves_the_sequence_where_it_was(photos: Path) -> None:
    sequence = dataset(photos)
    next(sequence)
    before = sequence.state_dict()
    with pytest.raises(StateError):
        sequence.load_state_dict(before | {"files": 95, "seed": 99})
    assert sequence.state_dict() == before


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 2}, "version 2"),
        ({"samples": 7}, "no batch begins after 7 samples"),
        ({"samples": 96}, "no batch begins after 96 samples"),
        ({"epoch": -1}, "no negative numbers"),
        ({"phase": 12, "epoch": 2}, "no epoch of 12 batches begins with batch 12"),
        ({"phase": 3, "epoch": 0, "samples": 16}, "before batch 2 of epoch 0"),
        ({"epoch": "1"}, "Expected `int`"),
        ({"more": 1}, "more"),
    ],
)
def test_what_is_no_state_is_refused(photos: Path, change: dict[str, Any], words: str) -> None:
    sequence = dataset(photos)
    with pytest.raises((InvalidArgument, StateError), match=words):
        sequence.load_state_dict(sequence.state_dict() | change)


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize(
    ("state", "words"),
    [
        (None, "and is None"),
        ({}, "and is empty"),
        (
            {"model": {}, "loader": {}},
            "and has the keys ['model', 'loader']: of a whole checkpoint, ",
        ),
        ('{"version": 1}', "and is a text: give json.loads(state)"),
        (b"{}", "and is a text: give json.loads(state)"),
    ],
)
def test_what_state_dict_does_not_give_is_refused_with_what_to_give(
    photos: Path, state: Any, words: str
) -> None:
    with pytest.raises(InvalidArgument, match="the dictionary that `state_dict") as refused:
        dataset(photos).load_state_dict(state)
    assert words in str(refused.value)


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize(
    ("epoch", "batches", "words"),
    [
        (1, -1, "`batches` should be 0 or more. Received: -1"),
        (-1, 0, "`epoch` should be 0 or more. Received: -1"),
        ("1", 0, "`epoch` should be a whole number. Received: '1'"),
        (0, 13, "`batches` should be at most 12, those of an epoch. Received: 13"),
    ],
)
def test_a_place_that_no_epoch_has_is_refused(
    photos: Path, epoch: Any, batches: int, words: str
) -> None:
    sequence = dataset(photos)
    with pytest.raises(InvalidArgument, match=words):
        sequence.state_at(epoch, batches)
    assert sequence.state_at(0, 12) == sequence.state_at(1, 0)


@pytest.mark.usefixtures("session")
def test_an_order_of_the_programs_is_in_no_state(photos: Path) -> None:
    sequence = flow(photos)
    sequence.index_array = np.arange(96)[::-1]
    with pytest.raises(StateError, match="index_array"):
        sequence.state_dict()


@pytest.mark.usefixtures("session")
def test_the_longest_state_has_at_most_200_bytes(photos: Path) -> None:
    longest = {"files": 10**10, "seed": 2**63 - 1, "epoch": 10**9, "samples": 10**10}
    shared = {"files": 10**9, "seed": 2**32, "epoch": 10**6, "samples": 10**9, "phase": 10**8}
    for state in (longest, shared):
        assert len(json.dumps(dataset(photos).state_dict() | state)) <= 200
