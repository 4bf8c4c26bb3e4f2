"""What every worker reports alike, such as a full disk, is logged once."""

from __future__ import annotations

import logging


class OnceLog:
    """Logs each text once.

    Args:
        log: where to.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._told: set[str] = set()

    def __call__(self, level: int, text: str) -> None:
        """Logs a text, unless it was logged before."""
        if text not in self._told:
            self._told.add(text)
            self._log.log(level, "%s", text)
