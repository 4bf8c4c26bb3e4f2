"""How long a trainer waits for a daemon that went away."""

from __future__ import annotations

import os
from time import monotonic, sleep

from loaderd.errors import InvalidArgument
from loaderd.ipc.dial import TIMEOUT
from loaderd_client.core import arguments

VARIABLE = "LOADERD_RECONNECT_TIMEOUT"
DEFAULT_SECONDS = 60.0
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0
LEAST_LOOK = 0.5
"""Seconds within which a daemon that is there answers, however little is left."""


def reconnect_timeout(value: float | None) -> float:
    """The seconds that are meant: what was said, else the variable's, else the default.

    Raises:
        InvalidArgument: they are no number, or negative.
    """
    if value is not None:
        return _checked("reconnect_timeout", value)
    said = os.environ.get(VARIABLE)
    return _checked(VARIABLE, _number(said)) if said else DEFAULT_SECONDS


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _checked(name: str, value: float | str) -> float:
    seconds = arguments.number(name, value)
    if seconds < 0:
        raise InvalidArgument(f"`{name}` should be 0 seconds or more. Received: {value!r}")
    return seconds


class Deadline:
    """What is left of it for one batch: begun when its daemon was found gone.

    Args:
        seconds: how long it lasts.

    Attributes:
        seconds: the same.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = monotonic() + seconds
        self._pause = FIRST_PAUSE

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return monotonic() >= self._end

    @property
    def left(self) -> float:
        """Seconds that are left, of which one look may take the least that there are."""
        return max(LEAST_LOOK, min(TIMEOUT, self._end - monotonic()))

    def pause(self) -> None:
        """Sleeps until the next look: longer each time, and never beyond the end."""
        sleep(max(0.0, min(self._pause, self._end - monotonic())))
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
