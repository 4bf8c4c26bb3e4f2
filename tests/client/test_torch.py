"""Batches as tensors of PyTorch; runs where it is installed."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Iterator
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
from loaderd_client.core.batch import Batch
from loaderd_client.keras import reader
from tests.support.daemons import Daemon, Serve, stream_of

torch = pytest.importorskip("torch")

from loaderd_client.torch import DeviceCopies  # noqa: E402  # needs it


@pytest.fixture
def daemon(serve: Serve) -> Iterator[Daemon]:
    with serve(workers=2) as daemon, Session(daemon.path):
        yield daemon


@pytest.fixture
def slots(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The addresses of the images of all batches that the client was given, in order."""
    return observed(monkeypatch)


def observed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    addresses: list[int] = []

    def observer() -> Callable[..., None]:
        def note(batch: Batch, *more: Any) -> None:
            addresses.append(batch.images.ctypes.data)

        return note

    monkeypatch.setattr(reader, "new_observer", observer)
    return addresses


def dataset(photos: Path, **options: Any) -> LoaderSequence:
    known: dict[str, Any] = {"image_size": (64, 64), "batch_size": 8, "seed": 3, "verbose": False}
    found = image_dataset_from_directory(photos, **(known | options))
    assert isinstance(found, LoaderSequence)
    return found


def labels_of(batches: Any) -> list[list[int]]:
    return [labels.tolist() for _, labels in batches]


# -- tensors ---------------------------------------------------------------------------


def test_tensors_are_the_slots_memory(photos: Path, daemon: Daemon, slots: list[int]) -> None:
    for images, labels in dataset(photos).torch():
        assert images.data_ptr() == slots[-1]
        assert images.dtype == torch.float32
        assert images.shape == (len(labels), 64, 64, 3)


def copies_of(batches: Any) -> list[tuple[Any, Any]]:
    return [(images.copy(), labels.copy()) for images, labels in batches]


def test_tensors_that_are_changed_in_place_change_no_other_batch(
    photos: Path, daemon: Daemon
) -> None:
    """A slot is its trainer's until it is freed, and is written anew then."""
    same = dataset(photos).numpy()
    first, second = (dataset(photos, max_queue_size=2).torch() for _ in range(2))
    for _ in range(2):
        for changed, kept, (own, classes) in zip(first, second, copies_of(same), strict=True):
            np.testing.assert_array_equal(changed[0], own)
            for tensor in changed:
                tensor.zero_()
            np.testing.assert_array_equal(kept[0], own)
            np.testing.assert_array_equal(kept[1], classes)


@pytest.mark.filterwarnings("error:The given NumPy array is not writable")
def test_tensors_of_a_shared_stream_may_be_changed_and_others_have_the_right_batches(
    photos: Path, daemon: Daemon, slots: list[int]
) -> None:
    same = copies_of(dataset(photos).numpy())
    options = {"label_mode": "categorical", "share": "all"}  # of float32, which stay as they are
    first, second = (dataset(photos, **options).torch() for _ in range(2))
    for changed, kept, (own, classes) in zip(first, second, same, strict=True):
        assert not {changed[0].data_ptr(), kept[0].data_ptr()} & {*slots}
        for tensor in changed:
            tensor.zero_()
        np.testing.assert_array_equal(kept[0], own)
        np.testing.assert_array_equal(kept[1].argmax(1), classes)


@pytest.mark.filterwarnings("error:The given NumPy array is not writable")
def test_so_may_those_of_a_data_loader_by_index(photos: Path, daemon: Daemon) -> None:
    same = copies_of(dataset(photos).numpy())
    changing, kept = (dataset(photos, share="all") for _ in range(2))
    loader = torch.utils.data.DataLoader(changing, batch_size=None)
    for changed, right, (own, classes) in zip(loader, kept, same, strict=True):
        for tensor in changed:
            tensor.zero_()
        np.testing.assert_array_equal(right[0], own)
        np.testing.assert_array_equal(right[1], classes)


@pytest.mark.filterwarnings("error:The given NumPy array is not writable")
def test_a_shared_stream_is_copied_to_a_device_straight_from_its_slots(
    photos: Path, daemon: Daemon, device: PlayedDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    fill = torch.Tensor.copy_

    def noted(buffer: Any, tensor: Any) -> Any:
        read.append(tensor.data_ptr())
        return fill(buffer, tensor)

    monkeypatch.setattr(torch.Tensor, "copy_", noted)
    slots = observed(monkeypatch)
    for images, _ in dataset(photos, share="all").torch("cuda", prefetch=0):
        assert slots[-1] in read
        assert images.shape[1:] == (64, 64, 3)


def test_a_state_counts_the_tensors_that_were_handed_out(photos: Path, daemon: Daemon) -> None:
    first, second, whole = (dataset(photos).torch() for _ in range(3))
    for _ in itertools.islice(first, 5):
        pass
    state = first.state_dict()
    assert (state["epoch"], state["samples"]) == (0, 40)
    second.load_state_dict(state)
    assert labels_of(second) == labels_of(whole)[5:]
    assert labels_of(second) == labels_of(whole)
    assert second.state_dict()["epoch"] == 2


def test_they_hold_the_slot_as_long_as_they_live(photos: Path, daemon: Daemon) -> None:
    train = dataset(photos)
    ring = stream_of(train)._ring
    assert ring is not None
    batches = iter(train.torch())
    images, labels = next(batches)
    view = images[0].permute(2, 0, 1)
    del images, labels
    gc.collect()
    assert ring.ring.is_leased
    del view
    gc.collect()
    assert not ring.ring.is_leased


def test_tensors_that_are_kept_do_not_change(photos: Path, daemon: Daemon) -> None:
    train, same = dataset(photos).torch(), dataset(photos).numpy()
    for kept in [[*train], [*train], [*train]]:  # more than the ring has slots
        for (images, labels), (own, classes) in zip(kept, same, strict=True):
            np.testing.assert_array_equal(images.numpy(), own)
            np.testing.assert_array_equal(labels.numpy(), classes)


def test_class_numbers_are_what_the_losses_take(photos: Path, daemon: Daemon) -> None:
    _, labels = next(iter(dataset(photos).torch()))
    assert labels.dtype == torch.int64
    torch.nn.functional.cross_entropy(torch.zeros(len(labels), 3), labels)
    one_hot = next(iter(dataset(photos, label_mode="categorical").torch()))[1]
    assert one_hot.dtype == torch.float32
    torch.nn.functional.cross_entropy(torch.zeros(len(one_hot), 3), one_hot)
    assert isinstance(next(iter(dataset(photos, labels=None).torch())), torch.Tensor)


def test_bfloat16_has_the_same_bits(photos: Path, daemon: Daemon, slots: list[int]) -> None:
    generator = ImageDataGenerator(dtype="bfloat16", rescale=1 / 255)
    flows = [
        generator.flow_from_directory(photos, target_size=(64, 64), batch_size=8, seed=3)
        for _ in range(2)
    ]
    for tensors, arrays in zip(flows[0].torch(), flows[1].numpy(), strict=True):
        for tensor, array in zip(tensors, arrays, strict=True):
            assert tensor.dtype == torch.bfloat16
            assert tensor.view(torch.int16).numpy().tobytes() == array.tobytes()
        assert tensors[0].data_ptr() == slots[-2]


def targets() -> LoaderSequence:
    """A dataset of masks, boxes, labels and weights."""
    rng = np.random.default_rng(0)
    return image_dataset_from_arrays(
        rng.integers(0, 256, (20, 64, 64, 3), np.uint8),
        rng.integers(0, 3, 20).astype(np.int32),
        masks=rng.integers(0, 4, (20, 64, 64), np.uint8),
        boxes=[[[4, 5, 20, 30]]] * 20,
        box_labels=[[number % 3] for number in range(20)],
        weights=np.arange(20) / 10,
        batch_size=8,
        seed=1,
        verbose=False,
    )


def test_dictionaries_keep_their_shape(daemon: Daemon) -> None:
    for tensors, arrays in zip(targets().torch(), targets().numpy(), strict=True):
        assert tensors.keys() == arrays.keys()
        boxes = tensors["bounding_boxes"]
        assert boxes.keys() == arrays["bounding_boxes"].keys()
        assert tensors["segmentation_masks"].dtype == torch.uint8
        assert tensors["labels"].dtype == boxes["labels"].dtype == torch.int64
        assert boxes["boxes"].dtype == torch.float32
        np.testing.assert_array_equal(boxes["labels"], arrays["bounding_boxes"]["labels"])
        np.testing.assert_array_equal(tensors["sample_weights"], arrays["sample_weights"])


def test_an_epoch_of_a_flow_ends(photos: Path, daemon: Daemon) -> None:
    options: dict[str, Any] = {"target_size": (64, 64), "batch_size": 8, "seed": 3}
    flow, same = (
        ImageDataGenerator().flow_from_directory(photos, class_mode="sparse", **options)
        for _ in range(2)
    )
    batches = flow.torch()
    assert len(batches) == 12
    for _ in range(2):
        for images, labels in batches:
            own, classes = next(same)
            np.testing.assert_array_equal(images.numpy(), own)
            np.testing.assert_array_equal(labels.numpy(), classes)


def test_texts_are_refused(daemon: Daemon) -> None:
    flow = ImageDataGenerator().flow(
        np.zeros((8, 40, 40, 3), np.uint8), np.array(["a", "b"] * 4), batch_size=4
    )
    with pytest.raises(InvalidType, match=r"dtype <U1 is no tensor: give labels of numbers"):
        next(iter(flow.torch()))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": "gpu"}, "`device` should be a device of PyTorch"),
        ({"device": 1.5}, "`device` should be a device of PyTorch"),
        ({"prefetch": -1}, "`prefetch` should be 0 or more"),
        ({"prefetch": "two"}, "`prefetch` should be a whole number"),
    ],
)
def test_what_is_wrong_is_said(
    options: dict[str, Any], words: str, photos: Path, daemon: Daemon
) -> None:
    with pytest.raises(InvalidArgument, match=words):
        dataset(photos).torch(**options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused_at_once(photos: Path, daemon: Daemon) -> None:
    with pytest.raises(InvalidArgument, match="PyTorch finds no CUDA device here"):
        dataset(photos).torch("cuda")


# -- copies to a device, which is played here --------------------------------------------


class PlayedStream:
    """A device's stream: what it is told to do is done when it is waited for, and not before."""

    def __init__(self, device: Any = None) -> None:
        self.todo: list[Callable[[], Any]] = []

    def record_event(self) -> PlayedEvent:
        return PlayedEvent(self.todo, len(self.todo))

    def wait_event(self, event: PlayedEvent) -> None:
        event.synchronize()


class PlayedEvent:
    def __init__(self, todo: list[Callable[[], Any]], count: int) -> None:
        self._todo, self._count = todo, count

    def synchronize(self) -> None:
        for number in range(self._count):
            self._todo[number]()
            self._todo[number] = lambda: None


class PlayedDevice:
    """The calls of torch.cuda that copies make, of a device whose copies are as late as may be.

    Attributes:
        consumer: the stream of the training.
        used: the tensors that were noted as used by it.
        pinned: shapes of the pinned buffers.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.consumer = PlayedStream()
        self.used: list[Any] = []
        self.pinned: list[tuple[int, ...]] = []
        self._present: list[PlayedStream] = []
        self._empty = torch.empty
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "Stream", PlayedStream)
        monkeypatch.setattr(torch.cuda, "stream", self.within)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: self.consumer)
        monkeypatch.setattr(torch, "empty", self.empty)
        monkeypatch.setattr(
            torch.Tensor, "to", lambda tensor, *where, **how: self.to(tensor, **how)
        )
        monkeypatch.setattr(
            torch.Tensor, "record_stream", lambda tensor, stream: self.note(tensor, stream)
        )

    def within(self, stream: PlayedStream) -> Any:
        device = self

        class Within:
            def __enter__(self) -> None:
                device._present.append(stream)

            def __exit__(self, *error: object) -> None:
                device._present.pop()

        return Within()

    def empty(self, shape: Any, *, dtype: Any, pin_memory: bool) -> Any:
        assert pin_memory
        self.pinned.append(tuple(shape))
        return self._empty(shape, dtype=dtype)

    def to(self, tensor: Any, non_blocking: bool = False) -> Any:
        copy = torch.zeros_like(tensor)
        if not non_blocking:
            return copy.copy_(tensor)
        self._present[-1].todo.append(lambda: copy.copy_(tensor))
        return copy

    def note(self, tensor: Any, stream: PlayedStream) -> None:
        assert stream is self.consumer
        self.used.append(tensor)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> PlayedDevice:
    return PlayedDevice(monkeypatch)


@pytest.mark.parametrize("prefetch", [0, 1, 2, 20])
def test_copies_that_are_late_are_waited_for_and_not_overwritten(
    prefetch: int, photos: Path, daemon: Daemon, device: PlayedDevice
) -> None:
    same, batches = dataset(photos).numpy(), dataset(photos).torch("cuda", prefetch=prefetch)
    for _ in range(2):
        for (images, labels), (own, classes) in zip(batches, same, strict=True):
            np.testing.assert_array_equal(images.numpy(), own)
            np.testing.assert_array_equal(labels.numpy(), classes)
            assert any(one is images for one in device.used)


def test_pinned_memory_is_not_written_before_it_was_copied(device: PlayedDevice) -> None:
    copies = DeviceCopies(torch.device("cuda"), 2)
    sent = [copies.send({"images": torch.full((2, 3), number)}) for number in range(5)]
    for number, one in enumerate(sent):
        assert (copies.receive(one)["images"] == number).all()


def test_the_slot_is_free_when_its_batch_is_in_pinned_memory(
    photos: Path, daemon: Daemon, device: PlayedDevice
) -> None:
    train = dataset(photos)
    batches = iter(train.torch("cuda", prefetch=2))
    for images, _ in itertools.islice(batches, 5):
        ring = stream_of(train)._ring
        assert ring is not None and not ring.ring.is_leased
        assert images.shape == (8, 64, 64, 3)
    assert sorted(device.pinned) == [(8,)] * 3 + [(8, 64, 64, 3)] * 3


def test_a_smaller_batch_fits_the_buffers_and_a_larger_one_has_its_own(
    daemon: Daemon, device: PlayedDevice
) -> None:
    sizes = [len(one["images"]) for one in targets().torch("cuda", prefetch=0)]
    assert sizes == [8, 8, 4]
    assert {shape[0] for shape in device.pinned} == {8}


def test_blocking_copies_take_no_pinned_memory(
    photos: Path, daemon: Daemon, device: PlayedDevice
) -> None:
    same, batches = dataset(photos).numpy(), dataset(photos).torch("cuda", non_blocking=False)
    for (images, _), (own, _) in zip(batches, same, strict=True):
        np.testing.assert_array_equal(images.numpy(), own)
    assert not device.pinned
