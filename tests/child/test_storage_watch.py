"""A process tells of storage that does not answer, though its main thread cannot."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from loaderd import storage
from loaderd.child.storage_watch import StorageWatch
from loaderd.ipc import channel
from loaderd.ipc.channel import Channel
from loaderd.ipc.messages import Waiting
from tests.support.daemons import eventually

SILENCE = 0.1


@pytest.fixture
def pair() -> Iterator[tuple[StorageWatch, Channel]]:
    ours, theirs = channel.pair()
    watch = StorageWatch(Channel(theirs), SILENCE)
    watch.start()
    supervisor = Channel(ours)
    supervisor.settimeout(5)
    with ours, theirs:
        yield watch, supervisor
        ours.close()
        watch.begin()  # it finds that nobody listens, and ends
        storage.ask(b"")
        eventually(lambda: not watches())
        storage.answered()


def watches() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "storage-watch"]


def heard(line: Channel) -> Waiting:
    message = line.receive()
    assert isinstance(message, Waiting)
    return message


def test_what_lasts_is_told_until_it_is_over(pair: tuple[StorageWatch, Channel]) -> None:
    watch, supervisor = pair
    watch.begin()
    with storage.asking("/data/ä.jpg"):
        first, second = heard(supervisor), heard(supervisor)
    assert first.path == second.path == "/data/ä.jpg".encode()
    assert SILENCE <= first.seconds < second.seconds
    watch.end()
    while (message := heard(supervisor)).path:
        pass
    assert message == Waiting()


def test_what_is_answered_in_time_is_not_told(pair: tuple[StorageWatch, Channel]) -> None:
    watch, supervisor = pair
    watch.begin()
    end = threading.Event()
    for number in range(30):
        storage.ask(b"/data/%d.jpg" % number)
        end.wait(SILENCE / 10)
    storage.answered()
    with storage.asking(b"/data/last.jpg"):
        assert heard(supervisor).path == b"/data/last.jpg"


def test_where_nothing_is_to_be_done_it_rests(pair: tuple[StorageWatch, Channel]) -> None:
    watch, supervisor = pair
    eventually(lambda: watch._resting)
    with storage.asking(b"/data/a.jpg"):  # not for a chunk
        supervisor.settimeout(5 * SILENCE)
        with pytest.raises(TimeoutError):
            supervisor.receive()
    watch.begin()
    with storage.asking(b"/data/b.jpg"):
        supervisor.settimeout(5)
        assert heard(supervisor).path == b"/data/b.jpg"
