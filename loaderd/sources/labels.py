"""Labels as archives hold them: whole numbers, or names of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

MAX_DIGITS = 9
"""Of a label that is a number."""


def checked(values: Sequence[Any], what: str, row: str = "row") -> list[int | str]:
    """The labels of rows.

    Args:
        values: one for each row.
        what: has them, for messages.
        row: what a row is called.

    Raises:
        ValueError: one is neither a whole number from 0 on nor a name, or there are both.
    """
    found = [_label(value, f"{row} {number}", what) for number, value in enumerate(values)]
    if len({type(one) for one in found}) > 1:
        raise ValueError("some labels are whole numbers and some are names")
    return found


def _label(value: Any, row: str, what: str) -> int | str:
    if isinstance(value, str) and value:
        return value
    if isinstance(value, int) and 0 <= value < 10**MAX_DIGITS:
        return int(value)
    raise ValueError(
        f"{row} has no label: {what} should hold whole numbers from 0 on, or names of classes, "
        f"and not {value!r:.80}; label=None reads none"
    )
