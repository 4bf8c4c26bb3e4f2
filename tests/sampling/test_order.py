"""An epoch's order is a pure function of (seed, epoch)."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2, chisquare

from loaderd.errors import InvalidArgument
from loaderd.sampling.order import EpochOrder, batch_order
from loaderd.sampling.weights import checked
from loaderd.spec.output import Order, Shard

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
    assert batch_order(11, 0, 8).tolist() == [1, 7, 3, 2, 0, 5, 6, 4]
    assert batch_order(11, 1, 8).tolist() == [6, 4, 0, 5, 3, 2, 7, 1]


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


# -- samples drawn by weights, and repeated ----------------------------------------------


def weighted(weights: list[float], seed: int = 1, repeats: int = 1) -> EpochOrder:
    order = Order(seed=seed, weighted=True, repeats=repeats)
    return EpochOrder(order, len(weights), 7, weights=checked(np.array(weights)))


@given(
    seeds,
    st.integers(0, 3),
    st.lists(st.floats(0, 10), min_size=1, max_size=60).filter(lambda some: max(some) > 0.001),
)
def test_a_weighted_sample_comes_as_often_as_its_share_says_rounded_down_or_up(
    seed: int, epoch: int, weights: list[float]
) -> None:
    order = weighted(weights, seed)
    assert order.samples == len(weights)
    counts = np.bincount(epoch_ids(order, epoch), minlength=len(weights))
    shares = np.array(weights) / sum(weights) * len(weights)
    assert (np.abs(counts - shares) < 1 + 1e-9).all()
    assert not counts[np.array(weights) == 0].any()


def test_weights_are_the_mean_frequencies_of_many_epochs() -> None:
    weights = np.random.default_rng(0).uniform(0, 3, 40)
    order, epochs = weighted(weights.tolist()), 2000
    shares = weights / weights.sum() * len(weights)
    counts = sum(np.bincount(order.epoch(epoch), minlength=40) for epoch in range(epochs))
    part = shares % 1  # the probability of once more than the share rounded down
    z = (counts - epochs * shares) / np.sqrt(epochs * part * (1 - part))
    assert chi2.sf((z**2).sum(), df=39) > 0.01
    assert chi2.cdf((z**2).sum(), df=39) > 0.01


def test_drawn_samples_come_in_any_order() -> None:
    order, epochs = weighted([3.0] * 4 + [1.0] * 12), 4000
    heavy = np.stack([order.epoch(epoch) for epoch in range(epochs)]) < 4  # type: ignore[operator]
    assert chisquare(heavy.sum(axis=0)).pvalue > 0.01


def test_equal_weights_give_every_sample_once() -> None:
    assert sorted(epoch_ids(weighted([0.3] * 30), 2)) == list(range(30))


def test_a_single_weight_takes_the_whole_epoch() -> None:
    assert epoch_ids(weighted([0, 0, 5e-324, 0]), 0) == [2] * 4


def test_the_weighted_order_of_a_seed_never_changes_between_releases() -> None:
    assert epoch_ids(weighted([1, 1, 1, 1, 5, 1, 1, 0, 9, 2], 1234), 5) == [
        8,
        6,
        8,
        8,
        8,
        9,
        4,
        0,
        8,
        4,
    ]
    weights = np.random.default_rng(0).uniform(0, 1, 10_000).tolist()
    ids = np.array(epoch_ids(weighted(weights, 2**63 - 1), 0), "<i8")
    assert hashlib.sha256(ids.tobytes()).hexdigest()[:16] == "2ca28801d073ba22"


@given(seeds, st.integers(1, 50), st.integers(1, 9), st.integers(0, 3))
def test_repeats_are_the_first_samples_of_the_order_n_times_each(
    seed: int, samples: int, n: int, epoch: int
) -> None:
    plain = EpochOrder(Order(seed=seed), samples, 7)
    repeated = EpochOrder(Order(seed=seed, repeats=n), samples, 7)
    expected = [one for one in epoch_ids(plain, epoch) for _ in range(n)][:samples]
    assert epoch_ids(repeated, epoch) == expected


def occurrences(order: EpochOrder, epoch: int) -> list[int]:
    return [int(one) for p in range(order.batches) for one in order.occurrences(epoch, p)]


@given(seeds, st.integers(1, 4), st.lists(st.integers(1, 9), min_size=1, max_size=50))
def test_an_occurrence_counts_how_often_its_sample_came_before(
    seed: int, repeats: int, weights: list[float]
) -> None:
    order = weighted(weights, seed, repeats)
    for epoch in (0, 3):
        ids = epoch_ids(order, epoch)
        expected = [ids[:at].count(sample) for at, sample in enumerate(ids)]
        assert occurrences(order, epoch) == expected


def test_where_samples_come_once_there_are_no_occurrences_to_count() -> None:
    order = _order(1, True, 10, 4)
    assert occurrences(order, 1) == [0] * 10
    assert not order._occurrences
    given = EpochOrder(Order(shuffle=False, given=True), 5, 4, np.array([3, 3, 0, 3, 0]))
    assert occurrences(given, 1) == [0, 1, 0, 2, 1]


@pytest.mark.parametrize("how", [{"weighted": True}, {"class_weights": "balanced"}, {"repeats": 2}])
@pytest.mark.parametrize(
    "against", [{"shuffle": False}, {"draws": "batch"}, {"count": 5}, {"given": True}]
)
def test_weights_and_repeats_need_shuffled_epochs_and_draws_for_each_sample(
    how: dict[str, Any], against: dict[str, Any]
) -> None:
    with pytest.raises(InvalidArgument, match=r"needs (shuffle=True|whole epochs)"):
        Order(**how, **against)
    with pytest.raises(InvalidArgument, match="at least once"):
        Order(repeats=0)


@pytest.mark.parametrize("how", [{}, {"repeats": 2}, {"weights": True}, {"shuffle": False}])
def test_a_padded_epoch_goes_on_with_its_first_samples_as_further_occurrences(
    how: dict[str, Any],
) -> None:
    how = dict(how)
    weights = checked(np.arange(1.0, 12)) if how.pop("weights", False) else None
    for index in range(3):
        shard = Shard(index=index, count=3, remainder="pad")
        order = EpochOrder(
            Order(seed=5, shard=shard, weighted=weights is not None, **how), 11, 9, weights=weights
        )
        whole = order.epoch(2).tolist() * 3
        part = slice(9 * index, 9 * index + 9)
        assert order.ids(2, 0).tolist() == whole[part]
        expected = [whole[:at].count(sample) for at, sample in enumerate(whole)]
        assert order.occurrences(2, 0).tolist() == expected[part]
        assert order.occurrences(2, 0, range(27)).tolist() == expected[:27]


def test_batches_have_the_numbers_of_one_trainers_also_where_the_last_is_dropped() -> None:
    alone = EpochOrder(Order(seed=1), 11, 4)
    dropped = EpochOrder(Order(seed=1, shard=Shard(index=1, count=2, remainder="drop")), 11, 2)
    assert (alone.batches, dropped.batches) == (3, 2)
    assert dropped.number(5, 1) == alone.number(5, 1) == 16


def test_a_shard_has_no_place_in_the_order_that_keras_draws() -> None:
    with pytest.raises(InvalidArgument, match="a shard needs draws for each sample"):
        Order(draws="batch", shard=Shard(index=0, count=1))
