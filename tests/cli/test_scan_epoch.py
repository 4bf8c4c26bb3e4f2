"""The epoch of a scan: every batch is taken once, through few slots."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import msgspec
import pytest

from loaderd.cli import scan, scan_epoch
from loaderd.cli.scan_epoch import Epoch
from loaderd.errors import DaemonGone, EmptyDataset, StorageTimeout, TooManyBadImages
from loaderd.ipc import channel, dial
from loaderd.ipc.channel import Channel
from loaderd.ipc.messages import Ack, BatchFailed, Opened, Ready, Refused, Stalled
from loaderd.spec.output import Batching
from loaderd.spec.spec import Spec
from tests.support.daemons import Serve


def one_by_one(folder: Path) -> Spec:
    batch = Batching(batch_size=1, label_mode="none")
    return msgspec.structs.replace(scan._spec(str(folder)), batch=batch)


def test_batches_of_the_next_epoch_go_back_and_are_not_counted() -> None:
    ours, theirs = map(Channel, channel.pair())
    theirs.send(Ready(3, 0, 1, 0, 5))
    theirs.send(Ready(0, 1, 0, 0))
    theirs.send(Ready(1, 1, 1, 0))
    theirs.send(BatchFailed("NoRoom", "there is no memory", 2, 0, 0))
    with contextlib.closing(ours), contextlib.closing(theirs):
        batches = Epoch(ours, Opened(1, 0, 40, 32, 1, 4, 4096, 4096))
        assert list(batches) == [(8, 5, ""), (32, 0, "there is no memory")]
        assert [theirs.receive() for _ in range(4)] == [
            Ack((slot,), (slot,), taken, 32 * taken, 0)
            for taken, slot in enumerate((3, 0, 1, 2), 1)
        ]


def test_storage_that_does_not_answer_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    ours, theirs = map(Channel, channel.pair())
    theirs.send(Stalled("storage does not answer: /nfs"))
    theirs.send(Refused("StorageTimeout", "/nfs: storage did not answer"))
    with (
        contextlib.closing(ours),
        contextlib.closing(theirs),
        pytest.raises(StorageTimeout, match="/nfs: storage"),
    ):
        list(Epoch(ours, Opened(1, 0, 40, 32, 1, 4, 4096, 4096)))
    assert capsys.readouterr().err == "loaderd: storage does not answer: /nfs\n"


def test_slots_go_back_and_every_batch_comes_once(
    serve: Serve, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan_epoch, "_SLOTS", 4)
    with (
        serve(2) as daemon,
        scan_epoch.opened(dial.dial(daemon.path), one_by_one(photos)) as batches,
    ):
        assert daemon.snapshot().streams[0].slots == 4
        outcomes = list(batches)
        assert (batches.samples, batches.batches) == (96, 96)
    assert outcomes == [(1, 0, "")] * 96


def test_the_last_batch_is_shorter(serve: Serve, photos: Path) -> None:
    spec = scan._spec(str(photos / "cat"))
    with serve(1) as daemon, scan_epoch.opened(dial.dial(daemon.path), spec) as batches:
        assert sorted(outcome.samples for outcome in batches) == [9, 32]


def test_what_the_daemon_refuses_is_the_error_that_it_is(
    serve: Serve, photos: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(photos / "emu", tmp_path / "emu")
    (folder / "001.jpg").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    with serve(1, "--max-bad=0%") as daemon:
        with (
            pytest.raises(EmptyDataset),
            scan_epoch.opened(dial.dial(daemon.path), one_by_one(tmp_path / "empty")),
        ):
            pass
        with (
            pytest.raises(TooManyBadImages),
            scan_epoch.opened(dial.dial(daemon.path), one_by_one(folder)) as batches,
        ):
            list(batches)


def test_a_daemon_that_dies_is_said_to_be_gone(
    serve: Serve, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan_epoch, "_SLOTS", 4)
    with (
        serve(1) as daemon,
        scan_epoch.opened(dial.dial(daemon.path), one_by_one(photos)) as batches,
    ):
        outcomes = iter(batches)
        next(outcomes)
        daemon.process.kill()
        daemon.process.wait()
        with pytest.raises(DaemonGone):
            list(outcomes)
