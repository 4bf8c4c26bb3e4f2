"""Values become readable text, and no name can reach the terminal's controls."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from loaderd import formatting
from loaderd.ipc.text import printable

ANY_TEXT = st.text(st.characters())  # surrogates too: a path may hold any byte


@given(ANY_TEXT)
def test_plain_text_can_always_be_shown(name: str) -> None:
    shown = printable(name)
    assert shown.isprintable()
    assert name != shown or name.isprintable()


def test_control_and_direction_characters_are_escaped() -> None:
    assert printable("a\x1b[31m\n\u202eb\udcff é") == r"a\x1b[31m\n\u202eb\udcff é"


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (2**20 - 1, "1.0 MiB"),
        (8 * 2**30, "8.0 GiB"),
        (2**80, "1048576.0 EiB"),
    ],
)
def test_size(count: int, shown: str) -> None:
    assert formatting.size(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0, "0 s"),
        (59.9, "59 s"),
        (61, "1 min 1 s"),
        (3600, "1 h 0 min"),
        (3725, "1 h 2 min"),
        (90000, "1 d 1 h"),
        (-1.0, "?"),
        (math.nan, "?"),
        (math.inf, "?"),
    ],
)
def test_duration(seconds: float, shown: str) -> None:
    assert formatting.duration(seconds) == shown


@pytest.mark.parametrize(
    ("number", "shown"), [(0.0, "0.0"), (15.24, "15.2"), (999.96, "1000"), (1204.4, "1204")]
)
def test_rate(number: float, shown: str) -> None:
    assert formatting.rate(number) == shown


def test_the_end_of_a_path_is_kept() -> None:
    assert formatting.tail("/data/train", 20) == "/data/train"
    assert formatting.tail("/data/photos/train", 7) == "…/train"


@given(ANY_TEXT, st.integers(1, 40))
def test_a_tail_fits(path: str, width: int) -> None:
    assert cell_len(formatting.tail(path, width)) <= width


@given(st.dictionaries(ANY_TEXT, st.floats() | ANY_TEXT | st.lists(st.floats(), max_size=2)))
def test_json_is_one_line_of_ascii_and_valid(table: dict[str, object]) -> None:
    line = formatting.as_json(table)
    assert line.isascii()
    assert line.isprintable()
    assert "\x7f" not in line
    assert json.loads(line, parse_constant=pytest.fail).keys() == table.keys()
