"""What a process waits for is noted, and files are closed without waiting."""

from __future__ import annotations

import errno
import os
import timeit

import pytest

from loaderd import storage
from tests.support.daemons import eventually


def test_what_is_asked_is_noted_until_it_is_answered() -> None:
    assert storage.asked() is None
    with pytest.raises(KeyError), storage.asking("/data"):
        asked = storage.asked()
        assert asked is not None
        assert asked[0] == "/data"
        raise KeyError
    assert storage.asked() is None


def test_each_question_has_its_own_time() -> None:
    storage.ask(b"/data/a.jpg")
    first = storage.asked()
    storage.ask(b"/data/a.jpg")
    second = storage.asked()
    storage.answered()
    assert first is not None
    assert second is not None
    assert first[1] < second[1]


def test_a_note_costs_next_to_nothing() -> None:
    """A sample takes a millisecond."""

    def note() -> None:
        storage.ask(b"/data/a.jpg")
        storage.answered()

    assert min(timeit.repeat(note, number=1000, repeat=20)) / 1000 < 3e-6


def test_files_are_closed_by_and_by() -> None:
    ends = os.pipe()
    storage.close(ends)
    eventually(lambda: not any(os.path.exists(f"/proc/self/fd/{end}") for end in ends))


@pytest.mark.parametrize(
    ("error", "gone"),
    [
        (OSError(errno.ENOTCONN, "x"), True),
        (OSError(errno.ESTALE, "x"), True),
        (OSError(errno.EIO, "x"), False),
        (FileNotFoundError(errno.ENOENT, "x"), False),
        (ValueError("not a regular file"), False),
        (None, False),
    ],
)
def test_some_errors_say_nothing_about_a_file(error: Exception | None, gone: bool) -> None:
    assert storage.is_gone(error) is gone
