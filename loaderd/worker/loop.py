"""The loop of one worker process.

A worker reads chunks from its socket, renders their samples one by one into rows of
the ring, and reports each chunk when its last row is written. It may be killed at any time, as
another worker can redo its chunks. It exits when the supervisor's end of the socket closes.
"""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import gc
import os
import signal
import socket
from collections import defaultdict

import cv2

from loaderd import memory
from loaderd.child import init
from loaderd.child.storage_watch import StorageWatch
from loaderd.config import Settings
from loaderd.errors import LoaderdError, NoRoom, RenderError
from loaderd.ipc.channel import Channel, Closed
from loaderd.ipc.messages import (
    Attach,
    Attached,
    BatchFailed,
    Chunk,
    Detach,
    Message,
    Quarantine,
    WorkerReady,
    fitting,
)
from loaderd.render.transforms.user_function import explain
from loaderd.render.versions import pils_name
from loaderd.spec import spec
from loaderd.worker.stream_renderer import StreamRenderer
from loaderd.worker.work_queue import WorkQueue

_NO_MEMORY = (
    "a worker has no memory, or no room in its address space, for the stream: raise the "
    "daemon's --worker-memory (LOADERD_WORKER_MEMORY), or its `ulimit -v`"
)


def _to_loaderd_error(error: BaseException) -> LoaderdError:
    """The error for the trainer; without memory, libraries raise errors of any type."""
    if isinstance(error, LoaderdError):
        return error
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return NoRoom(_NO_MEMORY)
    if memory.is_used_up():
        return NoRoom(f"{_NO_MEMORY}: {error!r}")
    return RenderError.of(error, explain(error))


class _WorkerLoop:
    """One worker and its streams by number: an error stands for one that it cannot open."""

    def __init__(self, channel: Channel, settings: Settings) -> None:
        self._channel = channel
        self._streams: dict[int, StreamRenderer | LoaderdError] = {}
        self._queue = WorkQueue(channel, self._streams)
        self._quarantine: dict[str, dict[bytes, str]] = defaultdict(dict)
        self._settings = settings

    def handle(self, message: Message, fds: list[int]) -> None:
        """Does what the supervisor asks for."""
        match message:
            case Chunk() if message.stream not in self._streams:
                # The supervisor withdrew the Attach behind our last chunk, but this chunk was
                # read first. Exit by SIGKILL, so that no sample counts as the cause.
                os.kill(os.getpid(), signal.SIGKILL)
            case Chunk():
                self._channel.send(self._render(message))
            case Attach():
                self._streams[message.stream] = self._renderer(message, fds)
                self._channel.send(Attached(message.stream))
            case Quarantine(key, function, reason):
                self._quarantine[function][key] = reason
            case Detach():
                self._detach(message.stream)

    def _render(self, chunk: Chunk) -> Message:
        stream = self._streams[chunk.stream]
        try:
            if isinstance(stream, LoaderdError):
                raise stream
            return stream.write(chunk)
        except BaseException as error:  # only a killed process counts as a crash
            reported = _to_loaderd_error(error)
            return BatchFailed(type(reported).__name__, fitting(str(reported)), ticket=chunk.ticket)

    def _detach(self, number: int) -> None:
        stream = self._streams.pop(number, None)
        runs_code = isinstance(stream, LoaderdError) or (stream is not None and stream.runs_code)
        del stream
        if runs_code:
            gc.collect()  # the user's code may have left cycles that hold a mapping

    def _renderer(self, attach: Attach, fds: list[int]) -> StreamRenderer | LoaderdError:
        asked = spec.decode(attach.spec)
        function = asked.function
        quarantine = self._quarantine[function.label if function else ""]
        try:
            return StreamRenderer(attach, asked, fds, self._queue, self._settings, quarantine)
        except BaseException as error:
            return _to_loaderd_error(error)


def main(sock: socket.socket, settings: Settings) -> None:
    """Runs a worker on its end of the supervisor's socket, until that closes.

    If a decoder crashes, the stack is written to the daemon's log.
    """
    faulthandler.enable(all_threads=False)
    init.enlarge_signal_stack()
    cv2.setNumThreads(1)
    gc.freeze()  # the libraries' objects are never freed: collections skip them
    channel = Channel(sock)
    watch = StorageWatch(channel, settings.silence)
    watch.start()  # before it is ready: it needs address space
    with contextlib.suppress(Closed):  # noticed again when it is read
        channel.send(WorkerReady(os.getpid(), pils_name()))
    watch.serve(_WorkerLoop(channel, settings).handle)
