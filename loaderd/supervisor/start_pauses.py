"""When processes whose start has failed are started again."""

from __future__ import annotations

import time

_PAUSES = (0.05, 0.1, 0.3, 1.0, 3.0)
"""Seconds before the next start, by the number of rounds that failed in a row."""


class StartPauses:
    """Delays starts, the longer the more often they have failed in a row.

    Attributes:
        resume_at: when the next start is due, by the monotonic clock.
    """

    def __init__(self) -> None:
        self.resume_at = 0.0
        self._failed = 0

    def note_failure(self) -> None:
        """A start has failed; those that fail at the same time count once."""
        now = time.monotonic()
        if now >= self.resume_at:
            self._failed += 1
            self.resume_at = now + _PAUSES[min(self._failed, len(_PAUSES)) - 1]

    def note_success(self) -> None:
        """A process is up."""
        self._failed = 0

    @property
    def exhausted(self) -> bool:
        """Whether several tries in a row have failed."""
        return self._failed >= len(_PAUSES)
