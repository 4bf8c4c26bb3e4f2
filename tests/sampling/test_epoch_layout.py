"""Batches of an epoch cover its samples once, in order."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from loaderd.errors import InvalidArgument
from loaderd.sampling.epoch_layout import EpochLayout
from loaderd.spec.output import Remainder, Shard


@given(samples=st.integers(0, 2**40), batch_size=st.integers(1, 2**40))
def test_all_batches_are_full_but_the_last(samples: int, batch_size: int) -> None:
    layout = EpochLayout(samples, batch_size)
    assert layout.batches == 0 if samples == 0 else layout.batches >= 1
    if samples:
        assert layout.span(layout.batches - 1)[1] == samples
        assert layout.rows(0) == min(samples, batch_size)


@given(samples=st.integers(0, 500), batch_size=st.integers(1, 60))
def test_the_spans_follow_one_another(samples: int, batch_size: int) -> None:
    layout = EpochLayout(samples, batch_size)
    spans = [layout.span(position) for position in range(layout.batches)]
    assert [row for start, stop in spans for row in range(start, stop)] == [*range(samples)]


@pytest.mark.parametrize("position", [-1, 3, 2**40])
def test_there_is_no_other_position(position: int) -> None:
    with pytest.raises(IndexError, match="of 3"):
        EpochLayout(9, 4).rows(position)


remainders = st.sampled_from(get_args(Remainder))


@st.composite
def shared(draw: st.DrawFn) -> list[EpochLayout]:
    """The layouts of all trainers that share an epoch of which every batch has a row for each."""
    samples, batch_size = draw(st.integers(1, 500)), draw(st.integers(1, 60))
    count, remainder = draw(st.integers(1, 9)), draw(remainders)
    layouts = [
        EpochLayout(samples, batch_size, Shard(index=index, count=count, remainder=remainder))
        for index in range(count)
    ]
    try:
        layouts[0].check_shard()
    except InvalidArgument:
        reject()
    return layouts


@given(shared())
def test_trainers_side_by_side_have_the_batches_of_one_with_the_global_batch_size(
    layouts: list[EpochLayout],
) -> None:
    one = layouts[0]
    alone = EpochLayout(one.samples, one.batch_size * len(layouts))
    for position in range(one.batches):
        spans = [layout.span(position) for layout in layouts]
        rows = [place for start, stop in spans for place in range(start, stop)]
        whole = [*range(*alone.span(position))]
        if len(whole) < alone.batch_size and one.shard and one.shard.remainder == "pad":
            assert rows[: len(whole)] == whole
            assert rows == [*range(whole[0], whole[0] + alone.batch_size)]
        else:
            assert rows == whole


@given(shared())
def test_all_trainers_have_the_same_number_of_batches_and_no_empty_one(
    layouts: list[EpochLayout],
) -> None:
    assert len({layout.batches for layout in layouts}) == 1
    for layout in layouts:
        rows = [layout.rows(position) for position in range(layout.batches)]
        assert all(0 < each <= layout.batch_size for each in rows)
        assert all(each == layout.batch_size for each in rows[:-1])


@given(shared())
def test_short_reads_every_sample_once_drop_leaves_out_less_than_a_batch_and_pad_repeats_less(
    layouts: list[EpochLayout],
) -> None:
    one = layouts[0]
    assert one.shard is not None
    read = sum(one.global_rows(position) for position in range(one.batches))
    size = one.batch_size * len(layouts)
    match one.shard.remainder:
        case "short":
            assert read == one.samples
        case "drop":
            assert 0 <= one.samples - read < size
        case "pad":
            assert 0 <= read - one.samples < size


@given(shared())
def test_the_last_batch_is_spread_as_evenly_as_it_goes(layouts: list[EpochLayout]) -> None:
    rows = [layout.rows(layout.batches - 1) for layout in layouts]
    assert max(rows) - min(rows) <= 1
    assert {layout.is_even for layout in layouts} == {max(rows) == min(rows)}
    assert rows == sorted(rows, reverse=True)


def shard(count: int, remainder: Remainder) -> Shard:
    return Shard(index=count - 1, count=count, remainder=remainder)


def test_a_rest_that_is_too_small_for_all_trainers_says_what_to_do() -> None:
    EpochLayout(67, 8, shard(3, "pad")).check_shard()
    EpochLayout(67, 8, shard(3, "drop")).check_shard()
    EpochLayout(75, 8, shard(3, "short")).check_shard()
    with pytest.raises(InvalidArgument, match=r'2 for 3 trainers.*remainder="drop" or "pad"'):
        EpochLayout(74, 8, shard(3, "short")).check_shard()


def test_an_epoch_of_which_all_is_dropped_says_what_to_do() -> None:
    EpochLayout(24, 8, shard(3, "drop")).check_shard()
    with pytest.raises(InvalidArgument, match=r'none of 23 samples.*24: lower.*or use "pad"'):
        EpochLayout(23, 8, shard(3, "drop")).check_shard()


def test_an_epoch_that_is_smaller_than_a_batch_is_padded_by_all_of_it_again_and_again() -> None:
    assert EpochLayout(3, 5, shard(2, "pad")).span(0) == (5, 10)


@pytest.mark.parametrize(("index", "count"), [(-1, 2), (2, 2), (0, 0), (0, -1), (0, 2**20 + 1)])
def test_there_is_no_such_trainer(index: int, count: int) -> None:
    with pytest.raises(InvalidArgument, match=r"a shard's (index|count) must be between"):
        Shard(index=index, count=count)
