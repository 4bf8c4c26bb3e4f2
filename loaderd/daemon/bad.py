"""The images that could not be read: kept for people, once for each path; pure."""

from __future__ import annotations

from dataclasses import dataclass

from loaderd.wire.messages import BadList, BadSample

MOST = 10_000
"""So many are kept by name; those beyond are only counted."""

PAGE_BYTES = 60_000
"""Texts of one answer, so that it fits into a packet."""

LONGEST = 4_000
"""Characters of a path or a reason that are kept."""


@dataclass(slots=True)
class _Bad:
    """What is known of one path."""

    reason: str
    directory: str
    times: int = 0
    quarantined: bool = False


class BadImages:
    """All of them since the daemon's start.

    Attributes:
        total: how many different ones there were.
    """

    def __init__(self) -> None:
        self.total = 0
        self._known: dict[str, _Bad] = {}

    def add(self, path: str, reason: str, directory: str, quarantined: bool = False) -> bool:
        """Notes that an image could not be read, as people read it; returns whether it is new."""
        path = path[-LONGEST:]
        bad = self._known.get(path)
        new = bad is None
        if bad is None:
            self.total += 1
            bad = _Bad(reason[:LONGEST], directory[-LONGEST:])
            if len(self._known) < MOST:
                self._known[path] = bad
        bad.times += not quarantined
        bad.quarantined |= quarantined
        return new

    def page(self, first: int) -> BadList:
        """Those from the ``first`` on, as many as fit into a packet."""
        samples: list[BadSample] = []
        room = PAGE_BYTES
        for path, bad in list(self._known.items())[max(0, first) :]:
            room -= 4 * len(path) + 4 * len(bad.reason) + 4 * len(bad.directory) + 64
            if samples and room < 0:
                break
            samples.append(BadSample(path, bad.reason, bad.directory, bad.times, bad.quarantined))
        return BadList(self.total, tuple(samples))
