"""Datasets in object stores give the batches of the same images in a folder."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loaderd.errors import CacheError, InvalidArgument
from loaderd_client import (
    ImageDataGenerator,
    Session,
    image_dataset_from_archive,
    image_dataset_from_directory,
)
from tests.support.archives import contents, samples, shards_of, tar_of, zip_of
from tests.support.daemons import Daemon, eventually, shared
from tests.support.object_server import ObjectServer, object_server
from tests.support.records import mds_of, tfrecord_of
from tests.support.tables import Photos, parquet_of

OPTIONS: dict[str, Any] = {"image_size": (24, 32), "batch_size": 8, "seed": 3, "verbose": False}
SECRET = "the-secret"


@pytest.fixture(scope="module")
def store(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    """The photos in a bucket, packed and not."""
    root = tmp_path_factory.mktemp("packed")
    content = contents(photos)
    objects = {f"b/photos/{name}": data for name, data in content.items()}
    tar_of(root / "a.tar", content)
    zip_of(root / "a.zip", content)
    shards_of(root, samples(photos), 3)
    objects |= {f"b/packed/{path.name}": path.read_bytes() for path in root.iterdir()}
    every = Photos.of(photos)
    for path in (
        parquet_of(root / "a.parquet", every, row_group_size=30),
        tfrecord_of(root / "a.tfrecord", every),
        *mds_of(root / "mds", every, 2).iterdir(),
    ):
        objects[f"b/packed/{path.relative_to(root)}"] = path.read_bytes()
    with object_server(objects) as server:
        yield server


@pytest.fixture(scope="module")
def daemon(store: ObjectServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in store.environment.items():
            patch.setenv(name, value)
        with shared(f"--cache-dir={tmp_path_factory.mktemp('cache')}") as daemon:
            yield daemon


@pytest.fixture
def session(daemon: Daemon) -> Iterator[Session]:
    with Session(daemon.path) as session:
        yield session


def batches_of(sequence: Any, epochs: int = 1) -> list[Any]:
    """Copies of all batches."""
    return [[np.array(part) for part in batch] for _ in range(epochs) for batch in sequence]


def check_equal(found: list[Any], expected: list[Any]) -> None:
    assert len(found) == len(expected)
    for batch, other in zip(found, expected, strict=True):
        for part, same in zip(batch, other, strict=True):
            np.testing.assert_array_equal(part, same)


@pytest.fixture
def expected(photos: Path, session: Session) -> list[Any]:
    return batches_of(of_folder(photos), 2)


def of_archive(url: str | list[str], **options: Any) -> Any:
    return image_dataset_from_archive(url, **OPTIONS | options)


def of_folder(place: str | Path, **options: Any) -> Any:
    return image_dataset_from_directory(place, **OPTIONS | options)


ARCHIVES = ["a.tar", "a.zip", "train-{000..002}.tar", "a.parquet", "a.tfrecord", "mds/"]


@pytest.mark.parametrize("cache", ["none", "disk"])
@pytest.mark.parametrize("name", ARCHIVES)
def test_archives_in_a_bucket_give_the_batches_of_the_folder(
    expected: list[Any], name: str, cache: Any
) -> None:
    sequence = of_archive(f"s3://b/packed/{name}", cache=cache)
    check_equal(batches_of(sequence, 2), expected)
    assert all(path.startswith("s3://b/packed/") for path in sequence.file_paths)
    sequence.close()


def test_archives_on_the_web_are_read_by_a_signed_url_that_no_text_shows(
    store: ObjectServer, expected: list[Any], daemon: Daemon
) -> None:
    sequence = of_archive(f"{store.url}/b/packed/a.tar?X-Signature={SECRET}")
    check_equal(batches_of(sequence, 2), expected)
    assert store.requests[-1].path.endswith(f"?X-Signature={SECRET}")
    assert not store.requests[-1].authorization
    assert store.requests[-1].method == "GET"  # for which alone it may be signed
    assert SECRET not in repr(daemon.snapshot()) + daemon.log + "".join(sequence.file_paths)
    sequence.close()


@pytest.mark.parametrize("cache", ["none", "disk", "memory"])
def test_a_folder_of_a_bucket_gives_the_batches_of_the_folder(
    expected: list[Any], cache: Any
) -> None:
    sequence = of_folder("s3://b/photos/", cache=cache)
    check_equal(batches_of(sequence, 2), expected)
    assert sequence.class_names == ["cat", "dog", "emu"]
    assert sequence.file_paths[0].startswith("s3://b/photos/")
    sequence.close()


@pytest.mark.usefixtures("session")
def test_archives_on_the_web_have_names_of_any_characters(
    store: ObjectServer, expected: list[Any]
) -> None:
    store.objects["b/a b+c.tar"] = store.objects["b/packed/a.tar"]
    sequence = of_archive(f"{store.url}/b/a%20b+c.tar")
    check_equal(batches_of(sequence), expected[:12])
    sequence.close()


@pytest.mark.usefixtures("session")
def test_rows_of_parquet_files_give_the_batches_of_the_folder(
    store: ObjectServer, photos: Path, expected: list[Any], tmp_path: Path
) -> None:
    store.objects["b/a.parquet"] = parquet_of(tmp_path / "a", Photos.of(photos)).read_bytes()
    sequence = of_archive("s3://b/a.parquet")
    check_equal(batches_of(sequence), expected[:12])
    sequence.close()


def test_an_index_is_made_and_shown_by_the_command(store: ObjectServer, tmp_path: Path) -> None:
    url, cache = f"{store.url}/b/packed/a.tar?X-Signature={SECRET}", f"--cache-dir={tmp_path}"
    words = [sys.executable, "-m", "loaderd", "index", url, "s3://b/packed/a.zip", cache]
    done = subprocess.run(
        words, env=os.environ | store.environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    first, second, last = done.stdout.splitlines()
    assert re.fullmatch(rf"{store.url}/b/packed/a\.tar  .* KiB  folders  96 images", first)
    assert second.startswith("s3://b/packed/a.zip")
    assert last.startswith("192 samples of 3 classes in 2 archives")
    assert SECRET not in done.stdout + done.stderr


def test_the_command_names_an_archive_that_is_empty(store: ObjectServer, tmp_path: Path) -> None:
    store.objects["b/empty.tar"] = b""
    url = f"{store.url}/b/empty.tar"
    words = [sys.executable, "-m", "loaderd", "index", url, f"--cache-dir={tmp_path}"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert f"{url}: it is empty, or its server gives no ranges" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("session")
def test_archives_that_only_their_queries_tell_apart_are_several(store: ObjectServer) -> None:
    urls = [f"{store.url}/b/packed/a.tar?file={name}" for name in ("a", "b")]
    sequence = of_archive(urls)
    assert len(sequence.file_paths) == 2 * 96
    assert len(batches_of(sequence)) == 2 * 12
    sequence.close()
    with pytest.raises(InvalidArgument, match=r"names http://\S+/a\.tar more than once$"):
        of_archive([urls[0], urls[0]])


@pytest.mark.usefixtures("session")
def test_a_state_is_loaded_with_the_same_archive_elsewhere(
    store: ObjectServer, expected: list[Any], tmp_path: Path
) -> None:
    (tmp_path / "a.tar").write_bytes(store.objects["b/packed/a.tar"])
    local = of_archive(str(tmp_path / "a.tar"))
    found = [[np.array(part) for part in next(local)] for _ in range(5)]
    remote = of_archive("s3://b/packed/a.tar", seed=99)
    remote.load_state_dict(local.state_dict())
    found += [[np.array(part) for part in next(remote)] for _ in range(7)]
    check_equal(found, expected[:12])


@pytest.mark.usefixtures("session")
def test_each_trainer_of_a_shard_has_its_part(expected: list[Any]) -> None:
    halves = [of_archive("s3://b/packed/a.tar", shard=(n, 2), batch_size=4) for n in (0, 1)]
    for batch, parts in zip(expected[:12], zip(*halves, strict=True), strict=True):
        for whole, *pieces in zip(batch, *parts, strict=True):
            np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_a_url_where_a_path_belongs_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="`directory` should be a path: URLs are read by"):
        ImageDataGenerator().flow_from_directory("s3://b/photos")


def test_a_folder_on_the_web_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="no listing: pack them into archives"):
        image_dataset_from_directory("https://example.com/photos")


def folder_bytes(folder: Path) -> int:
    found = 0
    for path in folder.rglob("*.bytes"):
        with contextlib.suppress(FileNotFoundError):  # it was displaced meanwhile
            found += path.stat().st_size
    return found


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize("make", [of_archive, of_folder])
def test_what_was_downloaded_is_not_read_again(
    store: ObjectServer, expected: list[Any], tmp_path: Path, make: Any
) -> None:
    url = "s3://b/packed/a.tar" if make is of_archive else "s3://b/photos"
    sequence = make(url, download=tmp_path / "kept")
    check_equal(batches_of(sequence, 2), expected)
    sequence.close()
    store.requests.clear()
    again = make(url, download=tmp_path / "kept")
    check_equal(batches_of(again, 2), expected)
    again.close()
    assert [one.method for one in store.requests] == ["HEAD" if make is of_archive else "GET"]


@pytest.mark.usefixtures("session")
def test_downloads_stay_within_their_limit_and_a_damaged_one_is_read_again(
    expected: list[Any], tmp_path: Path
) -> None:
    limit = 60_000
    sequence = of_folder("s3://b/photos", download=tmp_path / "kept", download_limit=limit)
    check_equal(batches_of(sequence, 2), expected)
    # What was read last is kept after it is handed over.
    eventually(lambda: limit / 2 < folder_bytes(tmp_path / "kept") <= limit)
    sequence.close()
    for path in (tmp_path / "kept").rglob("*.bytes"):
        with contextlib.suppress(FileNotFoundError):  # what is on its way may displace it yet
            path.write_bytes(path.read_bytes()[::-1])
    again = of_folder("s3://b/photos", download=tmp_path / "kept", download_limit="59KB")
    check_equal(batches_of(again, 2), expected)
    again.close()


@pytest.mark.usefixtures("session")
def test_downloads_that_cannot_be_kept_are_refused(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match=r"cannot keep downloads in .*file: .*another `download`"):
        of_folder("s3://b/photos", download=tmp_path / "file")
    with pytest.raises(InvalidArgument, match="local already"):
        of_folder(photos, download=tmp_path)
    with pytest.raises(InvalidArgument, match="goes with `download`"):
        of_folder("s3://b/photos", download_limit=1)
    with pytest.raises(InvalidArgument, match='such as "50GB"'):
        of_folder("s3://b/photos", download=tmp_path, download_limit="much")
