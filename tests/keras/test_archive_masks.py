"""Masks in archives are those of a folder, and stay with their images, whatever happens."""

from __future__ import annotations

import io
import pickle
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from loaderd.errors import BadArchive, BadImage, InvalidArgument, InvalidType, StateError
from loaderd_client import (
    Session,
    segmentation_dataset_from_archive,
    segmentation_dataset_from_directory,
)
from loaderd_client import augment as A
from tests.support.archives import shards_of, tar_of, zip_of
from tests.support.batches import batches_of, check_equal
from tests.support.daemons import Daemon, shared
from tests.support.object_server import ObjectServer, object_server

COUNT = 24
OPTIONS: dict[str, Any] = {
    "image_size": (32, 32),
    "batch_size": 8,
    "seed": 1,
    "verbose": False,
    "targets": "segmentation_masks",
    "augment": [A.RandomResizedCrop(32, 32, scale=(0.5, 1.0)), A.RandomFlip()],
}


def encoded(picture: Any, format: str) -> bytes:
    data = io.BytesIO()
    picture.save(data, format)
    return data.getvalue()


def scene(number: int) -> tuple[bytes, bytes]:
    """A JPEG of a red disc, and the PNG of its mask."""
    size, corner = (50 + number, 40 + number % 7), (number % 9, 2)
    disc = (*corner, corner[0] + 20, corner[1] + 20)
    picture, mask = Image.new("RGB", size, (70, 70, 70)), Image.new("L", size)
    ImageDraw.Draw(picture).ellipse(disc, fill="red")
    ImageDraw.Draw(mask).ellipse(disc, fill=1 + number % 3)
    return encoded(picture, "JPEG"), encoded(mask, "PNG")


SCENES = {f"{number:02}": scene(number) for number in range(COUNT)}


def members(scenes: dict[str, tuple[bytes, bytes]], mask: str = "mask.png") -> dict[str, bytes]:
    return {
        name: data
        for key, (picture, drawn) in scenes.items()
        for name, data in ((f"{key}.jpg", picture), (f"{key}.{mask}", drawn))
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scenes in two folders."""
    root = tmp_path_factory.mktemp("scenes")
    for name in ("images", "masks"):
        (root / name).mkdir()
    for key, (picture, mask) in SCENES.items():
        (root / f"images/{key}.jpg").write_bytes(picture)
        (root / f"masks/{key}.png").write_bytes(mask)
    return root


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scenes in an archive."""
    return tar_of(tmp_path_factory.mktemp("packed") / "a.tar", members(SCENES))


@pytest.fixture(scope="module")
def store(packed: Path) -> Iterator[ObjectServer]:
    """The scenes in a bucket."""
    with object_server({"b/a.tar": packed.read_bytes()}) as server:
        yield server


@pytest.fixture(scope="module")
def daemon(store: ObjectServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in store.environment.items():
            patch.setenv(name, value)
        cache = f"--cache-dir={tmp_path_factory.mktemp('cache')}"
        with shared(cache, "--max-bad=10%") as daemon:
            yield daemon


@pytest.fixture(autouse=True)
def session(daemon: Daemon) -> Iterator[Session]:
    with Session(daemon.path) as session:
        yield session


def of_folder(folder: Path, **more: Any) -> Any:
    options = OPTIONS | more
    return segmentation_dataset_from_directory(folder / "images", folder / "masks", **options)


def of_archive(urls: Any, **more: Any) -> Any:
    return segmentation_dataset_from_archive(urls, **OPTIONS | more)


def test_they_are_those_of_a_folder_from_archives_of_any_kind(folder: Path, tmp_path: Path) -> None:
    expected = batches_of(of_folder(folder))
    assert {*np.unique(expected[0][1])} == {0, 1, 2, 3}
    for urls, more in (
        (shards_of(tmp_path, members(SCENES), 3), {}),
        (zip_of(tmp_path / "deflated.zip", members(SCENES)), {}),
        (zip_of(tmp_path / "a.zip", members(SCENES, "PNG"), zipfile.ZIP_STORED), {"mask": "png"}),
    ):
        sequence = of_archive(urls, **more)
        check_equal(batches_of(sequence), expected)
        assert sequence.file_paths[1].endswith("/01.jpg")
        sequence.close()


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_they_are_those_of_a_folder_from_a_bucket(
    folder: Path, store: ObjectServer, cache: Any
) -> None:
    plain = {"augment": [A.RandomFlip()], "cache": cache}
    expected = batches_of(of_folder(folder, **plain))
    sequence, before = of_archive("s3://b/a.tar", **plain), len(store.requests)
    check_equal(batches_of(sequence), expected)
    asked = len(store.requests) - before
    assert asked < len(expected) * 8, "an image and its mask are read by one request"
    sequence.close()


def test_split_shards_and_what_is_resumed_are_those_of_a_folder(
    folder: Path, packed: Path, tmp_path: Path
) -> None:
    for more in (
        {"validation_split": 0.25, "subset": "training"},
        {"validation_split": 0.25, "subset": "validation"},
        {"validation_split": 0.25, "subset": "training", "shuffle": False},
        {"shard": (1, 2), "batch_size": 4},
    ):
        check_equal(batches_of(of_archive(packed, **more)), batches_of(of_folder(folder, **more)))
    expected, first = batches_of(of_folder(folder)), of_archive(packed)
    begun = [next(first) for _ in range(2)]
    moved = tmp_path / packed.name
    shutil.copy(packed, moved)
    resumed = of_archive(moved)
    resumed.load_state_dict(first.state_dict())
    check_equal([*map(list, begun), *batches_of(resumed)], expected)


def test_a_copy_in_another_process_reads_them_too(packed: Path) -> None:
    sequence = of_archive(packed)
    copy = pickle.loads(pickle.dumps(sequence))
    check_equal(batches_of(copy), batches_of(sequence))


def test_a_state_is_refused_where_masks_are_others(packed: Path, tmp_path: Path) -> None:
    others = tar_of(tmp_path / packed.name, members(SCENES, "other.png"))
    state = of_archive(packed).state_dict()
    with pytest.raises(StateError, match="the dataset"):
        of_archive(others, mask="other.png").load_state_dict(state)


def test_a_preview_shows_them(packed: Path, tmp_path: Path) -> None:
    of_archive(packed).preview(4, tmp_path / "preview.png")
    assert Image.open(tmp_path / "preview.png").width > 64


@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_an_archive_whose_masks_are_not_one_for_each_image_is_refused(
    pack: Any, tmp_path: Path
) -> None:
    content = members(SCENES)
    lacking = pack(tmp_path / "lacking", content | {"99.jpg": content["00.jpg"]})
    with pytest.raises(BadArchive, match=r"lacking: 99.jpg has no mask: key 99 .* mask.png"):
        of_archive(lacking)
    both = pack(tmp_path / "both", content | {"07.seg.png": content["07.mask.png"]})
    with pytest.raises(BadArchive, match=r"key 07 has two masks, 07.mask.png and 07.seg.png"):
        of_archive(both, mask=["mask.png", "seg.png"])
    more = pack(tmp_path / "more", content | {"99.mask.png": content["07.mask.png"]})
    assert of_archive(more).n == COUNT  # as a mask of a folder without an image


def test_arguments_that_do_not_fit_are_refused(packed: Path) -> None:
    with pytest.raises(InvalidArgument, match="both name 'png'"):
        of_archive(packed, image=["jpg", "png"], mask="png")
    masks: list[Any] = ["", None, []]
    for mask in masks:
        with pytest.raises(InvalidArgument, match="`mask` should be the extension of masks"):
            of_archive(packed, mask=mask)
    with pytest.raises(InvalidArgument, match="`seed` should be below"):
        of_archive(packed, seed=2**32, validation_split=0.5, subset="training")
    with pytest.raises(InvalidType, match="did you mean mask"):
        of_archive(packed, masks="png")


@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_a_bad_mask_is_a_bad_image_that_names_it(pack: Any, folder: Path, tmp_path: Path) -> None:
    content = members(SCENES)
    content["03.mask.png"] = content["03.mask.png"][:60]
    content["05.mask.png"] = content["06.mask.png"]
    path = pack(tmp_path / "bad", content)
    with pytest.raises(BadImage, match=r"bad/0[35]\.mask\.png: "):
        batches_of(of_archive(path), 1)
    skipping = of_archive(path, on_error="skip", shuffle=False)
    assert sum(len(images) for images, _ in skipping) == COUNT - 2
    substituting = of_archive(path, on_error="substitute", shuffle=False, augment=[])
    good, given = of_folder(folder, shuffle=False, augment=[]), batches_of(substituting, 1)
    taken = substituting.fetch(0).ids
    assert taken[3] not in (3, 5) and taken[5] not in (3, 5) and taken[4] == 4
    whole = np.concatenate([masks for _, masks in batches_of(good, 1)])
    np.testing.assert_array_equal(given[0][1], whole[taken])


def test_an_archive_that_changes_meanwhile_is_refused(packed: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    shutil.copy(packed, path)
    sequence = of_archive(path, max_queue_size=1)
    tar_of(path, members({**SCENES, "aa": SCENES["00"]}))
    with pytest.raises(BadArchive, match="changed after it was indexed"):
        batches_of(sequence)
