"""What a stream makes of the daemon's messages; the test is the daemon."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from loaderd.errors import (
    BadImage,
    NoWorkers,
    ProtocolError,
    StorageTimeout,
    StreamClosed,
    TooManyBadImages,
)
from loaderd.ipc import channel, manifest
from loaderd.ipc.channel import Channel
from loaderd.ipc.messages import Ack, BatchFailed, Message, Opened, Plan, Ready, Refused, Stalled
from loaderd.ipc.prefetch import WHOLE, Place
from loaderd.ipc.slot_layout import SlotArrays, slot_layout, view_slot
from loaderd.spec.base import LabelMode
from loaderd.spec.output import Batching, Order
from loaderd.spec.source import Directory
from loaderd.spec.spec import Spec
from loaderd_client.core.stream import Stream
from tests.support.daemons import eventually
from tests.support.specs import stages

SLOTS = 4


class FakeDaemon:
    """One stream of batches of three rows, as a daemon would have opened it."""

    def __init__(
        self,
        label_mode: LabelMode = "sparse",
        weight: float | None = None,
        batches: int = 3,
        slots: int = SLOTS,
    ) -> None:
        spec = Spec(
            source=Directory(directory="/photos", extensions=(".jpg",)),
            **stages(target_size=(2, 2)),
            batch=Batching(batch_size=3, label_mode=label_mode, substitute_weight=weight),
            order=Order(seed=1),
        )
        layout = slot_layout(spec, classes=1)
        samples = 3 * batches
        table = manifest.pack("/photos", ["cat"], [b"x.jpg"] * samples, np.zeros(samples, np.int32))
        ring, listing = memory(layout.nbytes * slots), memory(len(table))
        os.pwrite(listing, table, 0)
        sizes = slots, layout.nbytes * slots, len(table)
        theirs, ours = channel.pair()
        self.line = Channel(ours)
        self.slots = [view_slot(mapped(ring), layout, slot) for slot in range(slots)]
        opened = Opened(1, 1, samples, 3, 1, *sizes)
        self.stream = Stream(Channel(theirs), spec, WHOLE, opened, ring, listing)

    def fill(self, slot: int, ids: list[int]) -> SlotArrays:
        arrays = self.slots[slot]
        arrays.ids[:] = ids
        arrays.images[:] = np.reshape(ids, (3, 1, 1, 1))
        if arrays.labels is not None:
            arrays.labels[:] = np.multiply(ids, 10)
        if arrays.weights is not None:
            arrays.weights[:] = np.divide(ids, 2)
        return arrays

    def heard(self) -> Message:
        return self.line.receive()


def memory(nbytes: int) -> int:
    fd = os.memfd_create("test")
    os.ftruncate(fd, nbytes)
    return fd


def mapped(fd: int) -> memoryview:
    import mmap

    return memoryview(mmap.mmap(fd, 0))


def test_rows_that_are_left_out_are_dropped_everywhere() -> None:
    daemon = FakeDaemon(weight=0.0)
    slot = daemon.fill(2, [4, -1, 6])
    daemon.line.send(Ready(2, 0, 0, 0, skipped=1))
    batch = daemon.stream.take((0, 0))
    assert batch.ids.tolist() == [4, 6]
    assert batch.images[:, 0, 0, 0].tolist() == [4, 6]
    assert batch.labels is not None
    assert batch.labels.tolist() == [40, 60]
    assert batch.weights is not None
    assert batch.weights.tolist() == [2, 3]
    slot.images[:] = 99
    assert batch.images.max() == 6, "what is left is the client's own"


def test_a_batch_of_a_run_that_was_left_is_given_back_at_once() -> None:
    daemon = FakeDaemon()
    daemon.fill(2, [4, 5, 6])
    daemon.line.send(Ready(1, 5, 0, 0))  # it was being made when the trainer went elsewhere
    daemon.line.send(Ready(2, 0, 0, 0))
    assert daemon.stream.take((0, 0)).ids.tolist() == [4, 5, 6]
    heard = daemon.heard()
    assert isinstance(heard, Ack)
    assert (heard.taken, heard.released) == ((), (1,))


def test_whoever_waits_is_not_kept_by_batches_that_are_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In place of each that is given back the daemon makes another of its run."""
    daemon = FakeDaemon()
    daemon.fill(2, [4, 5, 6])
    messages = iter([Ready(2, 0, 0, 0), *(Ready(1, 5 + epoch, 0, 0) for epoch in range(100))])
    monkeypatch.setattr(daemon.stream._link.channel, "receive", lambda: next(messages))
    assert daemon.stream.take((0, 0)).ids.tolist() == [4, 5, 6]


def test_what_another_waits_for_is_asked_for_when_the_run_that_would_bring_it_ends() -> None:
    daemon = FakeDaemon()

    def wait_for(place: Place) -> None:
        def run() -> None:
            with contextlib.suppress(StreamClosed):
                daemon.stream.take(place)

        threading.Thread(target=run, daemon=True).start()
        eventually(lambda: place in daemon.stream.subscription._asked)

    wait_for((0, 0))  # it comes by itself
    daemon.line.send(Ready(1, 0, 2, 0))
    daemon.line.send(Ready(2, 1, 0, 0))
    for place in [(0, 2), (1, 0)]:
        daemon.stream.take(place)
    wait_for((1, 2))
    plan = next(message for message in iter(daemon.heard, None) if isinstance(message, Plan))
    assert plan.want == ((1, 2), (0, 0))
    assert plan.run is not None
    assert plan.run.next is None
    daemon.stream.close()


def test_the_time_that_was_waited_is_told_as_a_total() -> None:
    daemon = FakeDaemon()
    late = threading.Timer(0.1, daemon.line.send, [Ready(1, 0, 0, 0)])
    late.start()
    daemon.stream.take((0, 0))
    daemon.line.send(Ready(2, 0, 1, 0))
    daemon.stream.take((0, 1))
    first, second = daemon.heard(), daemon.heard()
    assert isinstance(first, Ack)
    assert isinstance(second, Ack)
    assert 0.05e9 < first.waited_ns < second.waited_ns
    late.join()


def test_the_slot_of_a_batch_that_lacks_rows_is_given_back_at_once() -> None:
    daemon = FakeDaemon()
    daemon.fill(2, [4, -1, 6])
    daemon.line.send(Ready(2, 0, 0, 0, skipped=1))
    batch = daemon.stream.take((0, 0))
    took = daemon.heard()
    assert isinstance(took, Ack)
    assert took.taken == took.released == (2,)
    assert (took.batches, took.samples) == (1, 2)
    assert len(batch.ids) == 2


def test_a_batch_without_a_row_is_an_error_that_names_it() -> None:
    daemon = FakeDaemon()
    daemon.fill(1, [-1, -1, -1])
    daemon.line.send(Ready(1, 0, 0, 0, skipped=3))
    with pytest.raises(BadImage, match=r"every image of batch \(0, 0\) of /photos"):
        daemon.stream.take((0, 0))
    took = daemon.heard()
    assert isinstance(took, Ack)
    assert took.released == (1,)
    daemon.fill(0, [1, 2, 3])
    daemon.line.send(Ready(0, 0, 1, 0))
    assert daemon.stream.take((0, 1)).ids.tolist() == [1, 2, 3]


@pytest.mark.parametrize("label_mode", ["sparse", "none"])
@pytest.mark.parametrize("weight", [None, 0.0])
def test_labels_and_weights_are_there_if_they_are_asked_for(
    label_mode: LabelMode, weight: float | None
) -> None:
    daemon = FakeDaemon(label_mode, weight)
    daemon.fill(0, [2, 4, 6])
    daemon.line.send(Ready(0, 0, 0, 0))
    batch = daemon.stream.take((0, 0))
    assert (batch.labels is None) == (label_mode == "none")
    assert batch.labels is None or batch.labels.tolist() == [20, 40, 60]
    assert (batch.weights is None) == (weight is None)
    assert batch.weights is None or batch.weights.tolist() == [1, 2, 3]
    assert batch.weights is None or batch.weights.dtype == np.float32


@pytest.mark.parametrize("error", [NoWorkers, TooManyBadImages])
def test_what_ends_a_stream_reaches_the_trainer_as_it_is(error: Callable[..., Any]) -> None:
    daemon = FakeDaemon()
    daemon.line.send(Refused(error.__name__, "it says why"))
    with pytest.raises(error, match="it says why"):  # type: ignore[call-overload]
        daemon.stream.take((0, 0))
    assert daemon.stream.ended


def test_storage_that_did_not_answer_is_raised_once_before_the_stream_is_opened_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    daemon = FakeDaemon()
    daemon.fill(0, [0, 1, 2])
    daemon.line.send(Ready(0, 0, 0, 0))
    daemon.line.send(Stalled("storage does not answer: /nfs"))
    daemon.line.send(Refused("StorageTimeout", "/nfs: storage did not answer"))
    assert daemon.stream.take((0, 0)).place == (0, 0)
    assert daemon.stream.ended  # though nobody was told why
    with pytest.raises(StorageTimeout, match="/nfs: storage"):
        daemon.stream.check()
    daemon.stream.check()
    assert capsys.readouterr().err == "loaderd: storage does not answer: /nfs\n"


@pytest.mark.parametrize("slot", [-1, SLOTS])
@pytest.mark.parametrize(
    "message",
    [lambda slot: Ready(slot, 0, 0, 0), lambda slot: BatchFailed("NoRoom", "none", slot, 0, 0)],
)
def test_a_stream_ends_at_a_slot_that_its_ring_has_not(
    message: Callable[[int], Message], slot: int
) -> None:
    daemon = FakeDaemon()
    daemon.line.send(message(slot))
    with pytest.raises(ProtocolError, match=f"slot {slot} of 4"):
        daemon.stream.take((0, 0))
    assert daemon.stream.ended
