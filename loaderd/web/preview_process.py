"""A process of lowest priority that draws the next samples of a stream, and ends.

It is told of the stream over a socket, and writes a PNG, or one line of an error, to its standard
output. It runs the code of the workers, which may crash over an image or take long.
"""

from __future__ import annotations

import dataclasses
import io
import os
import resource
import socket
import sys
from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np

from loaderd import config, memory
from loaderd.child import init
from loaderd.errors import LoaderdError, ProtocolError
from loaderd.ipc.channel import Channel
from loaderd.ipc.messages import Described, Message
from loaderd.ipc.prefetch import Place
from loaderd.ipc.slot_layout import further_name
from loaderd.worker.one_slot import OneSlot
from loaderd_client.core.batch import Batch
from loaderd_client.keras.preview import Overlay, caption, overlay_of, picture_of

COUNT = 16
"""Samples of a picture."""


class _Unheard(Channel):
    """Takes what a worker would tell the supervisor; nobody is interested."""

    def send(self, message: Message, fds: Iterable[int] = ()) -> None:
        """Does nothing."""


def main(control: int, parent: int) -> None:
    """Draws the picture of the stream that the socket tells of.

    Args:
        control: descriptor of the socket.
        parent: the process id of who wants the picture.
    """
    init.die_with_parent(parent)
    init.init_child()
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # the accelerator is the trainer's
    os.nice(19)
    channel = _Unheard(socket.socket(fileno=control))
    message, fds = channel.receive_with_fds()
    if not isinstance(message, Described):
        raise ProtocolError(f"a preview of {type(message).__name__}")
    try:
        picture = _picture(message, fds, channel)
    except LoaderdError as error:
        sys.stdout.write(f"{error}\n")
        raise SystemExit(1) from None
    sys.stdout.buffer.write(picture)


def _picture(message: Described, fds: list[int], channel: Channel) -> bytes:
    settings = config.load({}, os.environ)
    settings = dataclasses.replace(settings, max_pixels=message.max_pixels)
    init.limit(resource.RLIMIT_DATA, memory.taken() + settings.worker_memory)
    one = OneSlot(message.attach, fds, channel, settings)
    spec, names = one.spec, list(one.manifest.class_names)

    def described(batch: Batch, row: int) -> tuple[str, Overlay]:
        shown = ""
        if batch.labels is not None:
            shown = caption(batch.labels[row], spec.batch.label_mode, names)
        return shown, overlay_of(batch, row, spec, names)

    batches = _batches(one, (message.epoch, message.position))
    picture = picture_of(islice(batches, COUNT), COUNT, spec, described)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _batches(one: OneSlot, place: Place) -> Iterator[Batch]:
    """Batches from a place on, over the end of the epoch, without the rows of bad images."""
    epoch, position = place
    while True:
        slot, rows = one.render((epoch, position))
        kept = np.flatnonzero(slot.ids[:rows] >= 0)
        named = {"masks": slot.masks, "boxes": slot.boxes, "box_labels": slot.box_labels}
        named |= {"keypoints": slot.keypoints}
        named |= {further_name(number): array for number, array in enumerate(slot.further)}
        yield Batch(
            slot.images[kept],
            None if slot.labels is None else slot.labels[kept],
            None,
            slot.ids[kept],
            (epoch, position),
            0,
            {name: array[kept] for name, array in named.items() if array is not None},
        )
        position += 1
        if position == one.batches:
            epoch, position = epoch + 1, 0
