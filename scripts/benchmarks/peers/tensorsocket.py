"""TensorSocket: one producer around PyTorch's ``DataLoader``, whose batches the trainers share.

The producer's loader is that of ``torch_opencv``, with as many workers as CPUs. Variants: ``one``
consumer, or ``two``. Each asks for batches of the loader's size, so that none is divided.
"""

from __future__ import annotations

import multiprocessing
import socket
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

from scripts.benchmarks.peers.protocol import Measure, Source, Task, serve_measure
from scripts.benchmarks.peers.shared_pipes import answer, started

AHEAD = 10  # batches for each consumer: the producer's default


def prepare(task: Task) -> tuple[Measure, dict[str, Any]]:
    """Starts the producer and the consumers."""
    context = multiprocessing.get_context("spawn")
    ports = _free_ports(4)
    # Not a daemon: it has children of its own.
    context.Process(target=_produce, args=(task, ports)).start()
    return started(1 if task.variant == "one" else 2, _train, task, ports)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _produce(task: Task, ports: list[int]) -> None:
    from tensorsocket.producer import TensorProducer

    from scripts.benchmarks.peers import torch_opencv

    loader = torch_opencv.loader(task)
    producer = TensorProducer(
        loader, port=ports[0], ack_port=ports[1], heart_ports=(ports[2], ports[3])
    )
    while True:
        for _ in producer:
            pass


def _train(task: Task, ports: list[int], pipe: Connection) -> None:
    from tensorsocket.consumer import TensorConsumer

    consumer = TensorConsumer(
        port=ports[0],
        ack_port=ports[1],
        heart_ports=(ports[2], ports[3]),
        batch_size=task.batch_size,
    )
    answer(pipe, Source(_images(consumer), ahead=AHEAD))


def _images(consumer: Any) -> Iterator[Any]:
    while True:
        for images, _ in consumer:
            yield images.numpy()


if __name__ == "__main__":
    serve_measure(prepare)
