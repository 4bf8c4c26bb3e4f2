"""A server of S3 that is not ours: moto's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from moto.server import ThreadedMotoServer

from loaderd.errors import BadArchive, DatasetNotFound, StorageRefused
from loaderd_client import (
    Session,
    image_dataset_from_archive,
    image_dataset_from_directory,
)
from tests.support.archives import contents, tar_of
from tests.support.daemons import Daemon, shared

OPTIONS: dict[str, Any] = {"image_size": (24, 32), "batch_size": 8, "seed": 3, "verbose": False}


@pytest.fixture(scope="module")
def daemon(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that reads from a bucket with the photos."""
    folder = tmp_path_factory.mktemp("s3")
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                patch.setenv(name, "any")
            patch.setenv("AWS_REGION", "us-east-1")
            fill(photos, folder)
            with shared(f"--cache-dir={folder / 'cache'}") as daemon:
                yield daemon
    finally:
        server.stop()


def fill(photos: Path, folder: Path) -> None:
    s3, content = boto3.client("s3", region_name="us-east-1"), contents(photos)
    s3.create_bucket(Bucket="photos")
    s3.put_object(Bucket="photos", Key="photos/cat/", Body=b"")  # as web consoles make folders
    for name, data in content.items():
        s3.put_object(Bucket="photos", Key=f"photos/{name}", Body=data)
    s3.upload_file(str(tar_of(folder / "a.tar", content)), "photos", "a b+c#?%20.tar")


def check_equal(found: Any, expected: Any) -> None:
    for batch, other in zip(found, expected, strict=True):
        for part, same in zip(batch, other, strict=True):
            np.testing.assert_array_equal(part, same)


def test_an_archive_and_a_folder_give_the_batches_of_the_folder(
    daemon: Daemon, photos: Path
) -> None:
    with Session(daemon.path):
        for found in (
            image_dataset_from_archive("s3://photos/a b+c#?%20.tar", **OPTIONS),
            image_dataset_from_directory("s3://photos/photos", **OPTIONS),
        ):
            check_equal(found, image_dataset_from_directory(photos, **OPTIONS))


def test_a_bucket_and_objects_that_do_not_exist_are_named(daemon: Daemon) -> None:
    with Session(daemon.path):
        with pytest.raises(DatasetNotFound, match="cannot list s3://none/a: there is no such buck"):
            image_dataset_from_directory("s3://none/a", **OPTIONS)
        with pytest.raises(
            DatasetNotFound, match="cannot list s3://photos/a: no object lies below it"
        ):
            image_dataset_from_directory("s3://photos/a", **OPTIONS)
        with pytest.raises(BadArchive, match=r"s3://photos/a\.tar: it does not exist"):
            image_dataset_from_archive("s3://photos/a.tar", **OPTIONS)
        with pytest.raises(
            StorageRefused, match=r"az://photos/a\.tar: .*Account must be specified"
        ):
            image_dataset_from_archive("az://photos/a.tar", **OPTIONS)
