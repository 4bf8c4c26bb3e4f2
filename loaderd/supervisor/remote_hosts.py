"""What the workers of each other machine have done, also those that are gone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from loaderd.ipc.messages import Done
from loaderd.ipc.snapshot import RemoteStats
from loaderd.ipc.text import tail
from loaderd.supervisor.worker import Worker

MAX_SHOWN = 64
"""Machines in a snapshot, so that it fits into a packet: those that have done most."""


@dataclass(slots=True)
class _Work:
    """Totals of one machine; times in nanoseconds."""

    up_s: float = 0.0
    """Of workers that are gone, in seconds."""
    chunks: int = 0
    rows: int = 0
    read: int = 0
    decode: int = 0
    resize: int = 0
    augment: int = 0
    busy: int = 0
    held: int = 0
    crossed: int = 0


class RemoteHosts:
    """Counts by machine. All totals only grow."""

    def __init__(self) -> None:
        self._work: dict[str, _Work] = {}

    def count(self, worker: Worker, done: Done) -> None:
        """Adds a chunk that a remote worker has made."""
        work = self._work.setdefault(worker.host, _Work())
        work.chunks += 1
        work.rows += done.rows
        work.read += done.read
        work.decode += done.decode
        work.resize += done.resize
        work.augment += done.augment
        work.busy += done.total
        work.held += done.held
        work.crossed += done.crossed

    def note_end(self, worker: Worker, now: float) -> None:
        """A remote worker is gone."""
        if worker.up_at is not None:
            self._work.setdefault(worker.host, _Work()).up_s += now - worker.up_at

    def stats(self, workers: Iterable[Worker], now: float) -> Iterator[RemoteStats]:
        """For a snapshot.

        Args:
            workers: the remote ones there are now.
            now: the time, on the monotonic clock.
        """
        there = [worker for worker in workers if worker.up_at is not None]
        names = {worker.host: _Work() for worker in there} | self._work
        most = sorted(names, key=lambda name: -names[name].rows)[:MAX_SHOWN]
        for name in most:
            here = [worker for worker in there if worker.host == name]
            yield _stats(name, names[name], here, now)


def _stats(name: str, work: _Work, here: list[Worker], now: float) -> RemoteStats:
    declined = [text for worker in here for text in worker.declined.values()]
    return RemoteStats(
        host=name,
        workers=len(here),
        up_s=work.up_s + sum(now - (worker.up_at or now) for worker in here),
        chunks=work.chunks,
        rows=work.rows,
        read_s=work.read / 1e9,
        decode_s=work.decode / 1e9,
        resize_s=work.resize / 1e9,
        augment_s=work.augment / 1e9,
        busy_s=work.busy / 1e9,
        held_s=work.held / 1e9,
        crossed=work.crossed,
        declined=tail(declined[0]) if declined else "",
    )
