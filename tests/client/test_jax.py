"""Batches as arrays of JAX; runs where it is installed."""

from __future__ import annotations

import gc
import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loaderd.errors import InvalidArgument, InvalidType
from loaderd_client import (
    ImageDataGenerator,
    LoaderSequence,
    Session,
    image_dataset_from_arrays,
    image_dataset_from_directory,
)
from loaderd_client.core.supply import is_ready
from loaderd_client.keras import reader
from tests.support.daemons import Daemon, Serve, eventually, stream_of

jax = pytest.importorskip("jax")

HEAD = """
import sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from loaderd_client import image_dataset_from_directory

def dataset(**more):
    options = {"image_size": (64, 64), "batch_size": 8, "seed": 3, "verbose": False}
    return image_dataset_from_directory(sys.argv[1], **(options | more))

@jax.jit
def step(images, labels):
    return images.mean((1, 2, 3)) + labels
"""


def run(program: str, photos: Path, devices: int = 4) -> None:
    flags = f"--xla_force_host_platform_device_count={devices}"
    done = subprocess.run(
        [sys.executable, "-c", HEAD + "same = dataset().numpy()" + program, str(photos)],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture
def daemon(serve: Serve) -> Iterator[Daemon]:
    with serve(workers=2) as daemon, Session(daemon.path):
        yield daemon


def dataset(photos: Path, **options: Any) -> LoaderSequence:
    known: dict[str, Any] = {"image_size": (64, 64), "batch_size": 8, "seed": 3, "verbose": False}
    found = image_dataset_from_directory(photos, **(known | options))
    assert isinstance(found, LoaderSequence)
    return found


# -- arrays ----------------------------------------------------------------------------


def test_on_the_cpu_arrays_are_the_slots_memory_as_long_as_they_live(
    photos: Path, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots: list[int] = []
    monkeypatch.setattr(
        reader, "new_observer", lambda: lambda batch, *_: slots.append(batch.images.ctypes.data)
    )
    train = dataset(photos)
    ring = stream_of(train)._ring
    assert ring is not None
    images, labels = next(iter(train.jax(prefetch=0)))
    assert images.unsafe_buffer_pointer() == slots[-1]
    del labels
    gc.collect()
    assert ring.ring.is_leased
    del images
    gc.collect()
    assert not ring.ring.is_leased


def test_arrays_that_are_kept_do_not_change(photos: Path, daemon: Daemon) -> None:
    train, same = dataset(photos).jax(), dataset(photos).numpy()
    assert len(train) == 12
    for kept in [[*train], [*train], [*train]]:  # more than the ring has slots
        for (images, labels), (own, classes) in zip(kept, same, strict=True):
            np.testing.assert_array_equal(images, own)
            np.testing.assert_array_equal(labels, classes)
            assert images.dtype == np.float32 and labels.dtype == np.int32


def test_transfers_are_as_many_ahead_as_asked(
    photos: Path, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    monkeypatch.setattr(
        reader, "new_observer", lambda: lambda batch, *_: taken.append(batch.place[1])
    )
    train = dataset(photos)
    batches = iter(train.jax(prefetch=3))
    next(batches)
    seen = [len(taken)]
    eventually(lambda: is_ready(train._supply, (0, 8)))
    for _ in range(2):
        next(batches)
        seen.append(len(taken))
    assert seen == [1, 5, 6]  # the first is not kept waiting


def test_a_state_counts_the_arrays_that_were_handed_out(photos: Path, daemon: Daemon) -> None:
    first, second, whole = (dataset(photos).jax(prefetch=3) for _ in range(3))
    for _ in itertools.islice(first, 5):
        pass
    state = first.state_dict()
    assert (state["epoch"], state["samples"]) == (0, 40)
    second.load_state_dict(state)
    for (images, _), (others, _) in zip(second, list(whole)[5:], strict=True):
        np.testing.assert_array_equal(images, others)


def test_dictionaries_keep_their_shape(daemon: Daemon) -> None:
    def boxed() -> LoaderSequence:
        return image_dataset_from_arrays(
            np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), np.uint8),
            boxes=[[[4, 5, 20, 30]]] * 20,
            box_labels=[[number % 3] for number in range(20)],
            batch_size=8,
            seed=1,
            verbose=False,
        )

    for ours, arrays in zip(boxed().jax(), boxed().numpy(), strict=True):
        assert jax.tree.structure(ours) == jax.tree.structure(arrays)
        for one, array in zip(jax.tree.leaves(ours), jax.tree.leaves(arrays), strict=True):
            assert isinstance(one, jax.Array) and one.dtype == array.dtype
            np.testing.assert_array_equal(one, array)


def test_bfloat16_stays_bfloat16(photos: Path, daemon: Daemon) -> None:
    flow = ImageDataGenerator(dtype="bfloat16").flow_from_directory(photos, target_size=(64, 64))
    assert {one.dtype for one in next(iter(flow.jax()))} == {jax.numpy.bfloat16.dtype}


def test_texts_are_refused(daemon: Daemon) -> None:
    flow = ImageDataGenerator().flow(
        np.zeros((8, 40, 40, 3), np.uint8), np.array(["a", "b"] * 4), batch_size=4
    )
    with pytest.raises(InvalidType, match=r"JAX has no arrays of dtype <U1"):
        next(iter(flow.jax()))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sharding": "cpu"}, "`sharding` should be a jax.sharding.Sharding, a device, or None"),
        ({"prefetch": -1}, "`prefetch` should be 0 or more"),
    ],
)
def test_what_is_wrong_is_said(
    options: dict[str, Any], words: str, photos: Path, daemon: Daemon
) -> None:
    with pytest.raises(InvalidArgument, match=words):
        dataset(photos).jax(**options)


# -- devices ---------------------------------------------------------------------------


def test_a_step_runs_where_it_was_asked_to(photos: Path, daemon: Daemon) -> None:
    program = """
devices = jax.devices()
assert len(devices) == 4
for asked in (None, devices[2], jax.sharding.SingleDeviceSharding(devices[3])):
    found = next(iter(dataset().jax(asked)))
    at = {None: devices[0], devices[2]: devices[2]}.get(asked, devices[3])
    assert step(*found).devices() == {at}, (asked, step(*found).devices())
    np.testing.assert_array_equal(found[0], next(iter(dataset().numpy()))[0])
"""
    run(program, photos)


def test_a_step_over_several_devices_runs_on_all_of_them(photos: Path, daemon: Daemon) -> None:
    program = """
mesh = Mesh(np.array(jax.devices()), ("data",))
sharding = NamedSharding(mesh, PartitionSpec("data"))
for (images, labels), (own, classes) in zip(dataset().jax(sharding), same, strict=True):
    assert images.sharding.is_equivalent_to(sharding, 4)
    assert [shard.data.shape[0] for shard in images.addressable_shards] == [2] * 4
    assert step(images, labels).devices() == set(jax.devices())
    np.testing.assert_array_equal(images, own)
    np.testing.assert_array_equal(labels, classes)
"""
    run(program, photos)


def test_a_batch_that_devices_cannot_share_evenly_is_refused_in_its_turn(
    photos: Path, daemon: Daemon
) -> None:
    program = """
from loaderd.errors import InvalidArgument

sharding = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
train = dataset(batch_size=28, shard=(0, 1), remainder="drop")  # 96 samples: 28 three times, and 12
assert [len(labels) for _, labels in train.jax(sharding)] == [28, 28, 28]
uneven = dataset(batch_size=10)
try:
    next(iter(uneven.jax(sharding)))
    raise SystemExit("it was not refused")
except InvalidArgument as error:
    assert "choose a `batch_size` that it divides" in str(error)
"""
    run(program, photos)


TWO = """
rank, port = int(sys.argv[2]), sys.argv[3]
jax.distributed.initialize(f"localhost:{port}", 2, rank)
same = dataset().numpy()
assert jax.process_count() == 2 and len(jax.devices()) == 4
mesh = Mesh(np.array(jax.devices()), ("data",))
sharding = NamedSharding(mesh, PartitionSpec("data"))
"""


def run_two(program: str, photos: Path) -> None:
    """Runs a program in two processes of two devices each."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    env = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_PLATFORMS": "cpu",
    }
    words = [sys.executable, "-c", HEAD + TWO + program]
    children = [
        subprocess.Popen([*words, str(photos), str(rank), str(port)], env=env, stderr=-1, text=True)
        for rank in range(2)
    ]
    for child in children:
        error = child.communicate(timeout=100)[1]
        assert child.returncode == 0, error[-3000:]


def test_processes_make_one_batch_of_their_parts(photos: Path, daemon: Daemon) -> None:
    program = """
for (images, labels), (own, _) in zip(dataset().jax(sharding), same, strict=True):
    assert images.shape == (16, 64, 64, 3) and labels.shape == (16,)
    parts = [np.asarray(shard.data) for shard in images.addressable_shards]
    np.testing.assert_array_equal(np.concatenate(parts), own)
"""
    run_two(program, photos)


def test_parts_that_differ_in_length_are_refused_before_the_first_batch(
    photos: Path, daemon: Daemon
) -> None:
    """Each process would run a program of its own, and wait for the others for ever."""
    program = """
from loaderd.errors import InvalidArgument
from loaderd_client import image_dataset_from_arrays

pixels = np.random.default_rng(0).integers(0, 256, (19, 64, 64, 3), np.uint8)

def parts(**more):
    options = {"batch_size": 4, "seed": 3, "verbose": False, "shard": (rank, 2)}
    return image_dataset_from_arrays(pixels, np.arange(19), **(options | more))

def refusal(batches):
    try:
        next(iter(batches))
    except InvalidArgument as error:
        return str(error)

assert 'remainder="drop" or "pad"' in refusal(parts().jax(sharding))  # 8, 8, and 2 beside 1
assert 'on_error="skip"' in refusal(dataset(shard=(rank, 2), on_error="skip").jax(sharding))
assert "`batch_size`" in refusal(parts(batch_size=3, remainder="pad").jax(sharding))
replicated = NamedSharding(mesh, PartitionSpec())
assert "divide the first axis" in refusal(parts(remainder="pad").jax(replicated))
for remainder, count in (("drop", 2), ("pad", 3)):
    ours = parts(remainder=remainder).jax(sharding)
    alone = parts(remainder=remainder, batch_size=8, shard=(0, 1))
    assert len(ours) == len(alone) == count
    for found, own in zip(ours, alone.numpy(), strict=True):
        assert found["images"].shape == (8, 64, 64, 3) and found["labels"].shape == (8,)
        for name, array in found.items():
            for shard in array.addressable_shards:
                np.testing.assert_array_equal(shard.data, own[name][shard.index])
"""
    run_two(program, photos)
