"""A worker looks at the chunks that come while one is in hand."""

from __future__ import annotations

from loaderd.errors import BadImage
from loaderd.ipc import channel
from loaderd.ipc.channel import Channel
from loaderd.ipc.messages import Chunk
from loaderd.worker.work_queue import WorkQueue


class Fails:
    """A stream that cannot fetch."""

    def __init__(self) -> None:
        self.expected: list[int] = []

    def expect(self, chunk: Chunk) -> None:
        self.expected.append(chunk.ticket)
        raise BadImage("of another stream")


def test_a_stream_that_cannot_fetch_ahead_is_no_fault_of_the_chunk_in_hand() -> None:
    ours, theirs = channel.pair()
    line, supervisor = Channel(ours), Channel(theirs)
    stream = Fails()
    queue = WorkQueue(line, {2: stream})
    queue.begin(Chunk(ticket=1, stream=1, slot=0, epoch=0, position=0, first=0, last=1))
    waiting = [
        Chunk(ticket=ticket, stream=2, slot=0, epoch=0, position=ticket, first=0, last=1)
        for ticket in (2, 3)
    ]
    for chunk in waiting:
        supervisor.send(chunk)
    queue.look(is_usual=True)
    assert stream.expected == [2, 3]
    assert [line.receive(), line.receive()] == waiting  # it meets its error then
    line.close()
    supervisor.close()
