"""Augmented batches are the same whoever makes them, and whatever dies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from loaderd.errors import BadImage
from loaderd_client import Session
from loaderd_client import augment as A
from tests.process.test_streams import digests
from tests.support.augmented import SIZE, augmenting, every_list
from tests.support.daemons import Serve
from tests.support.streams import cached, digest, read_all, run_of, with_errors

LISTS = every_list()


def test_every_operation_gives_the_same_bytes_for_1_and_3_workers(
    serve: Serve, photos: Path
) -> None:
    specs = {name: augmenting(photos, operations) for name, operations in LISTS.items()}
    with serve(workers=1) as daemon:
        alone = {name: read_all(daemon.path, spec) for name, spec in specs.items()}
    with serve(workers=3) as daemon:
        for name, spec in specs.items():
            assert read_all(daemon.path, spec) == alone[name], name
    assert len({tuple(each) for each in alone.values()}) == len(alone)


def test_all_of_them_do_so_while_workers_are_killed(serve: Serve, photos: Path) -> None:
    spec = augmenting(photos, LISTS["all"])
    assert digests(serve, spec, workers=3, kill=True) == digests(serve, spec, workers=1)


def test_all_of_them_do_so_from_a_cache(serve: Serve, photos: Path) -> None:
    spec = augmenting(photos, [A.Resize(60, 70), A.RandomCrop(*SIZE), *LISTS["all"][1:]])
    with serve(workers=2) as daemon:
        plain = read_all(daemon.path, spec)
        first = read_all(daemon.path, cached(spec, "memory"))
        again = read_all(daemon.path, cached(spec, "memory"))
        assert sum(worker.cached for worker in daemon.snapshot().workers) >= 96
    assert first == again == plain


def test_any_batch_can_be_asked_for_first(serve: Serve, photos: Path) -> None:
    spec = augmenting(photos, LISTS["all"])
    with serve(workers=3) as daemon, Session(daemon.path) as session:
        in_order = {batch.place: digest(batch) for batch in run_of(session.open(spec, slots=4))}
        for place in list(in_order)[::5]:
            assert digest(session.open(spec, slots=4).take(place)) == in_order[place]


def test_every_epoch_and_every_sample_has_its_own_draws(serve: Serve, photos: Path) -> None:
    spec = augmenting(photos, [A.RandomResizedCrop(*SIZE)])
    with serve(workers=2) as daemon, Session(daemon.path) as session:
        seen: dict[int, list[bytes]] = {}
        for batch in run_of(session.open(spec, slots=4)):
            for sample, image in zip(batch.ids.tolist(), batch.images, strict=True):
                seen.setdefault(sample, []).append(image.tobytes())
    assert all(len(set(images)) == 2 for images in seen.values())


def weight_of(own: np.ndarray, partner: np.ndarray, mixed: np.ndarray) -> float:
    """How much of an image is its own, by least squares."""
    difference = (own - partner).ravel().astype(np.float64)
    return float((mixed - partner).ravel() @ difference / (difference @ difference))


def area_of(own: np.ndarray, partner: np.ndarray, mixed: np.ndarray) -> float:
    """The fraction of pixels that are its own, of those that tell."""
    tells = (own != partner).any(axis=-1)
    from_partner = (mixed == partner).all(axis=-1) & tells
    assert ((mixed == own).all(axis=-1) | from_partner)[tells].all()
    return 1 - float(from_partner.sum() / tells.sum())


@pytest.mark.parametrize(("operation", "how"), [(A.MixUp(), weight_of), (A.CutMix(), area_of)])
def test_images_and_labels_are_mixed_with_those_of_the_row_before(
    serve: Serve, photos: Path, operation: A.MixUp | A.CutMix, how: Callable[..., float]
) -> None:
    plain = augmenting(photos, [A.Rescaling(1.0)])
    mixing = augmenting(photos, [A.Rescaling(1.0), operation])
    with serve(workers=3) as daemon, Session(daemon.path) as session:
        one, other = session.open(plain, slots=4), session.open(mixing, slots=4)
        shares = []
        for position in range(one.batches):
            before, after = one.take((0, position)), other.take((0, position))
            assert before.labels is not None
            assert after.labels is not None
            for row in range(len(before.ids)):
                label, partner = before.labels[row], before.labels[row - 1]
                share = how(before.images[row], before.images[row - 1], after.images[row])
                expected = share * label + (1 - share) * partner
                np.testing.assert_allclose(after.labels[row], expected, atol=0.02)
                shares.append(share)
                assert abs(after.labels[row].sum() - 1) < 1e-6
    assert min(shares) < 0.5 < max(shares)


@pytest.mark.parametrize("on_error", ["raise", "substitute", "skip"])
def test_a_bad_partner_is_treated_as_a_bad_image(
    serve: Serve, photos: Path, tmp_path: Path, on_error: str
) -> None:
    folder = tmp_path / "photos"
    for number, photo in enumerate(sorted(photos.glob("cat/*.jpg"))[:12]):
        place = folder / ("one" if number < 6 else "two")
        place.mkdir(parents=True, exist_ok=True)
        data = photo.read_bytes() if number != 5 else b"no picture"
        (place / photo.name).write_bytes(data)
    spec = with_errors(augmenting(folder, [A.MixUp(), A.CutMix()], batch_size=4), on_error)
    with serve(workers=3) as daemon, Session(daemon.path) as session:
        stream = session.open(spec, slots=4)
        if on_error == "raise":
            with pytest.raises(BadImage, match=r"005\.jpg"):
                list(run_of(stream))
            return
        taken = [digest(batch) for batch in run_of(stream)]
        rows = sum(len(batch.ids) for batch in run_of(session.open(spec, slots=4)))
    with serve(workers=1) as daemon, Session(daemon.path) as session:
        assert [digest(batch) for batch in run_of(session.open(spec, slots=4))] == taken
    assert rows == (22 if on_error == "skip" else 24)


def test_a_picture_of_numbers_beyond_bytes_is_a_bad_image(
    serve: Serve, photos: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "photos" / "one"
    folder.mkdir(parents=True)
    for photo in sorted(photos.glob("cat/*.jpg"))[:3]:
        (folder / photo.name).write_bytes(photo.read_bytes())
    Image.fromarray(np.arange(64, dtype=np.int32).reshape(8, 8) * 999).save(
        folder / "deep.jpg", "TIFF"
    )
    spec = augmenting(tmp_path / "photos", [A.RandomResizedCrop(*SIZE)], batch_size=4)
    spec = msgspec.structs.replace(
        spec, load=msgspec.structs.replace(spec.load, color_mode="grayscale")
    )
    with serve(workers=1) as daemon, Session(daemon.path) as session:
        with pytest.raises(BadImage, match=r"deep\.jpg: augment takes images of bytes"):
            session.open(spec, slots=4).take((0, 0))
        skipping = session.open(with_errors(spec, "skip"), slots=4)
        assert len(skipping.take((0, 0)).ids) == 3
