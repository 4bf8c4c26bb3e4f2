"""Faults that are planted on purpose: with any of them, the suite must fail.

A pytest plugin (``-p tests.faults.defects``), and read by the sabotaged daemon too. The
variable PLANTED_DEFECT says which of them it is; without it nothing happens.
"""

from __future__ import annotations

import os
import weakref
from typing import Any

VARIABLE = "PLANTED_DEFECT"


def slot_is_reused_before_its_workers_death_is_confirmed() -> None:
    """A worker that gives no sign of life counts as dead, and is left as it is."""
    from loaderd.supervisor.actions import Death
    from loaderd.supervisor.workers import Workers

    def check(self: Any, worker: Any, now: float) -> None:
        silent = now - worker.heard_at
        if worker.aborted_at is None and silent > worker.max_silence(self._stream_in_hand(worker)):
            worker.aborted_at = now
            self._events.died(worker.id, Death.KILLED, "")

    Workers._check_worker = check  # type: ignore[method-assign]


def attempt_is_not_checked() -> None:
    """Whatever a worker reports counts for the chunk in its hand."""
    from loaderd.supervisor.ledger import Ledger

    def report(self: Any, worker: int, ticket: int) -> Any:
        self.slow.discard(worker)
        return self._held[worker].popleft()

    Ledger.report = report  # type: ignore[method-assign]


def lease_hangs_on_the_array() -> None:
    """A slot is released when the array dies that was handed out, whatever views it has."""
    import numpy as np

    from loaderd_client.core.lease import Ring

    def lease(self: Any, slot: int, rows: int) -> Any:
        whole = np.frombuffer(self._memory, np.uint8)
        arrays = []
        for field, dtype in self._arrays:
            first = slot * self._layout.nbytes + field.offset
            flat = whole[first : first + field.nbytes].view(dtype)
            arrays.append(flat.reshape(field.shape)[:rows])
        weakref.finalize(arrays[0], self._released, slot).atexit = False
        return arrays

    Ring.lease = lease  # type: ignore[method-assign]


def run_leaves_a_gap() -> None:
    """Where a batch is made already, the run leaves out the one after it too."""
    from loaderd.supervisor.cursor import Cursor

    healthy = Cursor.next_place

    def next_place(self: Any, made: Any) -> Any:
        wanted = any(place not in made for place in self.want)
        is_made = not wanted and self.run.next in made
        place = healthy(self, made)
        if is_made and place is not None:
            place = self.run.next
            self.run = self.run.at(self.run.after(place))
        return place

    Cursor.next_place = next_place  # type: ignore[method-assign]


def chunk_is_lost() -> None:
    """What was queued behind the chunk over which a worker died is never done."""
    from loaderd.supervisor.scheduler import Scheduler

    healthy = Scheduler.worker_down

    def worker_down(self: Any, worker: int, death: Any, cause: str = "") -> Any:
        held = self.ledger._held.get(worker, ())
        while len(held) > 1:
            held.pop()
        return healthy(self, worker, death, cause)

    Scheduler.worker_down = worker_down  # type: ignore[method-assign]


DEFECTS = {
    "early": slot_is_reused_before_its_workers_death_is_confirmed,
    "attempt": attempt_is_not_checked,
    "lease": lease_hangs_on_the_array,
    "gap": run_leaves_a_gap,
    "lost": chunk_is_lost,
}


def plant() -> None:
    """Plants what was asked for."""
    name = os.environ.get(VARIABLE)
    if name:
        DEFECTS[name]()


def pytest_configure() -> None:
    """In the process of the tests, which need not find the shortest history that fails."""
    plant()
    if os.environ.get(VARIABLE):
        from hypothesis import Phase, settings

        phases = [Phase.explicit, Phase.generate]
        settings.register_profile(VARIABLE, phases=phases, database=None)
        settings.load_profile(VARIABLE)
