"""The images that could not be read, noted once for each path; pure."""

from __future__ import annotations

from itertools import islice

from msgspec.structs import replace

from loaderd.ipc.messages import BadList, BadSample

MAX_NOTED = 100_000
"""Images that are noted; those beyond are neither logged nor listed."""

PAGE_BYTES = 60_000
"""Size of the texts in one answer, so that it fits into a packet."""

LONGEST = 4_096
"""Bytes of a path, and characters of a reason, that are kept."""


class BadImages:
    """All bad images since the daemon's start."""

    def __init__(self) -> None:
        self._known: dict[bytes, BadSample] = {}

    def add(
        self,
        path: bytes,
        reason: str,
        directory: str,
        quarantined: bool = False,
        lacking: bool = False,
    ) -> bool:
        """Notes that an image could not be read; returns whether it is new."""
        path = path[-LONGEST:]
        bad = self._known.get(path)
        new = bad is None
        if bad is None:
            if len(self._known) >= MAX_NOTED:
                return False
            bad = BadSample(path, reason[:LONGEST], directory[-LONGEST:], 0, False, lacking)
        times, quarantined = bad.times + (not quarantined), bad.quarantined or quarantined
        self._known[path] = replace(bad, times=times, quarantined=quarantined)
        return new

    @property
    def total(self) -> int:
        """Number of different ones."""
        return len(self._known)

    def page(self, first: int) -> BadList:
        """Those from the ``first`` on, as many as fit into a packet."""
        samples: list[BadSample] = []
        room = PAGE_BYTES
        first = min(max(0, first), self.total)
        for bad in islice(self._known.values(), first, None):
            room -= 4 * len(bad.path) + 4 * len(bad.reason) + 4 * len(bad.directory) + 64
            if samples and room < 0:
                break
            samples.append(bad)
        return BadList(self.total, tuple(samples))
