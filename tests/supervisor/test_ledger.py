"""Who holds which chunk."""

from __future__ import annotations

import pytest

from loaderd.errors import ProtocolError
from loaderd.ipc.messages import Chunk
from loaderd.supervisor.ledger import Ledger
from loaderd.supervisor.scheduled_stream import Part, PartialBatch


def part(first: int = 0) -> Part:
    return Part(PartialBatch(slot=2, place=(5, 6), rows=8, uncut=2), first, first + 4)


def a_ledger(*workers: int) -> Ledger:
    ledger = Ledger()
    for worker in workers:
        ledger.add(worker)
    return ledger


def chunks_of(ledger: Ledger, worker: int) -> list[Chunk]:
    return [one.chunk for one in ledger.held(worker)]


def test_a_chunk_names_its_rows_and_no_ticket_comes_twice() -> None:
    ledger = a_ledger(1, 2)
    chunks = [
        ledger.assign(1, 7, part()),
        ledger.assign(2, 7, part(4)),
        ledger.assign(1, 8, part()),
    ]
    assert [chunk.ticket for chunk in chunks] == [1, 2, 3]
    second = chunks[1]
    place = (second.slot, second.epoch, second.position)
    assert (second.stream, place, second.first, second.last) == (7, (2, 5, 6), 4, 8)
    assert chunks_of(ledger, 1) == [chunks[0], chunks[2]]
    assert chunks_of(ledger, 99) == []


def test_only_the_chunk_in_hand_may_be_reported_and_once() -> None:
    ledger = a_ledger(1, 2)
    first, second = ledger.assign(1, 7, part()), ledger.assign(1, 7, part(4))
    ledger.slow.add(1)
    for worker, ticket in ((1, second.ticket), (2, first.ticket), (1, 99)):
        with pytest.raises(ProtocolError, match="does not hold"):
            ledger.report(worker, ticket)
    assert (chunks_of(ledger, 1), ledger.slow) == ([first, second], {1})
    assert ledger.report(1, first.ticket).chunk is first
    assert (chunks_of(ledger, 1), ledger.slow) == ([second], set())
    with pytest.raises(ProtocolError):
        ledger.report(1, first.ticket)


def test_what_is_recalled_is_not_held_and_the_rest_keeps_its_order() -> None:
    ledger = a_ledger(1)
    first, second, third = (ledger.assign(1, 7, part()) for _ in range(3))
    assert [one.chunk for one in ledger.recall(1, {second.ticket, 99})] == [second]
    assert chunks_of(ledger, 1) == [first, third]


def test_who_has_room_holds_less_and_is_neither_retired_nor_slow() -> None:
    ledger = a_ledger(1, 2, 3, 4)
    ledger.assign(2, 7, part())
    ledger.retired.add(3)
    ledger.slow.add(4)
    assert list(ledger.with_room(1)) == [1]
    assert list(ledger.with_room(2)) == [1, 2]


def test_nothing_is_left_of_a_worker_that_is_removed() -> None:
    ledger = a_ledger(1)
    chunk = ledger.assign(1, 7, part())
    ledger.retired.add(1)
    ledger.slow.add(1)
    assert ledger.is_out(7)
    assert [one.chunk for one in ledger.remove(1)] == [chunk]
    assert not ledger.is_out(7)
    assert (len(ledger), ledger.retired, ledger.slow) == (0, set(), set())
    assert not ledger.remove(1)
