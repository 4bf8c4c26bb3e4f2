"""An epoch's order is a pure function of (seed, epoch)."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loaderd.sampling.order import EpochOrder
from loaderd.spec.output import Order

sizes = st.integers(0, 200)
batch_sizes = st.integers(1, 40)
seeds = st.integers(0, 2**63 - 1)


def _order(seed: int, shuffle: bool, samples: int, batch_size: int) -> EpochOrder:
    return EpochOrder(Order(shuffle=shuffle, seed=seed), samples, batch_size)


def epoch_ids(order: EpochOrder, epoch: int) -> list[int]:
    return [int(i) for p in range(order.batches) for i in order.ids(epoch, p)]


@given(seeds, st.booleans(), sizes, batch_sizes, st.integers(0, 5))
def test_every_sample_comes_exactly_once_per_epoch(
    seed: int, shuffle: bool, samples: int, batch_size: int, epoch: int
) -> None:
    order = _order(seed, shuffle, samples, batch_size)
    assert sorted(epoch_ids(order, epoch)) == list(range(samples))


@given(sizes, batch_sizes)
def test_only_the_last_batch_is_smaller(samples: int, batch_size: int) -> None:
    order = _order(0, True, samples, batch_size)
    rows = [order.layout.rows(position) for position in range(order.batches)]
    assert sum(rows) == samples
    assert all(n == batch_size for n in rows[:-1])
    assert rows == [len(order.ids(0, position)) for position in range(order.batches)]


def test_without_shuffle_position_p_holds_the_pth_slice_in_every_epoch() -> None:
    order = _order(7, False, 10, 4)
    for epoch in (0, 3):
        assert [order.ids(epoch, p).tolist() for p in range(3)] == [
            [0, 1, 2, 3],
            [4, 5, 6, 7],
            [8, 9],
        ]


@given(seeds, st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4)), max_size=30))
def test_the_order_of_asking_does_not_matter(seed: int, asked: list[tuple[int, int]]) -> None:
    asked_before = _order(seed, True, 50, 10)
    for epoch, position in asked:
        fresh = _order(seed, True, 50, 10)
        expected = fresh.ids(epoch, position).tolist()
        assert asked_before.ids(epoch, position).tolist() == expected


def test_seeds_and_epochs_have_orders_of_their_own() -> None:
    orders = {
        tuple(epoch_ids(_order(seed, True, 100, 10), epoch))
        for seed in (0, 1, 2**63 - 1)
        for epoch in (0, 1, 2**31)
    }
    assert len(orders) == 9


def test_the_order_of_a_seed_never_changes_between_releases() -> None:
    """If this fails, every user's order and every resumed stream has changed."""
    assert epoch_ids(_order(1234, True, 10, 4), 5) == [8, 5, 1, 9, 7, 0, 4, 6, 3, 2]
    ids = np.array(epoch_ids(_order(2**63 - 1, True, 10_000, 32), 0), "<i8")
    assert hashlib.sha256(ids.tobytes()).hexdigest()[:16] == "547844aaa44b7548"


def test_only_two_epochs_are_held_in_memory() -> None:
    order = _order(0, True, 100, 10)
    for epoch in range(10):
        order.ids(epoch, 0)
    assert order.ids(8, 0).base is order.ids(8, 1).base  # made once
    assert len(order._epochs) == 2


def test_ids_are_compact_and_cannot_be_changed() -> None:
    ids = _order(0, True, 100, 10).ids(0, 0)
    assert ids.dtype == np.int32
    with pytest.raises(ValueError, match="read-only"):
        ids[0] = 1


@pytest.mark.parametrize("position", [-1, 3])
def test_a_position_outside_the_epoch_is_refused(position: int) -> None:
    order = _order(0, False, 10, 4)
    with pytest.raises(IndexError, match=f"position {position} of 3"):
        order.ids(0, position)
    with pytest.raises(IndexError):
        order.layout.rows(position)
