"""loaderd: a daemon of its own, and the generator that stands in for Keras's."""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from loaderd_client import ImageDataGenerator, Session, image_dataset_from_directory
from scripts.benchmarks.peers.protocol import Source, Task, serve
from scripts.benchmarks.recipes import operations

RING = 13
"""Batches that can lie ready: the default ``max_queue_size`` and what a ring has more."""

_kept = contextlib.ExitStack()
atexit.register(_kept.close)


@contextlib.contextmanager
def daemon(workers: int, python: str = sys.executable) -> Iterator[str]:
    """A daemon in our process group, so that it is looked after with us.

    Args:
        workers: how many it has.
        python: the interpreter of its environment.

    Yields:
        Its socket.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "bench.sock")
        ready, told = os.pipe()
        words = [python, "-m", "loaderd", "serve", f"--socket={path}"]
        flags = [f"--workers={workers}", f"--ready-fd={told}"]
        process = subprocess.Popen([*words, *flags], pass_fds=[told])
        os.close(told)
        answered = os.read(ready, 1)
        os.close(ready)
        if not answered:
            raise RuntimeError("the daemon did not start")
        try:
            yield path
        finally:
            process.terminate()
            process.wait()


def flow(task: Task, seed: int = 0) -> Any:
    """The iterator that the task asks for, as a user's program would make it."""
    if task.recipe:
        return _dataset(task, seed)
    options: dict[str, Any] = {"interpolation": task.interpolation}
    if task.cached:
        options["cache"] = "memory"
    if task.scaled:
        options["decode"] = "scaled"
    return generator(task).flow_from_directory(
        task.directory,
        target_size=task.size,
        batch_size=task.batch_size,
        class_mode="categorical",
        seed=seed,
        **options,
    )


def _dataset(task: Task, seed: int) -> Any:
    return image_dataset_from_directory(
        task.directory,
        label_mode="categorical",
        batch_size=task.batch_size,
        image_size=task.size,
        seed=seed,
        decode="scaled" if task.scaled else "exact",
        augment=operations(task),
    )


def generator(task: Task) -> ImageDataGenerator:
    """The augmentation that the task asks for."""
    rescale = 1 / 255 if task.is_float else None
    if not task.augment:
        return ImageDataGenerator(rescale=rescale, dtype=task.dtype)
    return ImageDataGenerator(
        rescale=rescale,
        dtype=task.dtype,
        rotation_range=20,
        width_shift_range=0.2,
        height_shift_range=0.2,
        shear_range=0.2,
        zoom_range=0.2,
        horizontal_flip=True,
        fill_mode="nearest",
        precision="fast" if task.variant == "fast" else "exact",
    )


def make(task: Task) -> Source:
    """Opens the stream; the first epoch is over when the images are to be cached."""
    Session(_kept.enter_context(daemon(task.workers)))
    batches = flow(task)
    warm = len(batches) if task.cached else RING
    return Source(_images(batches), ahead=RING, warm=warm)


def _images(batches: Any) -> Iterator[Any]:
    while True:
        yield next(batches)[0]


if __name__ == "__main__":
    serve(make)
