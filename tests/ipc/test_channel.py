"""What waits in a channel can be looked at, where the kernel lets one."""

from __future__ import annotations

import socket
from itertools import islice

import pytest

from loaderd.ipc import channel
from loaderd.ipc.channel import Channel
from loaderd.ipc.messages import Message, Progress

MESSAGES: list[Message] = [Progress(1, 2), Progress(3, 4)]


class Refusing(socket.socket):
    """A socket as in a sandbox that knows no SO_PEEK_OFF."""

    def setsockopt(self, *args: object) -> None:
        raise OSError


@pytest.mark.parametrize(("kind", "seen"), [(socket.socket, MESSAGES), (Refusing, [])])
def test_what_waits_is_seen_once_or_not_at_all(
    kind: type[socket.socket], seen: list[Message]
) -> None:
    ours, theirs = channel.pair()
    line, other = Channel(kind(fileno=ours.detach())), Channel(theirs)
    for message in MESSAGES:
        other.send(message)
    assert list(islice(line.unread(), 10)) == seen
    assert list(islice(line.unread(), 10)) == []
    assert [line.receive(), line.receive()] == MESSAGES
    line.close()
    other.close()
