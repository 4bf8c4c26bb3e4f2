"""Imported by the forkserver alone: from then on it dies with the supervisor.

It would end by itself when the last copy of a pipe closes, but its children hold copies
too, and one that is stopped would keep it, and itself, for ever.
"""

from __future__ import annotations

from loaderd.daemon import child

child.die_with_parent()
