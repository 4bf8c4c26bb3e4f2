"""``loaderd index``: what it shows of archives, and that datasets find what it keeps."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from loaderd.cli.main import main
from loaderd.sources.archives import Indexer
from loaderd.sources.groups import Recipe
from loaderd_client import Session, image_dataset_from_archive
from loaderd_client.keras.archive import source_of
from tests.support.archives import contents, samples, shards_of, tar_of, zip_of
from tests.support.daemons import Serve, eventually
from tests.support.records import mds_of, tfrecord_of
from tests.support.tables import Photos, parquet_of

Run = Callable[..., tuple[int, list[str], str]]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The default folder of the caches."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "loaderd"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """``loaderd index …``: exit code, lines on stdout, stderr."""

    def call(*words: str) -> tuple[int, list[str], str]:
        code = main(["index", *words])
        shown = capsys.readouterr()
        return code, shown.out.splitlines(), shown.err

    return call


def test_it_shows_what_is_in_archives(run: Run, photos: Path, tmp_path: Path, cache: Path) -> None:
    urls = shards_of(tmp_path, samples(photos), 2)
    code, lines, _ = run(urls)
    sizes = [os.path.getsize(tmp_path / f"train-00{n}.tar") / 1024 for n in range(2)]
    assert code == 0
    assert lines == [
        f"{tmp_path}/train-000.tar  {sizes[0]:.1f} KiB  webdataset (cls)  48 images",
        f"{tmp_path}/train-001.tar  {sizes[1]:.1f} KiB  webdataset (cls)  48 images",
        f"96 samples of 3 classes in 2 archives; the indexes are in {cache}",
    ]
    both = zip_of(tmp_path / "a.zip", contents(photos)), tar_of(tmp_path / "a.tar", {"x": b""})
    code, lines, _ = run("--json", *map(str, both))
    found = [json.loads(line) for line in lines]
    assert [(one["format"], one["label"], one["images"]) for one in found] == [
        ("folders", None, 96),
        (None, None, 0),
    ]


def test_it_shows_what_is_in_tables_and_records(run: Run, photos: Path, tmp_path: Path) -> None:
    every = Photos.of(photos)
    table = parquet_of(tmp_path / "a.parquet", every)
    records = tfrecord_of(tmp_path / "a.tfrecord", every)
    folder = mds_of(tmp_path / "mds", every, 2)
    code, lines, _ = run(str(table), "--label", "name")
    assert (code, lines[0].split("  ")[2:]) == (0, ["parquet (name)", "96 images"])
    code, lines, _ = run("--json", str(records))
    assert json.loads(lines[0])["format"] == "tfrecord"
    code, lines, _ = run(str(folder), "--image", "image")
    assert [line.split("  ")[2:] for line in lines[:2]] == [["mds (label)", "48 images"]] * 2
    assert lines[2].startswith("96 samples of 3 classes in 2 archives")
    code, lines, said = run(str(table), "--image", "photo")
    assert code == 1
    assert f"{table}: it has no column 'photo' of images: it has label, image, name" in said


def test_archives_that_make_no_dataset_are_named(run: Run, tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", {"1.jpg": b"", "1.cls": b"1", "2.jpg": b""})
    code, lines, said = run(str(path))
    assert (code, lines) == (1, [])
    assert f"{path}: 2.jpg has no label" in said
    assert run(str(path), "--label", "none")[0] == 0
    assert run(str(path), "--label", "class")[0] == 2
    assert run(str(tmp_path / "b.tar"))[0] == 1


def test_a_dataset_takes_the_index_that_was_made(
    run: Run, serve: Serve, photos: Path, tmp_path: Path, cache: Path
) -> None:
    path = tar_of(tmp_path / "a.tar", contents(photos))

    def is_kept() -> bool:
        run(str(path))
        return any(cache.glob("archives/*.index"))

    eventually(is_kept)
    (file,) = cache.glob("archives/*.index")
    before = file.stat()
    with serve(2) as daemon, Session(daemon.path):
        sequence = image_dataset_from_archive(path, image_size=(24, 32), verbose=False)
        assert len(sequence.file_paths) == 96  # type: ignore[union-attr]
    assert list(cache.glob("archives/*")) == [file]
    assert file.stat().st_mtime_ns == before.st_mtime_ns


def test_an_index_with_masks_is_that_of_a_dataset_with_masks(
    run: Run, tmp_path: Path, cache: Path
) -> None:
    content = {"1.jpg": b"", "1.mask.png": b"", "2.jpg": b""}
    code, _, said = run(str(tar_of(tmp_path / "b.tar", content)), "--mask", "mask.png")
    assert code == 1
    assert "2.jpg has no mask" in said
    path = tar_of(tmp_path / "a.tar", dict(list(content.items())[:2]))
    asked = source_of(path, "webdataset", None, None, "mask.png")

    def is_kept() -> bool:
        run(str(path), "--mask", "mask.png")
        return any(cache.glob("archives/*.index"))

    eventually(is_kept)
    (file,) = cache.glob("archives/*.index")
    before = file.stat()
    (found,) = Indexer(asked.paths, Recipe.of(asked), str(cache)).run(lambda *_: None)
    assert found.mask_names == ["1.mask.png"]
    assert list(cache.glob("archives/*")) == [file]
    assert file.stat().st_mtime_ns == before.st_mtime_ns
