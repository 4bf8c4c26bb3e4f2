"""In which order a worker loads the images of a chunk."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from loaderd import config
from loaderd.ipc import channel, manifest
from loaderd.ipc.channel import Channel
from loaderd.ipc.messages import Attach, Chunk
from loaderd.ipc.slot_layout import slot_layout
from loaderd.sources.files import FileSource
from loaderd.spec.output import Batching, Order
from loaderd.spec.source import Directory
from loaderd.spec.spec import Spec
from loaderd.worker.images import CachedImages, DecodedImages
from loaderd.worker.stream_renderer import StreamRenderer
from loaderd.worker.work_queue import WorkQueue
from tests.support.specs import stages

NAMES = [b"cat/000.jpg", b"cat/001.jpg", b"cat/002.jpg"]


def memory(content: bytes) -> int:
    fd = os.memfd_create("test")
    os.ftruncate(fd, len(content))
    os.pwrite(fd, content, 0)
    return fd


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The samples that are read, whose images are in such an order as cached ones."""
    found: list[int] = []
    healthy = FileSource.read

    def read(self: FileSource, sample: int) -> memoryview:
        found.append(sample)
        return healthy(self, sample)

    monkeypatch.setattr(FileSource, "read", read)
    monkeypatch.setattr(DecodedImages, "order", CachedImages.order)
    return found


@pytest.fixture
def renderer(photos: Path) -> StreamRenderer:
    """Of a stream of three photos in one batch."""
    spec = Spec(
        source=Directory(directory=str(photos), extensions=(".jpg",)),
        **stages(target_size=(8, 8)),
        batch=Batching(batch_size=len(NAMES), label_mode="none"),
        order=Order(shuffle=False, seed=1),
    )
    table = manifest.pack(str(photos), ["cat"], NAMES, np.zeros(len(NAMES), np.int32))
    ring = bytes(slot_layout(spec, classes=1).nbytes)
    attach = Attach(1, b"", 1, 1, len(ring), len(table), (), False)
    ours, theirs = channel.pair()
    theirs.close()
    settings = config.load({}, {})
    queue = WorkQueue(Channel(ours), {})
    return StreamRenderer(attach, spec, [memory(ring), memory(table)], queue, settings, {})


def chunk(ticket: int) -> Chunk:
    return Chunk(ticket, 1, slot=0, epoch=0, position=0, first=0, last=len(NAMES))


def test_every_other_chunk_is_loaded_backwards(renderer: StreamRenderer, reads: list[int]) -> None:
    renderer.write(chunk(ticket=2))
    renderer.write(chunk(ticket=3))
    assert reads == [0, 1, 2, 2, 1, 0]


def test_where_code_of_the_users_runs_the_rows_keep_their_order(
    renderer: StreamRenderer, reads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StreamRenderer, "runs_code", True)
    renderer.write(chunk(ticket=3))
    assert reads == [0, 1, 2]
