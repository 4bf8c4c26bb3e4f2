"""How long the subscribers of a shared stream have waited for one of them; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


class Lag:
    """For those of one stream that the others may wait for: how long they have waited.

    One that is as fast as the others costs them nothing, however full the ring is. So it is not the
    time that counts, but what the others have waited meanwhile, as they report it.
    """

    def __init__(self) -> None:
        self._before: dict[int, dict[int, int]] = {}

    def update(self, blocking: Iterable[int], waited_ns: Mapping[int, int]) -> Mapping[int, float]:
        """Seconds that one of the others has waited for each of those that keep the ring full.

        Args:
            blocking: these.
            waited_ns: nanoseconds that each of the others has waited so far, for anything.
        """
        self._before = {one: self._before.get(one, {}) for one in blocking}
        for before in self._before.values():
            for other, waited in waited_ns.items():
                before.setdefault(other, waited)
        return {
            one: max((waited_ns[other] - before[other] for other in waited_ns), default=0) / 1e9
            for one, before in self._before.items()
        }
