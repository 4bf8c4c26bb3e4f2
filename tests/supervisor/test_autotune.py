"""The number of workers follows the load, slowly down and at once up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loaderd.supervisor.autotune import CALM_SECONDS, MAX_CALM_SECONDS, Autotune, ReadStream

CALM = ReadStream(waited=0.0, batches=5, filled=9, slots=10)
STARVED = ReadStream(waited=0.2, batches=5, filled=0, slots=10)
LOW = ReadStream(waited=0.0, batches=5, filled=3, slots=10)
UNREAD = ReadStream(waited=0.0, batches=0, filled=10, slots=10)


def after(tune: Autotune, seconds: float, *streams: ReadStream, busy: float = 0.1) -> int:
    for _ in range(round(seconds)):
        tune.update(1.0, streams, busy)
    return tune.count


def test_full_rings_give_up_one_worker_after_the_other() -> None:
    tune = Autotune(4)
    assert after(tune, CALM_SECONDS - 1, CALM) == 4
    assert after(tune, 1, CALM) == 3
    assert after(tune, 10 * CALM_SECONDS, CALM) == 1


def test_those_that_stay_have_room_for_what_is_done() -> None:
    assert after(Autotune(8), 100 * CALM_SECONDS, CALM, busy=1.7) == 3


@pytest.mark.parametrize("stream", [STARVED, LOW])
def test_a_trainer_that_waits_or_will_gets_all_at_once(stream: ReadStream) -> None:
    tune = Autotune(4)
    after(tune, 10 * CALM_SECONDS, CALM)
    assert tune.update(1.0, [CALM, stream], 0.5) == 4


def test_a_number_that_was_too_low_is_tried_again_much_later() -> None:
    tune = Autotune(2)
    changes = 0
    for _ in range(3600):
        before = tune.count
        stream = CALM if before == 2 else STARVED
        changes += tune.update(1.0, [stream], 0.5) != before
    assert changes < 2 * 15  # and not 2 * 3600 / CALM_SECONDS


def test_without_a_reader_nothing_changes() -> None:
    assert after(Autotune(4), 100 * CALM_SECONDS, UNREAD) == 4
    assert after(Autotune(4), 100 * CALM_SECONDS) == 4


@given(
    st.integers(1, 64),
    st.lists(
        st.tuples(st.sampled_from([CALM, STARVED, LOW, UNREAD]), st.floats(0, 64)), max_size=200
    ),
)
def test_there_is_always_one_and_never_more_than_cpus(
    most: int, looks: list[tuple[ReadStream, float]]
) -> None:
    tune = Autotune(most)
    for stream, busy in looks:
        assert 1 <= tune.update(MAX_CALM_SECONDS, [stream], busy) <= most
