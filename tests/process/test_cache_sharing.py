"""Choices of the same files share a cache, whoever makes them, and nobody gets another's pixels."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from loaderd.ipc import manifest
from loaderd.ipc.bundle import Bundle
from loaderd.spec.base import Cache
from loaderd.spec.output import Batching, Order
from loaderd.spec.source import Directory, Files
from loaderd.spec.spec import Spec
from loaderd_client import Session
from tests.process.test_cache import found, small_disk  # noqa: F401
from tests.support.daemons import Daemon, eventually
from tests.support.specs import stages, with_load

Serve = Callable[..., contextlib.AbstractContextManager[Daemon]]
SIDE = 20
COUNT = 40
ENDING = (".bmp",)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    """Two classes of 20 bitmaps, each filled with its number; all of one size and date."""
    root = tmp_path / "numbered"
    for number in range(COUNT):
        write(root / "ab"[number // 20] / f"{number:03}.bmp", number)
    return root


def write(path: Path, number: int) -> None:
    """A bitmap with nothing but its pixels to tell it from others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((SIDE, SIDE, 3), number, np.uint8)).save(path, "bmp")
    os.utime(path, (0, 0))


def spec_of(source: Directory | Files, cache: Cache, shuffle: bool = False) -> Spec:
    return Spec(
        source=source,
        **stages(target_size=(SIDE, SIDE), dtype="uint8"),
        batch=Batching(batch_size=8, label_mode="none"),
        order=Order(shuffle=shuffle, seed=3),
        cache=cache,
    )


def epoch(daemon: Daemon, spec: Spec, listed: list[bytes] | None = None) -> list[int]:
    """The numbers of an epoch's images, each of which must be of one number all over."""
    bundles = []
    if listed is not None:
        table = manifest.pack("", (), listed, np.zeros(len(listed), np.int32))
        bundles = [Bundle({"manifest": np.frombuffer(table, np.uint8)})]
    with Session(daemon.path) as session:
        stream = session.open(spec, slots=4, bundles=bundles)
        images = [np.array(stream.take((0, at)).images) for at in range(stream.batches)]
        eventually(lambda: rests(daemon))
    whole = np.concatenate(images)
    assert (whole == whole[:, :1, :1, :1]).all()
    numbers: list[int] = whole[:, 0, 0, 0].tolist()
    return numbers


def rests(daemon: Daemon) -> bool:
    """Whether all that can be made ahead is made, so that nothing is counted later."""
    return not any(stream.filling for stream in daemon.snapshot().streams)


def directory(path: Path | str, **fields: object) -> Directory:
    return Directory(directory=str(path), extensions=ENDING, **fields)  # type: ignore[arg-type]


def table(daemon: Daemon, root: Path, numbers: Iterable[int], cache: Cache) -> list[int]:
    """An epoch of the files with these numbers, as a table names them."""
    paths = [str(root / "ab"[number // 20] / f"{number:03}.bmp") for number in numbers]
    spec = spec_of(Files(os.path.commonpath(paths)), cache)
    return epoch(daemon, spec, [os.fsencode(path) for path in paths])


@contextlib.contextmanager
def decoding(daemon: Daemon, times: int, again: int = 0) -> Iterator[None]:
    """Within it, so many images are decoded, and all others come from a cache.

    Where there are but a few, two workers may have the same one at hand at once: ``again``.
    """
    before = decoded(daemon)
    yield
    assert times <= decoded(daemon) - before <= times + again


def decoded(daemon: Daemon) -> int:
    cached, rows = found(daemon)
    return rows - cached


def caches(folder: Path) -> list[Path]:
    return list(folder.glob("*.images"))


def folds() -> Iterator[tuple[list[int], list[int]]]:
    for fold in range(5):
        yield (
            [number for number in range(COUNT) if number % 5 != fold],
            [number for number in range(COUNT) if number % 5 == fold],
        )


# -- choices of the same files ---------------------------------------------------------


@pytest.mark.parametrize("cache", ["disk", "memory"])
def test_five_folds_of_a_table_decode_every_file_once_and_take_the_room_of_one_copy(
    serve: Serve, numbered: Path, folder: Path, cache: Cache
) -> None:
    with serve(2, f"--cache-dir={folder}") as daemon:
        with decoding(daemon, COUNT, again=24):
            for part in folds():
                for numbers in part:
                    assert table(daemon, numbered, numbers, cache) == numbers
        with decoding(daemon, 0):  # and as a directory, in another order
            whole = spec_of(directory(numbered), cache, shuffle=True)
            assert sorted(epoch(daemon, whole)) == [*range(COUNT)]
        size = daemon.snapshot().host.cache_bytes
        if cache == "disk":
            size = sum(os.stat(path).st_blocks * 512 for path in caches(folder))
        assert size < COUNT * SIDE * SIDE * 3 + 32 * 1024


@pytest.mark.parametrize("cache", ["disk", "memory"])
def test_trainers_that_grow_one_cache_at_once_have_the_right_images(
    serve: Serve, numbered: Path, folder: Path, cache: Cache
) -> None:
    with serve(3, f"--cache-dir={folder}") as daemon, ThreadPoolExecutor(5) as threads:
        for _ in range(2):
            asked = [part for both in folds() for part in both]
            given = threads.map(lambda part: table(daemon, numbered, part, cache), asked)
            assert [*given] == asked
        with decoding(daemon, 0):
            assert table(daemon, numbered, range(COUNT), cache) == [*range(COUNT)]


def test_the_subsets_of_a_directory_share_one_cache(
    serve: Serve, numbered: Path, folder: Path
) -> None:
    with serve(2, f"--cache-dir={folder}") as daemon:
        with decoding(daemon, COUNT, again=24):
            for split in ((0.2, 1.0), (0.0, 0.2)):
                subset = directory(numbered, split_per_class=split)
                epoch(daemon, spec_of(subset, "disk"))
        with decoding(daemon, 0):
            for seed, shuffle in ((7, False), (8, True)):
                parts: list[int] = []
                for name in ("training", "validation"):
                    subset = directory(numbered, shuffle_seed=seed, split_overall=(0.25, name))
                    parts += epoch(daemon, spec_of(subset, "disk", shuffle))
                assert sorted(parts) == [*range(COUNT)]
            assert epoch(daemon, spec_of(directory(numbered, classes=("b",)), "disk")) == [
                *range(20, COUNT)
            ]
    assert len(caches(folder)) == 1


def test_files_that_come_and_go_are_the_only_ones_that_are_decoded(
    serve: Serve, numbered: Path, folder: Path
) -> None:
    spec = spec_of(directory(numbered), "disk")
    with serve(2, f"--cache-dir={folder}") as daemon:
        assert epoch(daemon, spec) == [*range(COUNT)]
    write(numbered / "a" / "019.5.bmp", 77)
    (numbered / "b" / "020.bmp").unlink()
    (numbered / "b" / "021.bmp").rename(numbered / "b" / "099.bmp")
    with serve(2, f"--cache-dir={folder}") as daemon, decoding(daemon, 2):
        assert epoch(daemon, spec) == [*range(19), 77, 19, *range(22, COUNT), 21]
    assert len(caches(folder)) == 1


def test_a_folder_by_any_other_name_has_the_same_cache(
    serve: Serve, numbered: Path, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to("numbered")
    fold = tmp_path / "fold" / "a"
    fold.mkdir(parents=True)
    for number in range(15, 20):
        (fold / f"{number:03}.bmp").symlink_to(f"../../numbered/a/{number:03}.bmp")
    (tmp_path / "fold" / "b").symlink_to(numbered / "b")
    with serve(2, f"--cache-dir={folder}") as daemon:
        assert epoch(daemon, spec_of(directory(numbered), "disk")) == [*range(COUNT)]
        with decoding(daemon, 0):
            for name in (
                f"{numbered}/",
                f"{numbered}/a/..",
                f"{tmp_path}/link",
                f"{tmp_path}/link/",
            ):
                assert epoch(daemon, spec_of(directory(name), "disk")) == [*range(COUNT)]
    assert len(caches(folder)) == 1
    with serve(2, f"--cache-dir={folder}") as daemon:
        linked = spec_of(directory(tmp_path / "fold"), "disk")
        for _ in range(2):
            assert epoch(daemon, linked) == [*range(15, COUNT)]


def test_folders_of_links_to_the_same_files_decode_them_once(
    serve: Serve, numbered: Path, folder: Path, tmp_path: Path
) -> None:
    everything = spec_of(Files(str(tmp_path)), "disk")
    listed = sorted(map(bytes, numbered.rglob("*.bmp")))
    with serve(2, f"--cache-dir={folder}") as daemon:
        assert epoch(daemon, everything, listed) == [*range(COUNT)]
        for fold, part in enumerate(folds()):
            for name, numbers in zip(("train", "test"), part, strict=True):
                fold_folder = tmp_path / "folds" / str(fold) / name
                for number in numbers:
                    link = fold_folder / "ab"[number // 20] / f"{number:03}.bmp"
                    link.parent.mkdir(parents=True, exist_ok=True)
                    link.symlink_to(numbered / link.relative_to(fold_folder))
                with decoding(daemon, 0):
                    assert epoch(daemon, spec_of(directory(fold_folder), "disk")) == numbers
    assert len(caches(folder)) == 1


@contextlib.contextmanager
def mounted(source: Path, target: Path) -> Iterator[None]:
    target.mkdir()
    mount = ["mount", "--bind", str(source), str(target)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("folders cannot be mounted here")
    yield
    subprocess.run(["umount", "--lazy", str(target)], check=True)


def test_another_folder_mounted_over_the_old_one_has_images_of_its_own(
    serve: Serve, numbered: Path, folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    for number in range(COUNT):
        write(other / "ab"[number // 20] / f"{number:03}.bmp", 100 + number)
    here, spec = tmp_path / "here", spec_of(directory(tmp_path / "here"), "disk")
    with serve(2, f"--cache-dir={folder}") as daemon:
        for _ in range(2):
            for source, first in ((numbered, 0), (other, 100)):
                with mounted(source, here):
                    assert epoch(daemon, spec) == [*range(first, first + COUNT)]
                here.rmdir()


def test_names_of_any_bytes_are_kept_apart(serve: Serve, tmp_path: Path, folder: Path) -> None:
    root = tmp_path / os.fsdecode(b"odd\n\xff")
    names = [b"a\n.bmp", b"a.bmp", b"a\xfe.bmp", b"a\xff.bmp", b"a\\n.bmp"]
    for number, name in enumerate(sorted(names)):
        write(root / "x" / os.fsdecode(name), number)
    with serve(2, f"--cache-dir={folder}") as daemon:
        spec = spec_of(directory(root), "disk")
        assert epoch(daemon, spec) == [*range(5)]
        with decoding(daemon, 0):
            assert epoch(daemon, spec) == [*range(5)]
    with serve(2, f"--cache-dir={folder}", "--cache-size=13k") as daemon:
        assert epoch(daemon, spec) == [*range(5)]
        assert r"of 5 images of " in daemon.log


def test_a_file_that_a_table_names_many_times_is_decoded_once(
    serve: Serve, numbered: Path, folder: Path
) -> None:
    often = [3, 3, 3, 25, 3, 25, 7, 3, 3] * 5
    with serve(1, f"--cache-dir={folder}") as daemon:
        assert table(daemon, numbered, often, "disk") == often
        with decoding(daemon, 0):
            assert table(daemon, numbered, often, "disk") == often
    (cache,) = caches(folder)
    assert os.stat(cache).st_blocks * 512 <= 3 * 4096 + 3 * SIDE * SIDE * 3 + 4096


# -- files that are not what they were -------------------------------------------------


def rewrite(root: Path, number: int) -> None:
    write(root / "a" / "003.bmp", number)


def replace(root: Path, number: int) -> None:
    write(root / "new.bmp", number)
    (root / "new.bmp").rename(root / "a" / "003.bmp")


def replace_all(root: Path, number: int) -> None:
    """By another folder, as who unpacks beside the old version, and swaps them."""
    fresh = root.with_name("fresh")
    shutil.copytree(root, fresh)
    rewrite(fresh, number)
    root.rename(root.with_name(f"before {number}"))
    fresh.rename(root)


def test_an_image_of_the_size_and_date_of_the_old_one_is_noticed(
    serve: Serve, numbered: Path, folder: Path
) -> None:
    with serve(2, f"--cache-dir={folder}") as daemon:
        for version, change in enumerate(2 * [rewrite, replace, replace_all], 100):
            change(numbered, version)
            for cache in ("disk", "memory", "disk", "memory"):
                spec = spec_of(directory(numbered), cache)
                assert epoch(daemon, spec) == [0, 1, 2, version, *range(4, COUNT)]


def test_a_stream_that_is_open_keeps_what_it_has_and_the_next_keeps_what_is_new(
    serve: Serve, numbered: Path, folder: Path
) -> None:
    spec = spec_of(directory(numbered, classes=("a",)), "disk")
    with serve(2, f"--cache-dir={folder}") as daemon, Session(daemon.path) as session:
        early = session.open(spec, slots=4)
        assert early.take((0, 0)).images[3, 0, 0, 0] == 3
        write(numbered / "a" / "003.bmp", 103)

        def is_kept() -> bool:
            """As soon as it is not fresh any more."""
            before = decoded(daemon)
            assert epoch(daemon, spec)[:5] == [0, 1, 2, 103, 4]
            return decoded(daemon) == before

        eventually(is_kept)
        assert early.take((1, 0)).images[3, 0, 0, 0] == 3


def test_files_of_any_date_are_kept(serve: Serve, numbered: Path, folder: Path) -> None:
    years = (1601, 1902, 1969, 1970, 2106, 2300, 2440, 9999)
    for path, year in zip(sorted(numbered.rglob("*.bmp")), 5 * years, strict=True):
        os.utime(path, ns=(0, (year - 1970) * 31_556_952 * 10**9 + 1))
    spec = spec_of(directory(numbered), "disk")
    with serve(2, f"--cache-dir={folder}") as daemon:
        assert epoch(daemon, spec) == [*range(COUNT)]
        with decoding(daemon, 0):
            assert epoch(daemon, spec) == [*range(COUNT)]


# -- one cache, several who change it --------------------------------------------------


def test_two_daemons_grow_one_cache(serve: Serve, numbered: Path, folder: Path) -> None:
    words = [f"--cache-dir={folder}"]
    with serve(1, *words) as one, serve(1, *words, "--name=other") as other:
        other.path = other.path.replace("default", "other")
        with ThreadPoolExecutor(2) as threads:
            for part in (range(0, COUNT, 2), range(0, COUNT, 3), range(COUNT)):
                asked = [*part]
                jobs = [
                    threads.submit(table, daemon, numbered, asked[::step], "disk")
                    for daemon, step in ((one, 1), (other, -1))
                ]
                assert [job.result() for job in jobs] == [asked, asked[::-1]]
        for daemon in (one, other):
            with decoding(daemon, 0):
                assert table(daemon, numbered, range(COUNT), "disk") == [*range(COUNT)]
    assert len(caches(folder)) == 1


def test_a_disk_that_is_full_when_a_cache_grows_costs_no_byte(
    serve: Serve,
    numbered: Path,
    small_disk: Path,  # noqa: F811
) -> None:
    with serve(2, f"--cache-dir={small_disk}", "--cache-size=1G") as daemon:
        first = [*range(0, COUNT, 4)]
        assert table(daemon, numbered, first, "disk") == first
        with contextlib.suppress(OSError):
            (small_disk / "full").write_bytes(bytes(10**6))
        for _ in range(2):
            assert table(daemon, numbered, range(COUNT), "disk") == [*range(COUNT)]
        with decoding(daemon, 0):
            assert table(daemon, numbered, first, "disk") == first


def test_a_cache_that_is_truncated_while_others_grow_it_serves_nothing_wrong(
    serve: Serve, numbered: Path, folder: Path
) -> None:
    spec = spec_of(directory(numbered, classes=("a",)), "disk")
    with serve(2, f"--cache-dir={folder}") as daemon, Session(daemon.path) as session:
        early = session.open(spec, slots=4)
        for position in range(early.batches):
            early.take((0, position))
        for size in (100, 20_000, 0, 5000):
            os.truncate(caches(folder)[0], size)
            assert table(daemon, numbered, range(COUNT), "disk") == [*range(COUNT)]
            assert early.take((0, 0)).images[5, 0, 0, 0] == 5
        eventually(lambda: rests(daemon))
        with decoding(daemon, 0):
            assert table(daemon, numbered, range(COUNT), "disk") == [*range(COUNT)]


def test_caches_of_an_earlier_version_are_no_hindrance(
    serve: Serve, numbered: Path, folder: Path
) -> None:
    spec = spec_of(directory(numbered), "disk")
    with serve(1, f"--cache-dir={folder}") as daemon:
        assert epoch(daemon, spec) == [*range(COUNT)]
        (cache,) = caches(folder)
        cache.write_bytes(b"loaderdC" + (2).to_bytes(4, "little") + bytes(9000))
        (folder / ("ab" * 16 + ".images")).write_bytes(cache.read_bytes())
        assert epoch(daemon, spec) == [*range(COUNT)]
        with decoding(daemon, 0):
            assert epoch(daemon, spec) == [*range(COUNT)]


def test_images_that_are_decoded_otherwise_have_a_cache_of_their_own(
    serve: Serve, numbered: Path, folder: Path
) -> None:
    plain = spec_of(directory(numbered), "disk")
    with serve(1, f"--cache-dir={folder}") as daemon:
        for change in ({}, {"target_size": (SIDE, 10)}, {"color_mode": "rgba"}):
            changed = with_load(plain, **change)
            with decoding(daemon, COUNT), Session(daemon.path) as session:
                stream = session.open(changed, slots=4)
                for position in range(stream.batches):
                    shape = stream.take((0, position)).images.shape
                    assert shape == (8, *changed.image_shape)
                eventually(lambda: rests(daemon))
    assert len(caches(folder)) == 3
