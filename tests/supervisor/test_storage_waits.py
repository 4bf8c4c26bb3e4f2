"""Who waits for storage, and what people are told of it."""

from __future__ import annotations

from loaderd.supervisor.storage_waits import TOLD_SECONDS, Stall, Wait, Waits, timeout


def test_a_long_wait_is_told_once_and_its_end_once() -> None:
    stall, wait = Stall(), Wait("/data/a.jpg", 100.0)
    assert stall.update(wait, 100.0 + TOLD_SECONDS - 0.1, 600) == ""
    told = stall.update(wait, 100.0 + TOLD_SECONDS, 600)
    assert told.startswith("storage does not answer: /data/a.jpg (waiting up to 600 s; --io-time")
    assert stall.update(wait, 200.0, 600) == ""
    assert stall.wait == wait
    assert stall.update(None, 201.0, 600) == "storage answers again: /data/a.jpg"
    assert stall.update(None, 202.0, 600) == ""


def test_a_short_wait_is_not_told() -> None:
    stall = Stall()
    assert stall.update(Wait("/data/a.jpg", 100.0), 101.0, 600) == ""
    assert stall.update(None, 102.0, 600) == ""
    assert stall.wait is None


def test_one_wait_after_another_is_one_story() -> None:
    stall = Stall()
    assert stall.update(Wait("/data/a.jpg", 100.0), 110.0, 600)
    assert stall.update(Wait("/data/b.jpg", 110.5), 111.0, 600) == ""
    assert stall.update(Wait("/data/b.jpg", 110.5), 120.0, 600) == ""
    assert stall.wait == Wait("/data/b.jpg", 110.5)


def test_a_stream_waits_as_long_as_the_longest_of_its_workers() -> None:
    waits = Waits()
    waits[1] = 7, Wait("/a", 12.0)
    waits[2] = 7, Wait("/b", 11.0)
    waits[3] = 8, Wait("/c", 10.0)
    assert waits.longest(7) == Wait("/b", 11.0)
    assert waits.longest(9) is None
    assert sorted(waits.workers(7)) == [1, 2]
    del waits[2]
    assert waits.longest(7) == Wait("/a", 12.0)
    assert waits.keys() == {1, 3}


def test_time_in_which_nobody_could_be_heard_is_no_waiting() -> None:
    waits = Waits()
    waits[1] = 7, Wait("/a", 12.0)
    waits.shift(100.0)
    assert waits[1] == (7, Wait("/a", 112.0))


def test_the_error_names_the_path_and_what_to_do() -> None:
    text = str(timeout(Wait("/data/a.jpg", 0.0), 600))
    assert text.startswith("/data/a.jpg: storage did not answer within 600 s")
    assert "--io-timeout (LOADERD_IO_TIMEOUT)" in text
