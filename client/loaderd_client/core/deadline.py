"""The time for which a trainer waits for a daemon that went away."""

from __future__ import annotations

import contextlib
import os
from time import monotonic, sleep

from loaderd.errors import InvalidArgument
from loaderd.ipc.dial import TIMEOUT
from loaderd_client.core import arguments

VARIABLE = "LOADERD_RECONNECT_TIMEOUT"
DEFAULT_SECONDS = 60.0
FIRST_PAUSE = 0.05
MAX_PAUSE = 1.0
MIN_TIMEOUT = 0.5
"""Seconds allowed for one connection attempt, however little time is left."""


def reconnect_timeout(value: float | None) -> float:
    """The timeout in seconds: the argument, else the environment variable, else the default.

    Raises:
        InvalidArgument: it is no number, or negative.
    """
    name = "reconnect_timeout"
    found: float | str | None = value
    if found is None:
        name, found = VARIABLE, os.environ.get(VARIABLE) or DEFAULT_SECONDS
        with contextlib.suppress(ValueError):  # what is no number is named below
            found = float(found)
    seconds = arguments.number(name, found)
    if seconds < 0:
        raise InvalidArgument(f"`{name}` should be 0 seconds or more. Received: {found!r}")
    return seconds


class Deadline:
    """The deadline of one batch, ``seconds`` after its daemon was found gone."""

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
        """The timeout of one connection attempt in seconds, at least ``MIN_TIMEOUT``."""
        return max(MIN_TIMEOUT, min(TIMEOUT, self._end - monotonic()))

    def pause(self) -> None:
        """Sleeps before the next attempt: longer each time, and never beyond the deadline."""
        sleep(max(0.0, min(self._pause, self._end - monotonic())))
        self._pause = min(2 * self._pause, MAX_PAUSE)
