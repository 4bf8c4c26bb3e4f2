"""How long the subscribers of a shared stream have waited for one of them; pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping


class Lag:
    """For those of one stream that the others may wait for: how long they have waited.

    One that is as fast as the others costs them nothing, however full the ring is. So it is not the
    time that counts, but what the others have waited meanwhile, as they report it. One that has
    joined for a later batch waits for those who read until then, and only for one that does not.
    """

    def __init__(self) -> None:
        self._before: dict[int, dict[int, int]] = {}
        self._read: Mapping[int, int] = {}

    def update(
        self,
        blocking: Mapping[int, int],
        waited_ns: Mapping[int, int],
        early: Collection[int] = (),
    ) -> Mapping[int, float]:
        """Seconds that one of the others has waited for each of those that keep the ring full.

        Args:
            blocking: these, with the batches that each has read so far.
            waited_ns: nanoseconds that each of the others has waited so far, for anything.
            early: those of the others whose first batch is not begun.
        """
        self._before = {one: self._before.get(one, {}) for one in blocking}
        for one, before in self._before.items():
            if blocking[one] != self._read.get(one):
                for other in early:
                    before.pop(other, None)
            for other, waited in waited_ns.items():
                before.setdefault(other, waited)
        self._read = blocking
        return {
            one: max((waited_ns[other] - before[other] for other in waited_ns), default=0) / 1e9
            for one, before in self._before.items()
        }
