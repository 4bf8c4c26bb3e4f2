"""The loops that ``scripts/bench hand-over`` compares."""

from __future__ import annotations

from typing import NamedTuple

from scripts.benchmarks.workloads import PEERS, TORCH, TORCHVISION, Peer

_CLIENT = ("cloudpickle", "msgspec", "numpy", "psutil", "rich")


class Loop(NamedTuple):
    """One loop.

    Attributes:
        peer: what it takes batches from.
        ours: the loop over loaderd's batches that it is compared with; empty for that itself.
        copies: how often the pixels of a batch are copied on a host's way from finished images to
            the loop.
    """

    peer: Peer
    ours: str
    copies: str


LOOPS = {
    "torch": Loop(
        Peer(
            "loaderd, sequence.torch()",
            "loop_ours",
            variant="torch",
            requires=(TORCH, *_CLIENT),
            shares="loop_torch",
            note="each tensor's address is looked up in shared memory",
        ),
        "",
        "0",
    ),
    "dataloader": Loop(
        Peer(
            "PyTorch DataLoader, torchvision v2",
            "loop_dataloader",
            variant="tensors",
            requires=TORCHVISION,
            shares="torchvision_v2",
            note="workers stack the samples into shared memory (default_collate)",
        ),
        "torch",
        "1",
    ),
    "spdl": Loop(
        Peer(
            "SPDL, threads, PIL",
            "loop_spdl",
            requires=("spdl", TORCH, "numpy", "pillow"),
            note="np.stack of the samples",
        ),
        "torch",
        "1",
    ),
    "jax": Loop(
        Peer(
            "loaderd, sequence.jax()",
            "loop_ours",
            variant="jax",
            requires=("jax", *_CLIENT),
            shares="loop_jax",
            note="each array's address is looked up in shared memory",
        ),
        "",
        "0",
    ),
    "grain": Loop(
        Peer(
            "Grain DataLoader, PIL",
            "loop_grain",
            requires=PEERS["grain-processes"].requires,
            shares="grain_keras",
            note="workers stack the samples into shared memory; then jax.device_put, which copies "
            "where the memory is not aligned for JAX",
        ),
        "jax",
        "1 or 2",
    ),
}
