"""Batches of an epoch cover its samples once, in order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loaderd.sampling.epoch_layout import EpochLayout


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
