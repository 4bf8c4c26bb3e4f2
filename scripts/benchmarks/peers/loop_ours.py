"""loaderd in a loop of PyTorch, JAX or NumPy, by ``sequence.torch()`` and the like.

The loop has an environment of its own, without a decoder; the daemon runs in the repository's.
Variants: ``torch``, ``jax`` and ``numpy``.
"""

from __future__ import annotations

import atexit
import contextlib
import sys
from collections.abc import Iterator
from typing import Any

sys.path.insert(0, "client")  # the environment has what the client needs, and not the client

from loaderd_client import Session
from scripts.benchmarks.peers import ours
from scripts.benchmarks.peers.protocol import Source, Task, serve_loop

DAEMON = ".venv/bin/python"

_kept = contextlib.ExitStack()
atexit.register(_kept.close)


def prepare(task: Task) -> None:
    """Starts the daemon, and loads the library."""
    __import__(task.variant)
    Session(_kept.enter_context(ours.daemon(task.workers, DAEMON)))


def make(task: Task) -> Source:
    """The loop over the epochs."""
    sequence = ours.flow(task)
    return Source(_images(getattr(sequence, task.variant)()), ahead=ours.RING)


def _images(epochs: Any) -> Iterator[Any]:
    slots = _shared_memory()
    while True:
        for images, _ in epochs:
            address = _address(images)
            if not any(start <= address < end for start, end in slots):
                slots = _shared_memory()
                assert any(start <= address < end for start, end in slots), "images were copied"
            yield images
            del images  # which would hold the slot while the next one is waited for


def _address(images: Any) -> int:
    if hasattr(images, "data_ptr"):
        return int(images.data_ptr())
    if hasattr(images, "unsafe_buffer_pointer"):
        return int(images.unsafe_buffer_pointer())
    return int(images.ctypes.data)


def _shared_memory() -> list[tuple[int, int]]:
    """The addresses of shared memory that this process has mapped."""
    with open("/proc/self/maps") as lines:
        ranges = [line.split()[0].split("-") for line in lines if line.split()[1].endswith("s")]
    return [(int(start, 16), int(end, 16)) for start, end in ranges]


if __name__ == "__main__":
    serve_loop(prepare, make)
