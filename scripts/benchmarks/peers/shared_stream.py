"""loaderd: trainers of one dataset, by one shared stream or by streams of their own.

Variants: ``one`` trainer alone, ``two`` that share a stream, ``apart``: two that do not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

from loaderd_client import Session, augment, image_dataset_from_directory
from scripts.benchmarks.peers import ours
from scripts.benchmarks.peers.protocol import Measure, Source, Task, serve_measure
from scripts.benchmarks.peers.shared_pipes import answer, started

_kept = contextlib.ExitStack()


def prepare(task: Task) -> tuple[Measure, dict[str, Any]]:
    """Starts daemon and trainers, which have all opened before one of them reads."""
    path = _kept.enter_context(ours.daemon(task.workers))
    return started(1 if task.variant == "one" else 2, _train, path, task)


def _train(path: str, task: Task, pipe: Connection) -> None:
    with Session(path):
        share = None if task.variant == "apart" else "bench"
        source = Source(_images(_dataset(task, share)), ahead=ours.RING)
        answer(pipe, source)


def _dataset(task: Task, share: str | None) -> Any:
    return image_dataset_from_directory(
        task.directory,
        image_size=task.size,
        batch_size=task.batch_size,
        seed=0,
        verbose=False,
        share=share,
        augment=[
            augment.RandomRotation(20 / 360, fill_mode="nearest"),
            augment.RandomTranslation(0.2, 0.2, fill_mode="nearest"),
            augment.RandomZoom(0.2, 0.2, fill_mode="nearest"),
            augment.RandomShear(0.2, fill_mode="nearest"),
            augment.RandomFlip("horizontal"),
            augment.Rescaling(1 / 255),
        ],
    )


def _images(sequence: Any) -> Iterator[Any]:
    while True:
        for images, _ in sequence:
            yield images


if __name__ == "__main__":
    with _kept:
        serve_measure(prepare)
