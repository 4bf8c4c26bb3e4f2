"""Datasets that a client brings along in a bundle: what is wrong with one ends it alone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from loaderd.errors import EmptyDataset, LoaderdError, ProtocolError
from loaderd.ipc import dial, manifest
from loaderd.ipc.bundle import Bundle
from loaderd.ipc.messages import Open, Opened, Refused
from loaderd.ipc.prefetch import UNKNOWN, WHOLE, Run
from loaderd.spec import spec
from loaderd.spec.annotations import Annotations
from loaderd.spec.operations import NamedFunction, UserCode
from loaderd.spec.output import Batching, Order
from loaderd.spec.source import Arrays, Files
from loaderd.spec.spec import Spec
from loaderd_client import Session
from tests.support.daemons import Daemon, Serve, eventually
from tests.support.specs import stages
from tests.support.streams import a_spec, run_of

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 4, 5, 3), np.uint8)


def arrays(**fields: Any) -> Spec:
    made = stages(**({"target_size": (4, 5)} | fields))
    batch = Batching(batch_size=4, label_mode="none")
    return Spec(source=Arrays(), **made, batch=batch, order=Order(shuffle=False))


def files(photos: Path) -> Spec:
    return msgspec.structs.replace(a_spec(photos), source=Files(str(photos)))


def a_manifest(photos: Path, labels: list[int], classes: tuple[str, ...] = ("a", "b")) -> Any:
    names = [b"cat/%03d.jpg" % index for index in range(len(labels))]
    table = manifest.pack(str(photos), classes, names, np.array(labels, np.int32))
    return np.frombuffer(table, np.uint8)


@contextlib.contextmanager
def a_living_daemon(serve: Serve, photos: Path) -> Iterator[tuple[Daemon, Session]]:
    """A daemon that must serve others as before, whatever is done to it."""
    with serve() as daemon:
        eventually(lambda: len(daemon.workers()) == 2)
        with Session(daemon.path) as session:
            session.open(a_spec(photos), slots=4).close()  # from here on an opener is kept
            eventually(lambda: not daemon.snapshot().streams)
            before = descriptors(daemon)
            stream = session.open(a_spec(photos), slots=4)
            first = np.array(stream.take((0, 0)).images)
            yield daemon, session
            np.testing.assert_array_equal(stream.take((0, 0)).images, first)
            assert len(list(run_of(stream))) == 24
        eventually(lambda: descriptors(daemon) <= before)


def descriptors(daemon: Daemon) -> int:
    return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))


def test_arrays_and_files_are_served(serve: Serve, photos: Path) -> None:
    with a_living_daemon(serve, photos) as (_, session):
        stream = session.open(arrays(), 4, bundles=[Bundle({"images": IMAGES})])
        np.testing.assert_array_equal(stream.take((0, 1)).images, IMAGES[4:8])
        given = Bundle({"manifest": a_manifest(photos, [1, 0] * 8)})
        stream = session.open(files(photos), 4, bundles=[given])
        assert stream.take((0, 0)).images.shape == (8, 40, 50, 3)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({}, "lacks 'images'"),
        ({"image": IMAGES}, "lacks 'images'"),
        ({"images": IMAGES[0]}, r"images of shape \(5, 3\)"),
        ({"images": IMAGES[:, :3]}, r"images of shape \(3, 5, 3\)"),
        ({"images": np.float32(3)}, "images of shape"),
    ],
)
def test_images_that_are_not_as_the_spec_says_are_refused(
    serve: Serve, photos: Path, parts: Any, words: str
) -> None:
    arrays_of = {name: np.asarray(part) for name, part in parts.items()}
    with (
        a_living_daemon(serve, photos) as (_, session),
        pytest.raises((ProtocolError, EmptyDataset), match=words),
    ):
        session.open(arrays(), 4, bundles=[Bundle(arrays_of)])


def test_no_images_are_refused(serve: Serve, photos: Path) -> None:
    with a_living_daemon(serve, photos) as (_, session), pytest.raises(EmptyDataset):
        session.open(arrays(), 4, bundles=[Bundle({"images": IMAGES[:0]})])


@pytest.mark.parametrize("labels", [[0, 2], [-1, 0], [2**31 - 1, 0]])
def test_labels_without_a_class_are_refused(serve: Serve, photos: Path, labels: list[int]) -> None:
    given = Bundle({"manifest": a_manifest(photos, labels)})
    with (
        a_living_daemon(serve, photos) as (_, session),
        pytest.raises(ProtocolError, match="labels without a class"),
    ):
        session.open(files(photos), 4, bundles=[given])


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({}, "lacks 'instances'"),
        ({"instances": np.array([0, 99, 2])}, "no bounds of 2 ranges"),
        ({"instances": np.array([0, 1, 3])}, "'boxes' of the bundle has 2 rows, not 3"),
    ],
)
def test_annotations_that_do_not_fit_are_refused(
    serve: Serve, photos: Path, parts: Any, words: str
) -> None:
    plain = files(photos)
    asked = msgspec.structs.replace(
        plain,
        load=msgspec.structs.replace(plain.load, aspect="keep"),
        transforms=(),
        order=Order(seed=0),
        annotations=Annotations(max_boxes=1, boxes=True),
    )
    boxes = {"boxes": np.zeros((2, 4), np.float32), "box_labels": np.zeros(2, np.int32)}
    given = Bundle({"manifest": a_manifest(photos, [0, 1]), **boxes, **parts})
    with (
        a_living_daemon(serve, photos) as (_, session),
        pytest.raises(ProtocolError, match=words),
    ):
        session.open(asked, 4, bundles=[given])


@pytest.mark.parametrize("damage", [slice(0, 8), slice(8, 12), slice(16, 40), slice(56, 64)])
def test_a_damaged_manifest_is_refused(serve: Serve, photos: Path, damage: slice) -> None:
    table = a_manifest(photos, [0, 1]).copy()
    table[damage] = 0xFF
    with a_living_daemon(serve, photos) as (_, session), pytest.raises(ProtocolError):
        session.open(files(photos), 4, bundles=[Bundle({"manifest": table})])


@pytest.mark.parametrize(
    "fields",
    [
        {"target_size": (10**9, 10**9)},
        {"channels": 10**9},
        {"target_size": (2**62, 2**62)},
    ],
)
def test_sizes_beyond_all_memory_are_refused(serve: Serve, photos: Path, fields: Any) -> None:
    with a_living_daemon(serve, photos) as (_, session), pytest.raises(LoaderdError):
        session.open(arrays(**fields), 4, bundles=[Bundle({"images": IMAGES})])


def opened(daemon: Daemon, asked: Spec, request: Any, *bundle: int) -> Any:
    """What the daemon answers to an Open that no client of ours would send."""
    data = spec.encode(spec.seeded(asked))
    fd = os.memfd_create("spec")
    os.write(fd, data)
    line = dial.dial(daemon.path)
    line.settimeout(20)
    line.send(request(len(data)), [fd, *bundle])
    answer, fds = line.receive_with_fds()
    for one in (*fds, fd):
        os.close(one)
    line.close()
    return answer


def test_memory_that_is_not_sealed_is_refused(serve: Serve, photos: Path) -> None:
    packed = Bundle({"images": IMAGES})
    bare = os.memfd_create("bare", os.MFD_ALLOW_SEALING)
    os.write(bare, os.pread(packed.fd, packed.nbytes, 0))
    with a_living_daemon(serve, photos) as (daemon, _):
        for fd, size in ((bare, packed.nbytes), (packed.fd, packed.nbytes * 2), (packed.fd, -1)):
            answer = opened(daemon, arrays(), lambda n, s=size: Open(n, (s,), 4, WHOLE), fd)
            assert isinstance(answer, Refused)
            assert answer.kind == "ProtocolError"
    os.close(bare)


@pytest.mark.parametrize("epoch", [2**64 - 1, 2**63, -1])
def test_an_epoch_beyond_all_is_refused(serve: Serve, photos: Path, epoch: int) -> None:
    with a_living_daemon(serve, photos) as (daemon, _):
        answer = opened(daemon, a_spec(photos), lambda n: Open(n, (), 4, Run((epoch, 1), UNKNOWN)))
        assert isinstance(answer, Refused)


def test_a_stream_without_a_run_makes_what_it_is_asked_for(serve: Serve, photos: Path) -> None:
    with a_living_daemon(serve, photos) as (_, session):
        whole = session.open(a_spec(photos), slots=4)
        expected = {place: np.array(whole.take(place).images) for place in ((1, 3), (0, 7))}
        stream = session.open(a_spec(photos), 4, Run(None, UNKNOWN))
        for place, images in expected.items():
            np.testing.assert_array_equal(stream.take(place).images, images)


def test_a_function_that_is_missing_is_told(serve: Serve, photos: Path) -> None:
    asked = arrays(function=UserCode((NamedFunction("", "gone"),), python=(3, 0)))
    with a_living_daemon(serve, photos) as (_, session):
        stream = session.open(asked, 4, bundles=[Bundle({"images": IMAGES})])
        with pytest.raises(LoaderdError, match=r"pickled by Python 3\.0"):
            stream.take((0, 0))


def test_the_daemon_opens_as_asked(serve: Serve, photos: Path) -> None:
    with a_living_daemon(serve, photos) as (daemon, _):
        answer = opened(daemon, a_spec(photos), lambda n: Open(n, (), 4, Run(None, UNKNOWN)))
        assert isinstance(answer, Opened)
