"""Samples drawn by weights, and repeated ones: the same bytes whoever makes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from loaderd.errors import InvalidArgument
from loaderd.ipc.bundle import Bundle
from loaderd.spec.output import Order
from loaderd.spec.spec import Spec
from loaderd_client import Session
from loaderd_client import augment as A
from tests.support.augmented import SIZE, augmenting
from tests.support.daemons import Serve
from tests.support.streams import a_spec, digest, run_of, with_errors

CROPS = [A.RandomResizedCrop(*SIZE)]
MIXES = [*CROPS, A.RandomMix([A.MixUp(), A.CutMix()])]
ORDERS: dict[str, dict[str, Any]] = {
    "balanced": {"class_weights": "balanced"},
    "table": {"class_weights": (("cat", 0.0), ("emu", 5.0))},
    "given": {"weighted": True},
    "repeats": {"repeats": 3},
    "repeats of balanced": {"class_weights": "balanced", "repeats": 3},
}
WEIGHTS = Bundle({"weights": np.arange(96) % 7 / 3})


def ordered(spec: Spec, **how: Any) -> Spec:
    return msgspec.structs.replace(spec, order=Order(seed=11, **how))


def bundles(spec: Spec) -> list[Bundle]:
    return [WEIGHTS] if spec.order.weighted else []


@pytest.mark.parametrize("how", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("operations", [CROPS, MIXES], ids=["crops", "mixes"])
def test_the_bytes_are_the_same_for_1_and_3_workers_and_any_batch_first(
    serve: Serve, photos: Path, how: dict[str, Any], operations: list[Any]
) -> None:
    spec = ordered(augmenting(photos, operations, batch_size=10), **how)
    with serve(workers=1) as daemon, Session(daemon.path) as session:
        stream = session.open(spec, slots=4, bundles=bundles(spec))
        alone = {batch.place: digest(batch) for batch in run_of(stream)}
    assert len(set(alone.values())) == 20
    with serve(workers=3) as daemon, Session(daemon.path) as session:
        stream = session.open(spec, slots=4, bundles=bundles(spec))
        assert {batch.place: digest(batch) for batch in run_of(stream)} == alone
        for place in list(alone)[::6]:
            stream = session.open(spec, slots=4, bundles=bundles(spec))
            assert digest(stream.take(place)) == alone[place]


@pytest.mark.parametrize(
    "made", [lambda photos: augmenting(photos, CROPS), a_spec], ids=["augment", "generator"]
)
@pytest.mark.parametrize("name", ["table", "repeats of balanced"])
def test_a_sample_that_comes_again_is_drawn_anew(
    serve: Serve, photos: Path, made: Any, name: str
) -> None:
    with serve(workers=2) as daemon, Session(daemon.path) as session:
        seen: dict[int, list[bytes]] = {}
        for batch in run_of(session.open(ordered(made(photos), **ORDERS[name]), slots=4)):
            for sample, image in zip(batch.ids.tolist(), batch.images, strict=True):
                seen.setdefault(sample, []).append(image.tobytes())
    assert sum(map(len, seen.values())) == 2 * 96
    assert max(map(len, seen.values())) > 3
    assert all(len(set(images)) == len(images) for images in seen.values())


def test_the_first_occurrences_are_drawn_as_without_weights(serve: Serve, photos: Path) -> None:
    plain = augmenting(photos, CROPS)
    with serve(workers=2) as daemon, Session(daemon.path) as session:

        def images(spec: Spec) -> dict[int, bytes]:
            found: dict[int, bytes] = {}
            for batch in run_of(session.open(spec, slots=4), epochs=1):
                for sample, image in zip(batch.ids.tolist(), batch.images, strict=True):
                    found.setdefault(sample, image.tobytes())
            return found

        once, some = images(plain), images(ordered(plain, class_weights="balanced"))
    assert 50 < len(some) < 96
    assert all(once[sample] == image for sample, image in some.items())


def test_repeated_images_are_mixed_with_others(serve: Serve, photos: Path) -> None:
    half = A.CutMix(alpha=1e9)  # a part of half of the area
    plain = ordered(augmenting(photos, [A.Rescaling(1.0)], batch_size=12), repeats=3)
    mixing = ordered(augmenting(photos, [A.Rescaling(1.0), half], batch_size=12), repeats=3)
    with serve(workers=3) as daemon, Session(daemon.path) as session:
        one, other = session.open(plain, slots=4), session.open(mixing, slots=4)
        for position in range(one.batches):
            before, after = one.take((0, position)), other.take((0, position))
            ids = before.ids
            assert (ids[0::3] == ids[2::3]).all()
            for row in range(12):
                assert ids[row] != ids[row - 3]
                own, partner = before.images[row], before.images[row - 3]
                from_partner = (after.images[row] == partner).all(axis=-1)
                assert (from_partner | (after.images[row] == own).all(axis=-1)).all()
                assert from_partner.mean() > 0.1
            # Images and partners of the three are the same: only the draws differ.
            assert len({image.tobytes() for image in after.images}) == 12


def test_a_bad_image_is_substituted_each_time_it_comes(
    serve: Serve, photos: Path, tmp_path: Path
) -> None:
    for number, photo in enumerate(sorted(photos.glob("*/*.jpg"))[:12]):
        place = tmp_path / "photos" / ("one" if number < 9 else "two")
        place.mkdir(parents=True, exist_ok=True)
        data = photo.read_bytes() if number != 10 else b"no picture"
        (place / photo.name).write_bytes(data)
    spec = augmenting(tmp_path / "photos", MIXES, batch_size=4)
    spec = with_errors(ordered(spec, class_weights="balanced", repeats=2), "substitute")
    found = []
    for workers in (1, 3):
        with serve(workers=workers) as daemon, Session(daemon.path) as session:
            batches = run_of(session.open(spec, slots=4))
            found.append([(digest(batch), batch.ids.tolist()) for batch in batches])
    assert found[0] == found[1]
    assert sum(len(ids) for _, ids in found[0]) == 24
    assert all(10 not in ids for _, ids in found[0])


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"class_weights": (("cow", 1.0),)}, "'cow' is no class: there are 'cat', 'dog', 'emu'"),
        ({"class_weights": (("cat", 0), ("dog", 0), ("emu", 0))}, "must not all be 0"),
        ({"class_weights": (("cat", -1.0),)}, "finite and not negative"),
    ],
)
def test_weights_that_do_not_fit_the_folder_are_refused(
    serve: Serve, photos: Path, how: dict[str, Any], says: str
) -> None:
    spec = ordered(augmenting(photos, CROPS), **how)
    with (
        serve(workers=1) as daemon,
        Session(daemon.path) as session,
        pytest.raises(InvalidArgument, match=says),
    ):
        session.open(spec, slots=4)
