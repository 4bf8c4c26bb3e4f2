"""Indices become batches: the histories are those that Keras makes."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from loaderd_client.places import Places


def a_pass(places: Places, batches: int, announced: bool = True) -> list[tuple[int, int]]:
    """What ``fit(shuffle=True)`` does in one pass."""
    if announced:
        places.begin_pass()
    indices = random.sample(range(batches), batches)
    return [places.touch(index).place for index in indices]


def whole_epoch(epoch: int, batches: int) -> list[tuple[int, int]]:
    return [(epoch, position) for position in range(batches)]


@given(
    batches=st.integers(1, 12), shuffle=st.booleans(), probes=st.integers(0, 5), ends=st.integers()
)
def test_probes_and_calls_of_on_epoch_end_lose_and_double_nothing(
    batches: int, shuffle: bool, probes: int, ends: int
) -> None:
    places = Places(batches, shuffle)
    places.begin_pass()
    for index in range(min(probes, batches - 1)):
        places.touch(index)
    for epoch in range(3):
        places.end_epoch()
        if ends & (1 << epoch):
            places.end_epoch()
        assert sorted(a_pass(places, batches)) == whole_epoch(epoch, batches)


def test_an_index_keeps_its_batch_for_the_whole_epoch() -> None:
    places = Places(9, shuffle=True)
    probed = places.touch(5).place
    others = [places.touch(index).place for index in (1, 2, 3)]
    assert places.touch(5).place == probed
    assert probed == (0, 0)
    assert others == [(0, 1), (0, 2), (0, 3)]


def test_an_unshuffled_index_is_its_position() -> None:
    places = Places(9, shuffle=False)
    assert [places.touch(index).place for index in (7, 0, 8)] == [(0, 7), (0, 0), (0, 8)]


def test_steps_per_epoch_below_the_length_spreads_a_pass_over_epochs_of_fit() -> None:
    places = Places(6, shuffle=True)
    places.begin_pass()
    first = [places.touch(index).place for index in (4, 2)]
    places.end_epoch()
    second = [places.touch(index).place for index in (0, 5)]
    places.end_epoch()
    third = [places.touch(index).place for index in (1, 3)]
    places.end_epoch()
    assert first + second + third == whole_epoch(0, 6)
    assert sorted(a_pass(places, 6)) == whole_epoch(1, 6)


def test_an_abandoned_pass_is_made_whole_by_the_next() -> None:
    places = Places(6, shuffle=True)
    places.begin_pass()
    for index in (4, 2, 5):
        places.touch(index)
    assert sorted(a_pass(places, 6)) == whole_epoch(0, 6)


def test_loops_by_hand_go_from_epoch_to_epoch() -> None:
    places = Places(4, shuffle=True)
    for epoch in range(3):
        assert sorted(a_pass(places, 4, announced=False)) == whole_epoch(epoch, 4)


def test_loops_by_hand_with_on_epoch_end_do_not_skip_an_epoch() -> None:
    places = Places(4, shuffle=False)
    for epoch in range(3):
        assert sorted(a_pass(places, 4, announced=False)) == whole_epoch(epoch, 4)
        places.end_epoch()


def test_only_the_first_touch_of_a_pass_at_the_first_batch_restarts_the_run() -> None:
    places = Places(5, shuffle=False)
    assert [places.touch(index).restart for index in (0, 1, 2)] == [True, False, False]
    places.begin_pass()
    assert [places.touch(index).restart for index in (0, 1, 2)] == [True, False, False]


def test_num_batches_in_a_loop_by_hand_does_not_freeze_the_epoch() -> None:
    places = Places(4, shuffle=True)
    places.begin_pass()
    for epoch in range(3):
        assert sorted(a_pass(places, 4, announced=False)) == whole_epoch(epoch, 4)


def test_threads_that_read_what_nobody_waits_for_do_not_end_an_epoch() -> None:
    """Keras 2's queue reads ahead in threads, forgets what it read, and begins again."""
    places = Places(3, shuffle=True, ends_told=True)
    for index in (0, 2, 1):
        places.touch(index, alone=False)
    places.end_epoch()
    forgotten = [places.touch(index, alone=False).place for index in (1, 0)]
    places.end_epoch()
    first = places.touch(0, alone=False).place
    places.touch(2, alone=False)  # a thread of the forgotten pass comes late
    rest = [places.touch(index, alone=False).place for index in (1, 2)]
    assert {first, *rest} == {(1, 0), (1, 1), (1, 2)}
    assert {first, rest[0]} == {*forgotten}


def test_a_look_before_the_pass_is_none_of_it() -> None:
    """Keras 2 looks at index 0 in one thread, and reads the pass in another."""
    places = Places(3, shuffle=True, ends_told=True)
    for epoch in range(3):
        look = places.touch(0).place
        read = [places.touch(index, alone=False).place for index in (2, 1, 0)]
        assert read[2] == look
        assert {*read} == {(epoch, 0), (epoch, 1), (epoch, 2)}
        places.end_epoch()


def test_a_loop_by_hand_begins_again_under_every_keras() -> None:
    for ends_told in (False, True):
        places = Places(2, shuffle=True, ends_told=ends_told)
        assert [places.touch(index).place[0] for index in (0, 1, 1, 0, 0, 1)] == [0, 0, 1, 1, 2, 2]


def test_the_last_batch_of_an_epoch_that_was_not_delivered_is_asked_for_again() -> None:
    for shuffle in (False, True):
        places = Places(3, shuffle)
        whole = [places.touch(index).place for index in (0, 1, 2)]
        places.untouch(2, whole[2])
        assert places.touch(2).place == whole[2] == (0, 2)
        assert places.touch(0).place == (1, 0)
        places.untouch(1, whole[1])  # too late: nobody waits for it any more
        assert places.touch(1).place == (1, 1)
