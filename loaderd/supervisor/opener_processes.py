"""The processes that open streams: one is kept ready, as to start one takes longer than to open.

Each opens one stream at a time; where several are opened at once, there are as many openers.
"""

from __future__ import annotations

from loaderd.config import Settings
from loaderd.errors import RequestRefused
from loaderd.forkserver import entries
from loaderd.supervisor.children import Child, ForkServer

LARGE = 2**23
"""Bytes of a manifest. An opener that made a larger one has taken much memory, and is ended."""


class Openers:
    """Starts openers, and keeps one that is idle.

    Args:
        settings: the daemon's.
        forks: where they come from.
    """

    def __init__(self, settings: Settings, forks: ForkServer) -> None:
        self._settings = settings
        self._forks = forks
        self._idle: Child | None = None

    def adopt(self, settings: Settings) -> None:
        """Those that are taken from now on have these settings."""
        self._settings = settings
        self.stop()

    def take(self) -> Child:
        """An opener that does nothing yet; ``give_back`` or ``discard`` must follow.

        Raises:
            OSError: there is none, and none can be started.
        """
        idle, self._idle = self._idle, None
        if idle is not None:
            if not idle.hung_up:
                return idle
            idle.close()  # somebody has killed it
        return self._forks.spawn(entries.open_datasets, self._settings)

    def give_back(self, opener: Child, manifest_bytes: int) -> None:
        """Keeps an idle opener, unless another is kept or its last manifest was large."""
        if self._idle is None and manifest_bytes < LARGE:
            self._idle = opener
        else:
            self.discard(opener)

    def discard(self, opener: Child) -> None:
        """Ends an opener, whatever it does: a read may hold it for a while yet."""
        opener.kill()
        opener.close()

    def died(self, opener: Child) -> RequestRefused:
        """Why an opener hung up in its work, for whom it worked."""
        self._forks.catch_up()
        if opener.trouble:
            return RequestRefused(f"the daemon could not do it: {opener.trouble}")
        return RequestRefused("the process that lists the dataset died; try again")

    def stop(self) -> None:
        """Ends the one that is idle."""
        if self._idle is not None:
            self.discard(self._idle)
        self._idle = None
