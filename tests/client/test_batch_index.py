"""Indices become batches: the histories are those that Keras and people's programs make."""

from __future__ import annotations

import random
import threading

from hypothesis import given
from hypothesis import strategies as st

from loaderd.ipc.prefetch import ROUND, Place
from loaderd_client.core.guard import Caller
from loaderd_client.keras.batch_index import PassKind, Places
from tests.support.daemons import as_if_ours


def a_pass(places: Places, batches: int, read: int | None = None) -> list[Place]:
    """What ``fit(shuffle=True)`` does in one pass, or in a part of it."""
    key = object()
    places.begin_pass(key)
    indices = random.sample(range(batches), batches)
    return [places.read_pass(key, index) for index in indices[:read]]


def whole_epoch(epoch: int, batches: int) -> list[Place]:
    return [(epoch, position) for position in range(batches)]


def read(places: Places, index: int) -> Place:
    me = Caller()
    place = places.read(index, me)
    places.done(place)
    return place


def take(places: Places) -> Place:
    me = Caller()
    place = places.next(me)
    places.done(place)
    return place


# -- by index --------------------------------------------------------------------------


def test_an_index_is_its_position_whatever_was_asked_for_before() -> None:
    places = Places(9, shuffle=True)
    assert [read(places, index) for index in (7, 0, 8)] == [(0, 7), (0, 0), (0, 8)]


def test_an_index_that_is_read_again_keeps_its_samples_and_is_drawn_anew() -> None:
    places = Places(9, shuffle=True)
    assert [read(places, 3) for _ in range(3)] == [(0, 3), (ROUND, 3), (2 * ROUND, 3)]
    assert read(places, 4) == (0, 4)


def test_on_epoch_end_ends_the_epoch_read_or_not() -> None:
    looked, fresh = Places(4, shuffle=True), Places(4, shuffle=True)
    read(looked, 2)
    for places in (looked, fresh):
        places.end_epoch()
    assert read(looked, 2) == read(fresh, 2) == (1, 2)


def test_an_epoch_that_was_read_ahead_for_nobody_is_read_from_its_beginning() -> None:
    places = Places(4, shuffle=True)
    for _ in range(3):
        read(places, 0)
        places.end_epoch()
    places.begin_again(2)
    assert [read(places, index) for index in (0, 1, 0)] == [(1, 0), (1, 1), (1 + ROUND, 0)]


def test_loops_over_all_indices_without_an_end_stay_in_the_epoch() -> None:
    places = Places(3, shuffle=True)
    for turn in range(3):
        assert [read(places, index) for index in range(3)] == whole_epoch(turn * ROUND, 3)


# -- by next ---------------------------------------------------------------------------


def test_next_goes_from_epoch_to_epoch() -> None:
    places = Places(2, shuffle=True)
    assert [take(places) for _ in range(5)] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]


def test_a_look_at_an_index_takes_nothing_from_next() -> None:
    places = Places(2, shuffle=True)
    assert read(places, 0) == take(places) == (0, 0)
    assert read(places, 1) == take(places) == (0, 1)


def test_next_follows_the_end_of_an_epoch_once() -> None:
    places = Places(3, shuffle=True)
    for epoch in range(3):
        assert [take(places) for _ in range(3)] == whole_epoch(epoch, 3)
        places.end_epoch()


def test_the_end_of_an_epoch_changes_the_order_under_next() -> None:
    places = Places(3, shuffle=True)
    take(places)
    places.end_epoch()
    assert [take(places) for _ in range(3)] == [(1, 1), (1, 2), (2, 0)]


def test_after_a_fit_next_begins_an_epoch() -> None:
    places = Places(3, shuffle=True)
    a_pass(places, 3)
    assert take(places) == (1, 0)


# -- in passes -------------------------------------------------------------------------


@given(
    batches=st.integers(1, 12), shuffle=st.booleans(), looks=st.integers(0, 5), ends=st.integers()
)
def test_looks_and_calls_of_on_epoch_end_lose_and_double_nothing(
    batches: int, shuffle: bool, looks: int, ends: int
) -> None:
    places = Places(batches, shuffle)
    for index in range(min(looks, batches)):
        assert places.peek(index) == (0, index)
    for epoch in range(3):
        places.end_pass()
        if ends & (1 << epoch):
            places.end_pass()
        assert sorted(a_pass(places, batches)) == whole_epoch(epoch, batches)


def test_a_shuffled_pass_gets_its_batches_in_their_order() -> None:
    places = Places(9, shuffle=True)
    assert a_pass(places, 9) == whole_epoch(0, 9)


def test_an_unshuffled_pass_gets_the_batches_of_its_indices() -> None:
    places = Places(9, shuffle=False)
    places.begin_pass("fit")
    assert [places.read_pass("fit", index) for index in (7, 0)] == [(0, 7), (0, 0)]


def test_steps_per_epoch_below_the_length_spreads_a_pass_over_epochs_of_fit() -> None:
    places = Places(6, shuffle=True)
    places.begin_pass("fit")
    spread = []
    for _ in range(3):
        spread += [places.read_pass("fit", index) for index in (4, 2)]
        places.end_pass()
    assert spread == whole_epoch(0, 6)
    assert sorted(a_pass(places, 6)) == whole_epoch(1, 6)


def test_fits_of_a_few_steps_each_have_other_batches() -> None:
    places = Places(6, shuffle=True)
    epochs = []
    for _ in range(3):
        places.end_pass()
        epochs.append({epoch for epoch, _ in a_pass(places, 6, read=2)})
        places.end_pass()
    assert epochs == [{0}, {1}, {2}]


def test_a_pass_that_was_left_begins_again_if_nobody_has_ended_it() -> None:
    places = Places(6, shuffle=True)
    a_pass(places, 6, read=3)
    assert sorted(a_pass(places, 6)) == whole_epoch(0, 6)


def test_a_pass_that_goes_on_beside_the_next_takes_nothing_from_it() -> None:
    places = Places(4, shuffle=True)
    places.begin_pass("old")
    places.read_pass("old", 0)
    places.end_pass()
    places.begin_pass("new")
    first = places.read_pass("new", 3)
    places.read_pass("old", 1)
    rest = [places.read_pass("new", index) for index in range(3)]
    assert [first, *rest] == whole_epoch(1, 4)


def test_loops_of_the_users_begin_an_epoch_each() -> None:
    places = Places(4, shuffle=True)
    epochs = []
    for _ in range(3):
        key = object()
        places.begin_pass(key, PassKind(anew=True))
        epochs.append(places.read_pass(key, 0))
    assert epochs == [(0, 0), (1, 0), (2, 0)]


def test_passes_of_keras_2_that_nothing_announces_may_have_the_same_key() -> None:
    places = Places(3, shuffle=True)
    for epoch in range(3):
        assert [places.read_pass("fit", index) for index in (2, 0, 1)] == whole_epoch(epoch, 3)
        places.end_pass()
    places.read_pass("fit", 0)
    places.end_pass()
    assert places.read_pass("fit", 0) == (4, 0)


# -- calls that are left ---------------------------------------------------------------


def test_what_a_call_has_left_goes_to_the_next_one() -> None:
    places = Places(3, shuffle=True)

    def interrupted() -> Place:
        me = Caller()
        return places.next(me)

    assert interrupted() == interrupted() == (0, 0)
    assert [take(places) for _ in range(2)] == [(0, 0), (0, 1)]
    places.read(1, Caller())
    assert [read(places, 1) for _ in range(2)] == [(0, 1), (ROUND, 1)]


def test_what_a_thread_of_its_own_waits_for_goes_to_nobody_else() -> None:
    places = Places(3, shuffle=True)
    begun, over = threading.Event(), threading.Event()

    def wait() -> None:
        me = Caller()
        places.next(me)
        begun.set()
        over.wait(10)

    other = threading.Thread(target=as_if_ours(wait))
    other.start()
    begun.wait(10)
    assert take(places) == (0, 1)
    over.set()
    other.join()
    assert [take(places) for _ in range(2)] == [(0, 0), (0, 2)]


# -- resumed ---------------------------------------------------------------------------


def test_what_was_delivered_is_what_was_done_with_in_whichever_way_it_was_read() -> None:
    places = Places(4, shuffle=True)
    assert places.delivered == (0, 0)
    for count in range(2):
        place = places.next(Caller())
        assert places.delivered == (0, count)
        places.done(place)
    assert places.delivered == (0, 2)
    pending = a_pass(places, 4, 3)
    for place in pending:
        assert places.delivered == place
        places.done(place)
    assert places.delivered == (1, 3)
    places.end_pass()
    places.begin_pass("next")
    assert places.delivered == (2, 0)
    for index in (3, 1, 1):
        read(places, index)
    assert places.delivered == (2, 2)


@given(st.integers(1, 9), st.data(), st.booleans())
def test_after_a_resume_the_next_batch_is_the_one_at_the_place(
    batches: int, data: st.DataObject, shuffle: bool
) -> None:
    epoch, start = data.draw(st.integers(0, 5)), data.draw(st.integers(0, batches - 1))
    left = whole_epoch(epoch, batches)[start:]

    def resumed() -> Places:
        places = Places(batches, shuffle, seed=3)
        places.next(Caller())
        places.resume((epoch, start))
        assert places.delivered == (epoch, start)
        return places

    by_next = resumed()
    assert [take(by_next) for _ in range(len(left) + 1)] == [*left, (epoch + 1, 0)]
    in_pass = resumed()
    assert in_pass.pass_length == len(left)
    in_pass.begin_pass("one")
    assert [in_pass.read_pass("one", None) for _ in left] == left
    assert in_pass.pass_length == batches
    in_pass.begin_pass("two")
    assert in_pass.read_pass("two", None) == (epoch + 1, 0)
    assert take(in_pass) == (epoch + 2, 0)
    by_index = resumed()
    assert [read(by_index, index) for index in range(batches)] == whole_epoch(epoch, batches)


def test_a_resumed_permuted_pass_reads_what_the_whole_one_would_have_read() -> None:
    whole, resumed = Places(9, False, seed=3), Places(9, False, seed=3)
    for places in (whole, resumed):
        places.resume((2, 0))
    resumed.resume((2, 4))
    for places in (whole, resumed):
        places.begin_pass("fit", PassKind(permuted=True))
    expected = [whole.read_pass("fit", index) for index in range(9)]
    assert sorted(expected) == whole_epoch(2, 9) != expected
    assert [resumed.read_pass("fit", index) for index in range(5)] == expected[4:]


def test_a_trial_uses_nothing_up() -> None:
    places = Places(4, shuffle=True)
    places.resume((1, 2))
    places.begin_pass("trial", PassKind(trial=True))
    places.done(places.read_pass("trial", 0))
    places.end_pass()
    assert places.delivered == (1, 2)
    places.begin_pass("fit")
    assert places.read_pass("fit", 0) == (1, 2)
