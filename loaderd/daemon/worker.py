"""The loop of one worker process: chunks in, finished rows out.

A worker reads chunks from its socket, renders their samples one by one into rows of
the ring, and reports each chunk when its last row is written. It holds nothing that
another worker could not make again, so it may be killed at any time. It ends when the
supervisor's end of the socket closes.
"""

from __future__ import annotations

import gc
import os
import socket

import cv2

from loaderd.daemon.writer import StreamWriter
from loaderd.errors import LoaderdError, RenderError
from loaderd.render.function import explain
from loaderd.wire.channel import Channel, Closed
from loaderd.wire.messages import Attach, Chunk, Detach, Message, Spoilt, Up, fitting

_Streams = dict[int, StreamWriter | LoaderdError]
"""Streams by number; the error is that of a stream which this worker cannot write."""


def _answer(streams: _Streams, chunk: Chunk) -> Message:
    stream = streams[chunk.stream]
    try:
        if isinstance(stream, LoaderdError):
            raise stream
        return stream.write(chunk)
    except LoaderdError as error:
        return Spoilt(type(error).__name__, fitting(str(error)), ticket=chunk.ticket)
    except BaseException as error:  # only a death is a death: all else is told
        return Spoilt(RenderError.__name__, fitting(explain(error)), ticket=chunk.ticket)


def _writer(attach: Attach, fds: list[int]) -> StreamWriter | LoaderdError:
    try:
        return StreamWriter(attach, *fds)
    except LoaderdError as error:
        return error
    except BaseException as error:
        return RenderError(explain(error))


def _obey(line: Channel, streams: _Streams) -> None:
    message, fds = line.receive_with_fds()
    match message:
        case Chunk():
            line.send(_answer(streams, message))
        case Attach():
            streams[message.stream] = _writer(message, fds)
        case Detach():
            streams.pop(message.stream, None)
            gc.collect()  # the user's code may have left cycles that hold a mapping


def main(sock: socket.socket) -> None:
    """Runs a worker on its end of the supervisor's socket, until that closes."""
    cv2.setNumThreads(1)
    line = Channel(sock)
    streams: _Streams = {}
    try:
        line.send(Up(os.getpid()))
        while True:
            _obey(line, streams)
    except Closed:
        return
