"""Shows the user how far the indexing of archives is."""

from __future__ import annotations

import sys
from typing import Self

from loaderd.ipc.messages import Indexing

_WIDTH = 20


class IndexingBar:
    """A bar on stderr while archives are indexed, or one line where that is no terminal."""

    def __init__(self) -> None:
        self._width = 0
        self._said = False

    def show(self, state: Indexing) -> None:
        """Draws the bar."""
        file = sys.stderr
        if file is None:  # as of a program without a console
            return
        if file.isatty():
            done = round(_WIDTH * min(1.0, state.share))
            bar = "#" * done + "." * (_WIDTH - done)
            line = f"indexing archives [{bar}] {state.share:.0%}, {state.archives} of {state.total}"
            file.write("\r" + line.ljust(self._width))
            self._width = len(line)
        elif not self._said:
            what = "1 archive, once until it changes"
            if state.total != 1:
                what = f"{state.total} archives, once until they change"
            file.write(f"indexing {what}\n")
        self._said = True
        file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._width:
            sys.stderr.write("\r" + " " * self._width + "\r")
            sys.stderr.flush()
