"""Several trainers read one stream: rendered once, the same bytes, and nobody waits for long."""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loaderd.errors import InvalidArgument
from loaderd.ipc.snapshot import StreamStats
from loaderd_client import Session, augment
from scripts.faults import history
from tests.support.daemons import Daemon, Serve, eventually, running
from tests.support.streams import digest
from tests.support.trainers import BATCH, Trainer, a_dataset, trainers

EPOCH = 12

Read = list[tuple[tuple[int, int], str]]


def rows(daemon: Daemon) -> int:
    return sum(worker.rows for worker in daemon.snapshot().workers)


def sharing(daemon: Daemon) -> list[StreamStats]:
    """Those who read the shared stream."""
    return [one for one in daemon.snapshot().streams if one.share and not one.detached]


def detached(daemon: Daemon) -> set[int]:
    """The processes that have left it."""
    return {one.client_pid for one in daemon.snapshot().streams if one.detached}


def begun(daemon: Daemon) -> int:
    """Batches of the shared stream that were begun."""
    (place,) = {(one.epoch, one.position) for one in sharing(daemon)}
    return place[0] * EPOCH + place[1]


def await_wait(daemon: Daemon, seconds: float) -> None:
    """Until the one that has come last has waited so long."""
    eventually(lambda: sharing(daemon)[-1].waited_s > seconds)


def read(sequence: Any, batches: int, first: int = 0) -> Read:
    """So many batches, epoch after epoch; ``first`` have been read before."""
    found: Read = []
    for index in range(first, first + batches):
        batch = sequence.fetch(index % len(sequence))
        found.append((batch.place, digest(batch)))
        if index % len(sequence) == len(sequence) - 1:
            sequence.on_epoch_end()
    return found


def images(sequence: Any, batches: int) -> list[bytes]:
    """The images of the next batches."""
    return [next(sequence)[0].tobytes() for _ in range(batches)]


def rows_when_full(daemon: Daemon) -> int:
    """The rows that were rendered until the ring of the shared stream was full."""
    eventually(lambda: any(one.ready + one.leased == one.slots for one in sharing(daemon)))
    return rows(daemon)


def alone(photos: Path, batches: int, **options: Any) -> Read:
    sequence = a_dataset(photos, **options)
    found = read(sequence, batches)
    sequence.close()
    return found


@pytest.fixture(scope="module")
def started() -> Iterator[Daemon]:
    """A daemon for all of these tests, as each of them costs less than its start."""

    def words(tell: int) -> list[str]:
        return ["loaderd", "serve", "--workers=2", f"--ready-fd={tell}", "--share-lag=2"]

    with tempfile.TemporaryDirectory(prefix="ld-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", folder)
        with running(words, folder) as daemon:
            yield daemon


@pytest.fixture
def daemon(started: Daemon, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    monkeypatch.setenv("LOADERD_SOCKET", started.path)
    with Session(started.path):
        yield started
    eventually(lambda: not started.snapshot().streams)


def test_four_trainers_get_the_bytes_of_a_stream_of_their_own_and_each_batch_is_rendered_once(
    daemon: Daemon, photos: Path
) -> None:
    before, names = rows(daemon), ("one", "two", "three", "four")
    with trainers(photos, *names) as some:
        for one in some:
            one.read(3 * EPOCH)
        for one in some:
            one.await_read(3 * EPOCH)
        assert len(sharing(daemon)) == 4
        assert daemon.snapshot().host.ring_bytes == sharing(daemon)[0].ring_bytes
        eventually(lambda: rows(daemon) - before == begun(daemon) * BATCH)
        assert begun(daemon) <= 3 * EPOCH + sharing(daemon)[0].slots
        assert not detached(daemon)
    with trainers(photos, "alone", share=None) as (own,):
        own.read(3 * EPOCH)
        own.await_read(3 * EPOCH)
    verdict = history.judge_files([one.history for one in some], [own.history])
    assert verdict.findings == ()
    assert (verdict.batches, verdict.compared) == (5 * 3 * EPOCH, 4 * 3 * EPOCH)


def test_a_stopped_a_killed_a_slow_and_a_late_trainer_delay_nobody_and_lose_nothing(
    daemon: Daemon, photos: Path
) -> None:
    with trainers(photos, "fast", "other", "slow", "stopped", "killed") as some:
        fast, other, slow, stopped, killed = some
        for one in some:
            one.read(10**6, 0.2 if one is slow else 0.01)
        killed.await_read(3)
        killed.signal(signal.SIGKILL)
        stopped.await_read(3)
        stopped.signal(signal.SIGSTOP)
        eventually(lambda: detached(daemon) >= {slow.pid, stopped.pid})
        before = fast.has_read()
        fast.await_read(before + 2 * EPOCH)
        with Trainer("late", photos, "search") as late:
            late.await_open()
            late.read(10**6)
            late.await_read(2 * EPOCH)
            assert killed.pid not in {one.client_pid for one in daemon.snapshot().streams}
            assert {one.client_pid for one in sharing(daemon)} == {fast.pid, other.pid, late.pid}
            stopped_at = stopped.has_read()
            stopped.signal(signal.SIGCONT)
            stopped.await_read(stopped_at + EPOCH)
    together = [one.history for one in (fast, other, slow, stopped, killed)]
    # A late one begins with a later epoch, as a reference may.
    verdict = history.judge_files(together, [late.history])
    assert verdict.findings == ()
    assert verdict.compared > 4 * EPOCH


def test_another_spec_under_the_name_is_refused_with_what_differs(
    daemon: Daemon, photos: Path, tmp_path: Path
) -> None:
    with_eight = a_dataset(photos, share="search")
    with pytest.raises(InvalidArgument, match=r"share='search'.*batch_size is 8, not 4"):
        a_dataset(photos, share="search", batch_size=4)
    with pytest.raises(InvalidArgument, match=r"order.seed is 3, not 4"):
        a_dataset(photos, share="search", seed=4)
    (tmp_path / "emu").symlink_to(photos / "emu")
    with pytest.raises(InvalidArgument, match=r"the folder is .*, not "):
        a_dataset(tmp_path, share="search")
    with pytest.raises(InvalidArgument, match=r"its samples"):
        a_dataset(photos, share="search", class_names=["dog", "cat", "emu"])
    assert len(read(with_eight, 3)) == 3
    shown = subprocess.run(
        [sys.executable, "-m", "loaderd", "status", "--json"], capture_output=True, check=True
    )
    (reader,) = json.loads(shown.stdout)["shared"]
    assert reader == {"share": "search", "client_pid": os.getpid(), "lag": 0, "detached": False}
    assert len(sharing(daemon)) == 1


@pytest.mark.parametrize("seed", [7, None])
def test_a_trainer_without_a_seed_takes_that_of_the_stream_and_saves_a_state_for_anybody(
    daemon: Daemon, photos: Path, seed: int | None
) -> None:
    first, second = (a_dataset(photos, share="search", seed=one) for one in (seed, None))
    assert second.spec.order.seed == first.spec.order.seed
    assert second.filenames == first.filenames
    assert images(second, 2) == images(first, 2)
    state, expected = second.state_dict(), images(second, 3)
    first.close()
    second.close()
    for share in (None, "other"):
        resumed = a_dataset(photos, share=share, seed=None)
        resumed.load_state_dict(state)
        assert images(resumed, 3) == expected
        resumed.close()


def test_each_part_of_a_split_is_a_stream_of_its_own(daemon: Daemon, photos: Path) -> None:
    split = {"validation_split": 0.25, "subset": "both", "share": "search"}
    for sequences in [a_dataset(photos, **split) for _ in range(2)]:
        assert [len(sequence) for sequence in sequences] == [9, 3]
    assert {one.share for one in sharing(daemon)} == {"search/training", "search/validation"}


def test_trainers_of_one_index_share_where_each_program_has_several(
    daemon: Daemon, photos: Path
) -> None:
    shards = [(0, 2), (1, 2)]
    first, second = (
        [a_dataset(photos, share="search", shard=shard) for shard in shards] for _ in range(2)
    )
    assert {one.share for one in sharing(daemon)} == {"search/0-of-2", "search/1-of-2"}
    for shard, one, other in zip(shards, first, second, strict=True):
        expected = alone(photos, 6, shard=shard)
        assert read(one, 6) == read(other, 6) == expected
    with pytest.raises(InvalidArgument, match=r"order.shard.remainder is 'short', not 'drop'"):
        a_dataset(photos, share="search", shard=(0, 2), remainder="drop")


def test_a_late_trainer_begins_with_the_next_epoch_or_at_once(
    daemon: Daemon, photos: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    expected = alone(photos, 4 * EPOCH)
    first = a_dataset(photos, share="search")
    for index in range(EPOCH - 2):
        first.fetch(index)
    late = a_dataset(photos, share="search")
    assert "share='search': joins the others in their epoch 2" in capfd.readouterr().err
    assert read(late, 6) == expected[EPOCH : EPOCH + 6]
    now = a_dataset(photos, share="search", join="now")
    start = now._supply.first
    assert EPOCH < (begin := start[0] * EPOCH + start[1]) <= 2 * EPOCH
    for index in (EPOCH - 2, EPOCH - 1):
        first.fetch(index)
    first.close()
    late.close()
    assert read(now, 8) == expected[begin : begin + 8]


def test_a_late_trainer_that_waits_for_the_next_epoch_drives_out_nobody_who_reads(
    daemon: Daemon, photos: Path
) -> None:
    first = a_dataset(photos, share="search", max_queue_size=2)
    found = read(first, 2)
    late = a_dataset(photos, share="search")
    assert late._supply.first == (1, 0)
    waits = threading.Thread(target=read, args=(late, 1))
    waits.start()
    for batch in range(2, 7):  # the ring is full, and the end of the epoch far away
        await_wait(daemon, 0.8 * (batch - 1))
        found += read(first, 1, first=batch)
        assert not detached(daemon)
    found += read(first, EPOCH - 7, first=7)
    waits.join(30)
    assert not waits.is_alive()
    assert len(sharing(daemon)) == 2
    assert found == alone(photos, EPOCH)


def test_what_does_not_follow_the_order_comes_from_a_stream_of_its_own(
    daemon: Daemon, photos: Path
) -> None:
    expected = dict(alone(photos, 2 * EPOCH))
    first, second = (a_dataset(photos, share="search") for _ in range(2))
    for index in (0, 1, 5, 2, 0, 11, 3):
        batch = first.fetch(index)
        assert index in (0, 5) or digest(batch) == expected[batch.place]
    assert read(second, 4) == [(place, expected[place]) for place in list(expected)[:4]]
    assert len(sharing(daemon)) == 2


def test_what_keras_looks_at_before_a_pass_is_not_rendered_again(
    daemon: Daemon, photos: Path
) -> None:
    sequence = a_dataset(photos, share="search")
    looked_at = [digest(sequence._look(index)) for index in (0, 1)]
    passed = [images for images, _ in itertools.islice(iter(sequence), 3)]
    assert [digest(sequence._look(index)) for index in (0, 1)] == looked_at
    assert len(passed) == 3
    assert len(daemon.snapshot().streams) == 1


def test_fits_that_share_render_nothing_twice(daemon: Daemon, photos: Path) -> None:
    from tests.keras.test_article import a_model

    options = {"image_size": (32, 32), "label_mode": "categorical"}
    model = a_model()
    model.fit(a_dataset(photos, **options), verbose=0)  # compiles, for which nobody should wait
    train, other = (a_dataset(photos, share="search", **options) for _ in range(2))
    reader = threading.Thread(target=read, args=(other, 4 * EPOCH))
    reader.start()
    for _ in range(2):
        model.fit(train, epochs=2, verbose=0)
    reader.join(30)
    assert train._reader.places.epoch == 3
    assert [one.batches for one in sharing(daemon)] == [4 * EPOCH] * 2
    assert train._supply._own is None


def test_a_fit_that_reads_an_unshuffled_dataset_in_another_order_is_warned_of(
    daemon: Daemon, photos: Path, recwarn: pytest.WarningsRecorder
) -> None:
    from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

    sequence = a_dataset(photos, share="search", shuffle=False)
    for _ in PyDatasetAdapter(sequence, shuffle=False).get_numpy_iterator():
        pass
    assert sequence._supply._own is None
    assert [str(one.message) for one in recwarn if "share" in str(one.message)] == []
    with pytest.warns(UserWarning, match=r"share='search': .* use fit\(shuffle=False\)"):
        for _ in PyDatasetAdapter(sequence, shuffle=True).get_numpy_iterator():
            pass


@pytest.mark.parametrize("join", ["epoch", "now"])
def test_a_state_of_a_late_trainer_goes_on_with_the_batches_that_it_would_have_got(
    daemon: Daemon, photos: Path, join: str
) -> None:
    first = a_dataset(photos, share="search")
    for index in range(EPOCH):
        first.fetch(index)
    late = a_dataset(photos, share="search", join=join)
    epoch, position = late._supply.first
    assert epoch > 0
    first.close()
    for _ in range(EPOCH + 3):
        next(late)
    state = late.state_dict()
    expected = [next(late)[0].copy() for _ in range(3)]
    late.close()
    epoch, position = divmod((epoch + 1) * EPOCH + position + 3, EPOCH)
    assert (state["epoch"], state["samples"]) == (epoch, position * BATCH)
    for options in ({"share": "search"}, {}):
        resumed = a_dataset(photos, **options)
        resumed.load_state_dict(state)
        assert all(np.array_equal(next(resumed)[0], images) for images in expected)
        resumed.close()


def test_a_state_brings_the_seed_of_a_shared_stream(daemon: Daemon, photos: Path) -> None:
    before = a_dataset(photos, share="search", seed=None)
    for _ in range(3):
        next(before)
    state = before.state_dict()
    expected = [next(before)[0].copy() for _ in range(3)]
    before.close()
    resumed = a_dataset(photos, share="search", seed=None)
    resumed.load_state_dict(state)
    assert all(np.array_equal(next(resumed)[0], images) for images in expected)
    assert {one.share for one in daemon.snapshot().streams} == {"search"}


def test_an_epoch_of_a_trainer_that_joined_in_the_middle_of_one_is_resumed_with_what_is_left_of_it(
    daemon: Daemon, photos: Path
) -> None:
    expected = [batch for _, batch in alone(photos, 4 * EPOCH)]
    first = a_dataset(photos, share="search", max_queue_size=4)
    read(first, 1)
    late = a_dataset(photos, share="search", join="now")
    begin = late._supply.phase
    assert 0 < begin < EPOCH
    first.close()
    read(late, EPOCH + 3)
    state = late.state_dict()
    late.close()
    resumed = a_dataset(photos, share="search", join="now")
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    assert [sum(1 for _ in resumed) for _ in range(2)] == [EPOCH - 3, EPOCH]
    assert digest(resumed.fetch(0)) == expected[begin + 2 * EPOCH]


def test_trainers_that_are_resumed_without_a_seed_share_again(daemon: Daemon, photos: Path) -> None:
    def three() -> list[Any]:
        options = {"share": "search", "seed": None, "max_queue_size": 4}
        return [a_dataset(photos, **options) for _ in range(3)]

    before = three()
    for one in before * (EPOCH + 2):
        next(one)
    states = [one.state_dict() for one in before]
    for one in before:
        one.close()
    reference = a_dataset(photos, seed=None)
    reference.load_state_dict(states[0])
    expected = images(reference, 2 * EPOCH)
    reference.close()
    resumed = three()
    resumed[0].load_state_dict(states[0])
    found = [images(resumed[0], 2), [], []]  # the others still read a stream of another seed
    for one, state in zip(resumed[1:], states[1:], strict=True):
        one.load_state_dict(state)
    while len(sharing(daemon)) < 3:
        assert len(found[0]) < EPOCH
        for one, so_far in zip(resumed, found, strict=True):
            so_far += images(one, 1)
    made = rows_when_full(daemon)
    for one, so_far in zip(resumed, found, strict=True):
        so_far += images(one, 3)
    assert rows_when_full(daemon) - made == 3 * BATCH
    assert all(so_far == expected[: len(so_far)] for so_far in found)


class Brighter:
    """A user's function whose state changes."""

    def __init__(self) -> None:
        self.by = 1

    def __call__(self, images: Any) -> Any:
        return images + self.by


def test_a_trainer_whose_function_changes_goes_on_alone(daemon: Daemon, photos: Path) -> None:
    function = Brighter()
    one, other = (
        a_dataset(photos, share="search", augment=[augment.Function(function)]) for _ in range(2)
    )
    same = read(one, EPOCH)
    assert read(other, EPOCH) == same
    function.by = 2
    with pytest.warns(UserWarning, match="share='search': the state of a function has changed"):
        changed = read(one, 2)
    assert changed == alone(photos, EPOCH + 2, augment=[augment.Function(function)])[EPOCH:]
    assert not one[2][0].flags.writeable
    assert len(sharing(daemon)) == 1


@pytest.mark.parametrize("ends", [lambda one: one.close(), lambda one: None])
def test_arrays_are_read_only_and_keep_their_values_whatever_becomes_of_the_sequence(
    daemon: Daemon, photos: Path, ends: Callable[[Any], None]
) -> None:
    first, second = (a_dataset(photos, share="search") for _ in range(2))
    kept = [images for images, _ in itertools.islice(iter(first), 6)]
    values = [images.copy() for images in kept]
    with pytest.raises(ValueError, match="read-only"):
        kept[0][0] = 0
    ends(first)
    del first
    gc.collect()
    eventually(lambda: len(sharing(daemon)) == 1)
    read(second, 4 * EPOCH)
    assert all(map(np.array_equal, kept, values))
    kept.clear()
    eventually(lambda: len(daemon.snapshot().streams) == 1)


def test_a_trainer_that_keeps_all_batches_does_not_stop_the_others(
    daemon: Daemon, photos: Path
) -> None:
    some = [a_dataset(photos, share="search", max_queue_size=4) for _ in range(4)]
    kept: list[Any] = []
    readers = [
        threading.Thread(target=lambda one=one: kept.extend(itertools.islice(iter(one), EPOCH)))
        for one in some
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(30)
    assert len(kept) == 4 * EPOCH
    assert not detached(daemon)


def test_trainers_that_share_go_on_together_when_the_daemon_is_started_again(
    serve: Serve, photos: Path
) -> None:
    with contextlib.ExitStack() as stack:
        with serve() as daemon:
            stack.enter_context(Session(daemon.path))
            expected = alone(photos, 2 * EPOCH)
            some = [a_dataset(photos, share="search") for _ in range(2)]
            found = [read(one, EPOCH) for one in some]
            daemon.process.kill()
            daemon.process.wait()
        with serve() as daemon:
            for one, before in zip(some, found, strict=True):
                before += read(one, EPOCH // 2)
            late = a_dataset(photos, share="search")
            assert late._supply.first == (2, 0)
            for one, before in zip(some, found, strict=True):
                before += read(one, EPOCH // 2, first=EPOCH // 2)
            assert found == [expected] * 2
            assert len(sharing(daemon)) == 3


def test_one_without_a_seed_keeps_that_of_its_stream_when_the_daemon_is_started_again(
    serve: Serve, photos: Path
) -> None:
    with contextlib.ExitStack() as stack:
        with serve() as daemon:
            stack.enter_context(Session(daemon.path))
            first = a_dataset(photos, share="search", seed=None)
            daemon.process.kill()
            daemon.process.wait()
        with serve():
            other = a_dataset(photos, share="search", seed=first.spec.order.seed + 1)
            assert read(first, 3) == alone(photos, 3, seed=first.spec.order.seed)
            assert len(read(other, 3)) == 3


def test_one_that_was_left_behind_joins_again_when_it_has_caught_up(
    daemon: Daemon, photos: Path
) -> None:
    expected = alone(photos, 8 * EPOCH)
    fast, slow = (a_dataset(photos, share="search") for _ in range(2))
    found = read(slow, 1)
    thread = threading.Thread(target=read, args=(fast, 2 * EPOCH))
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert [one.detached for one in daemon.snapshot().streams] == [False, True]
    for count in itertools.count(1):
        batch = slow.fetch(count % EPOCH)
        found.append((batch.place, digest(batch)))
        if count % EPOCH == EPOCH - 1:
            slow.on_epoch_end()
        if len(sharing(daemon)) == 2:
            break
        assert count < 7 * EPOCH
    assert found == expected[: len(found)]
