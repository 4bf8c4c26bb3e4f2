"""Performs the scheduler's actions."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from loaderd.errors import STORAGE_ERRORS, LoaderdError, from_wire
from loaderd.ipc.messages import BatchFailed, Ready, fitting
from loaderd.ipc.text import readable
from loaderd.supervisor.actions import Action, Assign, Deliver, Dismiss, Fail, Failure, Isolate
from loaderd.supervisor.bad_images import BadImages
from loaderd.supervisor.clients import ClientConnection
from loaderd.supervisor.stream_opener import StreamOpener
from loaderd.supervisor.workers import Workers

log = logging.getLogger("loaderd")


class Performer:
    """Tells workers and clients what the scheduler has decided.

    Args:
        bad: notes samples that are isolated.

    Attributes:
        workers: who is told; set before the first action, as their events cause actions.
        streams: whose subscribers are told; the same.
    """

    workers: Workers
    streams: StreamOpener

    def __init__(self, bad: BadImages) -> None:
        self._bad = bad

    def perform(self, actions: Iterable[Action]) -> None:
        """Performs actions, in their order."""
        streams, subscribers = self.streams.streams, self.streams.subscribers
        failed: dict[ClientConnection, LoaderdError] = {}
        for action in actions:
            match action:
                case Assign():
                    self.workers.assign(action, streams[action.chunk.stream])
                case Deliver(subscriber, slot, place, attempt, skipped):
                    subscribers[subscriber].client.send(Ready(slot, *place, attempt, skipped))
                case Fail(subscriber, error=Failure(kind, text)) if kind in STORAGE_ERRORS:
                    failed[subscribers[subscriber].client] = from_wire(kind, text)
                case Fail():
                    self._fail_batch(action)
                case Isolate():
                    self._isolate(action)
                case Dismiss(worker):
                    self.workers.dismiss(worker)
        for client, error in failed.items():  # last, as it closes streams
            client.fail(error)

    def _isolate(self, action: Isolate) -> None:
        """Tells all workers that a sample is bad, before it is given away again."""
        stream = self.streams.streams[action.stream]
        path, isolated = stream.quarantine(action.place, action.row, action.cause)
        self._bad.add(path, isolated.reason, stream.folder, quarantined=True)
        log.error("quarantined %s: %s", readable(path), isolated.reason)
        self.workers.quarantine(isolated)

    def _fail_batch(self, action: Fail) -> None:
        subscriber, error = self.streams.subscribers[action.subscriber], action.error
        words = error.text
        if error.kind == "WorkerCrashed":
            words += subscriber.stream.blame(action.place, error.first, error.last)
        subscriber.client.send(BatchFailed(error.kind, fitting(words), action.slot, *action.place))
