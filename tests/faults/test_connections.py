"""Streams that follow one another on a connection, as no client of ours would ask for them."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest

from loaderd.ipc import dial
from loaderd.ipc.bundle import Bundle
from loaderd.ipc.channel import Channel, Closed
from loaderd.ipc.messages import IDLE_SECONDS, Ack, Message, Opened, Plan, Ready
from loaderd.ipc.prefetch import WHOLE
from loaderd.spec.output import Batching, Order
from loaderd.spec.source import Arrays
from loaderd.spec.spec import Spec
from loaderd.supervisor.request_limits import MAX_STREAMS_OF_ONE
from loaderd_client.core import session
from loaderd_client.core.stream import StreamRequest
from tests.support.daemons import Serve, eventually
from tests.support.specs import stages

NO_RUN = WHOLE.at(None)
SMALL = Spec(
    source=Arrays(),
    **stages(target_size=(8, 8)),
    batch=Batching(batch_size=4, label_mode="none"),
    order=Order(seed=1),
)


@pytest.fixture(scope="module")
def images() -> Bundle:
    return Bundle({"images": np.ones((4, 8, 8, 3), np.float32)})


def ask(line: Channel, images: Bundle) -> None:
    session._ask(line, StreamRequest(SMALL, 2, NO_RUN, [images]))


def hear(line: Channel) -> Message:
    return hear_of_ring(line)[0]


def hear_of_ring(line: Channel) -> tuple[Message, int]:
    """A message, and which ring came with it, if one did."""
    message, fds = line.receive_with_fds()
    ring = os.fstat(fds[0]).st_ino if fds else 0
    for fd in fds:
        os.close(fd)
    return message, ring


def opened(path: str, images: Bundle) -> tuple[Channel, Opened, int]:
    line = dial.dial(path)
    ask(line, images)
    answer, ring = hear_of_ring(line)
    assert isinstance(answer, Opened)
    return line, answer, ring


def test_each_has_a_number_of_its_own_and_the_ring_of_the_last(
    serve: Serve, images: Bundle
) -> None:
    with serve() as daemon:
        line, first, ring = opened(daemon.path, images)
        numbers = {first.stream}
        for _ in range(5):
            ask(line, images)
            answer, same = hear_of_ring(line)
            assert isinstance(answer, Opened)
            assert same == ring
            numbers.add(answer.stream)
        assert len(numbers) == 6
        assert len(daemon.snapshot().streams) == 1
        line.send(Ack((0,), (), 0, 0, 0))  # of a slot that it was not given
        with pytest.raises(Closed):
            hear(line)
            hear(line)
        eventually(lambda: not daemon.snapshot().streams)


def test_a_ring_of_which_a_slot_is_in_use_is_not_given_on(serve: Serve, images: Bundle) -> None:
    with serve() as daemon:
        line, _, ring = opened(daemon.path, images)
        line.send(Plan(((0, 0),), None))
        ready = hear(line)
        assert isinstance(ready, Ready)
        line.send(Ack((ready.slot,), (), 1, 4, 0))
        ask(line, images)
        answer, another = hear_of_ring(line)
        assert isinstance(answer, Opened)
        assert another != ring
        line.close()


def test_an_idle_one_that_asks_just_when_its_room_is_needed_gets_another_number(
    serve: Serve, images: Bundle
) -> None:
    with serve() as daemon:
        lines = [opened(daemon.path, images)[0] for _ in range(MAX_STREAMS_OF_ONE)]
        new = dial.dial(daemon.path)
        idle_at = time.monotonic() + IDLE_SECONDS
        eventually(lambda: time.monotonic() > idle_at)
        os.kill(daemon.process.pid, signal.SIGSTOP)
        ask(new, images)
        ask(lines[0], images)
        os.kill(daemon.process.pid, signal.SIGCONT)
        answers = [hear(lines[0]), hear(new)]
        numbers = {answer.stream for answer in answers if isinstance(answer, Opened)}
        assert len(numbers) == 2
        lines.pop(0).close()
        new.send(Plan(((0, 0),), None))
        assert isinstance(hear(new), Ready)
        assert daemon.process.poll() is None
        for line in [new, *lines]:
            line.close()


def test_whoever_reads_no_answer_gets_no_further_stream(serve: Serve, images: Bundle) -> None:
    with serve() as daemon:
        line = opened(daemon.path, images)[0]
        before = len(os.listdir(f"/proc/{daemon.process.pid}/fd"))
        with pytest.raises((Closed, TimeoutError)):
            for _ in range(2000):
                ask(line, images)
        assert len(os.listdir(f"/proc/{daemon.process.pid}/fd")) < before + 50
        line.close()
        eventually(lambda: not daemon.snapshot().streams)
