"""The ways to share a stream that ``scripts/bench share`` compares."""

from __future__ import annotations

from typing import NamedTuple

from scripts.benchmarks.workloads import TORCH, Peer


class Sharer(NamedTuple):
    """Trainers that read the same images.

    Attributes:
        peer: who renders for them, and in which variant.
        alone: the one trainer that they are compared with; empty for that itself.
        least: what they must get together, to one alone; 0 where nothing is asked.
    """

    peer: Peer
    alone: str
    least: float = 0.0


def _ours(title: str, variant: str) -> Peer:
    return Peer(f"loaderd, {title}", "shared_stream", variant=variant)


def _socket(title: str, variant: str) -> Peer:
    return Peer(
        f"TensorSocket, {title}",
        "tensorsocket",
        variant=variant,
        requires=("tensorsocket==0.0.5", TORCH, "opencv-python-headless", "numpy"),
        note="around PyTorch's DataLoader with OpenCV; made for CUDA tensors, which it shares by "
        "handle: a batch in the host's memory is pickled for each consumer",
    )


SHARERS = {
    "one": Sharer(_ours("one trainer", "one"), ""),
    "two": Sharer(_ours("two on one stream", "two"), "one", least=1.9),
    "apart": Sharer(_ours("two with streams of their own", "apart"), "one"),
    "socket-one": Sharer(_socket("one consumer", "one"), ""),
    "socket-two": Sharer(_socket("two consumers", "two"), "socket-one"),
}
