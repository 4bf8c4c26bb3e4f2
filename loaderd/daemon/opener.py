"""The process that does the slow half of opening a stream, so that the loop never waits.

It lists the directory into a manifest, and, once the supervisor has decided how large
the ring is, reserves the ring's pages. Then it ends. A listing of a million files or a
ring of gigabytes delays no other stream.
"""

from __future__ import annotations

import os
import socket

from loaderd.data.listing import list_samples
from loaderd.errors import LoaderdError
from loaderd.wire import manifest, segment, spec
from loaderd.wire.channel import Channel, Closed
from loaderd.wire.messages import Listed, Reserve, Reserved, refusal


def main(sock: socket.socket, spec_json: bytes) -> None:
    """Lists, then reserves, on the opener's end of the supervisor's socket."""
    line = Channel(sock)
    try:
        _list(line, spec_json)
        _reserve(line)
    except Closed:
        return
    except LoaderdError as error:
        line.send(refusal(error))


def _list(line: Channel, spec_json: bytes) -> None:
    listing = list_samples(spec.decode(spec_json).dataset)
    table = manifest.pack(listing.root, listing.class_names, listing.filenames, listing.labels)
    fd = segment.publish(table)
    line.send(Listed(len(listing.filenames), len(listing.class_names), len(table)), [fd])
    os.close(fd)


def _reserve(line: Channel) -> None:
    message, fds = line.receive_with_fds()
    if isinstance(message, Reserve):
        segment.reserve(fds[0], message.ring_bytes)
        line.send(Reserved())
