"""The loop of one worker process: chunks in, finished rows out.

A worker reads chunks from its socket, renders their samples one by one into rows of
the ring, and reports each chunk when its last row is written. It holds nothing that
another worker could not make again, so it may be killed at any time. It ends when the
supervisor's end of the socket closes.
"""

from __future__ import annotations

import os
import socket
from time import perf_counter_ns

import cv2

from loaderd.data.draws import Draws
from loaderd.data.order import EpochOrder, Ids
from loaderd.errors import LoaderdError
from loaderd.render.pipeline import Renderer
from loaderd.wire import segment
from loaderd.wire.channel import Channel, Closed
from loaderd.wire.layout import SlotArrays, slot_layout, view_slot
from loaderd.wire.manifest import Manifest
from loaderd.wire.messages import LONGEST_TEXT, Attach, Chunk, Detach, Done, Message, Spoilt, Up
from loaderd.wire.spec import LabelMode


class StreamWriter:
    """One stream as a worker knows it: its mappings, order, draws and renderer.

    Args:
        attach: the stream's spec and sizes.
        ring: descriptor of the ring, which is now ours.
        manifest: descriptor of the manifest, which is now ours.
    """

    def __init__(self, attach: Attach, ring: int, manifest: int) -> None:
        table = segment.attach(manifest, attach.manifest_bytes, writable=False)
        self._manifest = Manifest.view(table)
        seed = attach.order.seed or 0
        batch_size = attach.batch.batch_size
        samples = len(self._manifest)
        self._order = EpochOrder(seed, attach.order.shuffle, samples, batch_size)
        self._draws = Draws(attach.pipeline, seed)
        self._renderer = Renderer(attach.pipeline)
        self._label_mode = attach.batch.label_mode
        self._slots = _map_ring(attach, ring)

    def write(self, chunk: Chunk) -> Done:
        """Renders the rows of one chunk.

        Raises:
            BadImage: a file could not be read or decoded; rows may be half written.
        """
        start = perf_counter_ns()
        slot = self._slots[chunk.slot]
        ids = self._order.ids(chunk.epoch, chunk.position)[chunk.first : chunk.last]
        self._write_images(slot, chunk, ids)
        self._write_labels(slot, chunk, ids)
        slot.ids[chunk.first : chunk.last] = ids
        times = self._renderer.take_times()
        return Done(chunk.ticket, len(ids), perf_counter_ns() - start, *times)

    def _write_images(self, slot: SlotArrays, chunk: Chunk, ids: Ids) -> None:
        images, render = slot.images, self._renderer.render
        path, draw, epoch = self._manifest.path, self._draws, chunk.epoch
        for row, sample in enumerate(ids.tolist(), chunk.first):
            render(path(sample), draw(epoch, sample), images[row])

    def _write_labels(self, slot: SlotArrays, chunk: Chunk, ids: Ids) -> None:
        if slot.labels is None:
            return
        rows = slot.labels[chunk.first : chunk.last]
        mode: LabelMode = self._label_mode
        if mode == "input":
            rows[...] = slot.images[chunk.first : chunk.last]
        elif mode == "categorical":
            rows[...] = 0
            rows[range(len(ids)), self._manifest.labels[ids]] = 1
        else:
            rows.reshape(-1)[...] = self._manifest.labels[ids]


def _map_ring(attach: Attach, ring: int) -> list[SlotArrays]:
    memory = memoryview(segment.attach(ring, attach.ring_bytes, writable=True))
    layout = slot_layout(attach.pipeline, attach.batch, attach.classes)
    return [view_slot(memory, layout, slot) for slot in range(attach.slots)]


def _answer(streams: dict[int, StreamWriter], chunk: Chunk) -> Message:
    try:
        return streams[chunk.stream].write(chunk)
    except LoaderdError as error:
        return Spoilt(type(error).__name__, str(error)[:LONGEST_TEXT], ticket=chunk.ticket)


def _obey(line: Channel, streams: dict[int, StreamWriter]) -> None:
    message, fds = line.receive_with_fds()
    match message:
        case Chunk():
            line.send(_answer(streams, message))
        case Attach():
            streams[message.stream] = StreamWriter(message, *fds)
        case Detach():
            streams.pop(message.stream, None)


def main(sock: socket.socket) -> None:
    """Runs a worker on its end of the supervisor's socket, until that closes."""
    cv2.setNumThreads(1)
    line = Channel(sock)
    streams: dict[int, StreamWriter] = {}
    try:
        line.send(Up(os.getpid()))
        while True:
            _obey(line, streams)
    except Closed:
        return
