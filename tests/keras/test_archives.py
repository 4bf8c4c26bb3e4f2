"""Datasets from archives give the batches of the same images in a folder, whatever happens."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loaderd.errors import BadArchive, BadImage, EmptyDataset, InvalidArgument, InvalidType
from loaderd.ipc import dial
from loaderd.ipc.messages import Indexing
from loaderd_client import (
    Session,
    image_dataset_from_archive,
    image_dataset_from_directory,
)
from loaderd_client import augment as A
from loaderd_client.core.indexing_bar import IndexingBar
from tests.support.archives import contents, samples, shards_of, tar_of, zip_of
from tests.support.batches import batches_of, check_equal
from tests.support.daemons import Daemon, Serve, eventually, shared

OPTIONS: dict[str, Any] = {"image_size": (24, 32), "batch_size": 8, "seed": 3, "verbose": False}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with shared(f"--cache-dir={tmp_path_factory.mktemp('cache')}") as daemon:
        yield daemon


@pytest.fixture
def session(daemon: Daemon) -> Iterator[Session]:
    with Session(daemon.path) as session:
        yield session


@pytest.fixture(scope="module")
def packed(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The photos in archives of all kinds."""
    root = tmp_path_factory.mktemp("archives")
    content = contents(photos)
    return {
        "tar of class folders": tar_of(root / "folders.tar", content),
        "tars of class folders": [
            tar_of(root / "1.tar", dict(list(content.items())[::2])),
            tar_of(root / "2.tar", dict(list(content.items())[1::2])),
        ],
        "deflated zip": zip_of(root / "deflated.zip", content),
        "stored zip": zip_of(root / "stored.zip", content, zipfile.ZIP_STORED),
        "tars of samples": shards_of(root, samples(photos), 5),
        "zip of samples": zip_of(root / "samples.zip", samples(photos, "txt")),
    }


KINDS = [
    "tar of class folders",
    "tars of class folders",
    "deflated zip",
    "stored zip",
    "tars of samples",
    "zip of samples",
]


def of_folder(photos: Path, **options: Any) -> Any:
    return image_dataset_from_directory(photos, **OPTIONS | options)


def of_archive(urls: Any, **options: Any) -> Any:
    return image_dataset_from_archive(urls, **OPTIONS | options)


CASES: dict[str, dict[str, Any]] = {
    "shuffled": {},
    "in order": {"shuffle": False},
    "without labels": {"label_mode": None},
    "validation": {"validation_split": 0.3, "subset": "validation"},
    "training": {"validation_split": 0.3, "subset": "training", "label_mode": "categorical"},
    "of one trainer of two": {"shard": (1, 2), "remainder": "pad"},
    "augmented": {"augment": [A.RandomResizedCrop(24, 32), A.RandomHue(0.2)]},
    "cached in memory": {"cache": "memory"},
    "cached on disk": {"cache": "disk"},
    "by weights": {"class_weights": {"cat": 1.0, "dog": 3.0}},
    "shared": {"share": "one"},
}


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize("kind", ["tars of class folders", "tars of samples", "deflated zip"])
@pytest.mark.parametrize("case", CASES)
def test_batches_are_those_of_the_folder(
    photos: Path, packed: dict[str, Any], kind: str, case: str
) -> None:
    given = CASES[case]
    if "samples" in kind and case == "by weights":
        given = given | {"class_names": ["cat", "dog", "emu"]}
    if "share" in given:
        given = given | {"share": f"of {kind}"}
    expected = of_folder(photos, **CASES[case] | ({"share": "folder"} if "share" in given else {}))
    found = of_archive(packed[kind], **given)
    check_equal(batches_of(found), batches_of(expected))
    found.close()
    expected.close()


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds_have_classes_and_paths_of_their_members(
    photos: Path, packed: dict[str, Any], kind: str
) -> None:
    expected, found = of_folder(photos), of_archive(packed[kind])
    check_equal(batches_of(found, 1), batches_of(expected, 1))
    is_numbered = kind == "tars of samples"
    assert found.class_names == (["0", "1", "2"] if is_numbered else ["cat", "dog", "emu"])
    assert len(set(found.file_paths)) == 96
    for path in found.file_paths:
        archive, member = re.split(r"(?<=\.tar)/|(?<=\.zip)/", path)
        assert os.path.isfile(archive)
        assert member.endswith(".jpg")
    found.close()
    expected.close()


@pytest.mark.usefixtures("session")
def test_loops_without_keras_and_both_subsets(photos: Path, packed: dict[str, Any]) -> None:
    both = {"validation_split": 0.25, "subset": "both"}
    found = of_archive(packed["tars of samples"], **both)
    expected = of_folder(photos, **both)
    for one, other in zip(found, expected, strict=True):
        for (x, y), (u, v) in zip(one.numpy(), other.numpy(), strict=True):
            np.testing.assert_array_equal(x, u)
            np.testing.assert_array_equal(y, v)


@pytest.mark.usefixtures("session")
def test_a_state_is_loaded_with_the_same_archives_elsewhere(
    photos: Path, packed: dict[str, Any], tmp_path: Path
) -> None:
    first = of_archive(packed["tars of samples"])
    expected = batches_of(first, 1)
    again = of_archive(packed["tars of samples"])
    read = [[np.array(part) for part in next(again)] for _ in range(5)]
    state = again.state_dict()
    again.close()
    moved = tmp_path / "moved"
    shutil.copytree(os.path.dirname(packed["tars of samples"]), moved)
    resumed = of_archive(str(moved / "train-{000..004}.tar"), seed=99)
    resumed.load_state_dict(state)
    rest = [[np.array(part) for part in next(resumed)] for _ in range(len(first) - 5)]
    check_equal(read + rest, expected)


def test_killed_workers_change_no_byte(
    serve: Serve, photos: Path, packed: dict[str, Any], tmp_path: Path
) -> None:
    cache = f"--cache-dir={tmp_path / 'cache'}"
    with serve(2, cache) as daemon, Session(daemon.path):
        expected = batches_of(of_folder(photos))
        sequence = of_archive(packed["tars of samples"])
        found: list[Any] = []

        def all_replaced() -> bool:
            state = daemon.snapshot()
            return (state.restarts, len(state.workers)) == (len(found), 2)

        for number in range(2 * len(sequence)):
            eventually(all_replaced)
            os.kill(daemon.workers()[number % 2], signal.SIGKILL)
            found.append([np.array(part) for part in next(sequence)])
        check_equal(found, expected)


def test_a_client_goes_on_with_the_next_daemon_by_its_own_listing(
    serve: Serve, photos: Path, packed: dict[str, Any], tmp_path: Path
) -> None:
    cache = f"--cache-dir={tmp_path / 'cache'}"
    own = shutil.copy(packed["stored zip"], tmp_path / "a.zip")
    with contextlib.ExitStack() as stack:
        with serve(2, cache) as daemon:
            stack.enter_context(Session(daemon.path, reconnect_timeout=60))
            expected = batches_of(of_folder(photos), 1)
            sequence = of_archive(own)
            found = [[np.array(part) for part in next(sequence)] for _ in range(3)]
        with serve(2, f"--cache-dir={tmp_path / 'other'}"):
            found += [[np.array(part) for part in next(sequence)] for _ in range(9)]
            check_equal(found, expected)
            sequence.close()
    assert (tmp_path / "cache" / "archives").exists()
    assert not (tmp_path / "other").exists()  # nothing was indexed again


def descriptors_of(pid: int, folder: str) -> int:
    """How many files of a folder a process holds open."""
    links = (os.path.join(f"/proc/{pid}/fd", name) for name in os.listdir(f"/proc/{pid}/fd"))
    return sum(os.path.exists(one) and os.readlink(one).startswith(folder) for one in links)


def test_workers_alone_hold_archives_open_and_few_of_them(
    serve: Serve, photos: Path, tmp_path: Path
) -> None:
    urls = shards_of(tmp_path, samples(photos), 24)
    with serve(2, f"--cache-dir={tmp_path / 'cache'}") as daemon, Session(daemon.path):
        sequence = of_archive(urls)
        batches_of(sequence, 1)
        held = [descriptors_of(pid, str(tmp_path / "train")) for pid in daemon.workers()]
        assert max(held) >= 1
        assert max(held) <= 8
        assert descriptors_of(os.getpid(), str(tmp_path)) == 0
        assert descriptors_of(daemon.process.pid, str(tmp_path / "train")) == 0
        sequence.close()
        eventually(
            lambda: (
                not any(descriptors_of(pid, str(tmp_path / "train")) for pid in daemon.workers())
            )
        )


# -- what is wrong with archives ---------------------------------------------------------


@pytest.fixture(scope="module")
def flawed(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The photos with one that is damaged: in a folder, and in a tar."""
    root = tmp_path_factory.mktemp("flawed")
    folder = Path(shutil.copytree(photos, root / "photos"))
    (folder / "cat" / "003.jpg").write_bytes(b"\xff\xd8\xff no picture")
    return folder, tar_of(root / "a.tar", contents(folder))


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize("policy", ["skip", "substitute"])
def test_a_policy_for_bad_images_counts_for_each_member(
    flawed: tuple[Path, Path], policy: str
) -> None:
    found = of_archive(flawed[1], on_error=policy)
    check_equal(batches_of(found), batches_of(of_folder(flawed[0], on_error=policy)))


def test_a_bad_image_is_named_with_its_archive(
    serve: Serve, flawed: tuple[Path, Path], tmp_path: Path
) -> None:
    cache = f"--cache-dir={tmp_path / 'cache'}"
    with serve(2, cache) as daemon, Session(daemon.path):
        with pytest.raises(BadImage, match=r"a\.tar/cat/003\.jpg: "):
            batches_of(of_archive(flawed[1]))
        (sample,) = [one.path for one in dial.list_bad(daemon.path)]
        assert sample == os.fsencode(flawed[1] / "cat" / "003.jpg")


@pytest.mark.usefixtures("session")
def test_an_archive_that_changes_ends_the_stream_whatever_the_policy(
    photos: Path, tmp_path: Path
) -> None:
    path = tar_of(tmp_path / "a.tar", contents(photos))
    sequence = of_archive(path, on_error="skip", max_queue_size=1)
    next(sequence)
    with open(path, "ab") as file:
        file.write(bytes(10240))
    with pytest.raises(BadArchive, match=r"a\.tar/.*\.jpg: it was changed after it was indexed"):
        batches_of(sequence, 3)
    sequence.close()
    again = of_archive(path)
    check_equal(batches_of(again, 1), batches_of(of_folder(photos), 1))


BAD: dict[str, tuple[dict[str, bytes], str]] = {
    "truncated": ({"cat/1.jpg": bytes(5000)}, r"a\.tar: it is truncated: cat/1\.jpg"),
    "without a label": (
        {"1.jpg": b"", "1.cls": b"0", "2.jpg": b""},
        r"a\.tar: 2\.jpg has no label",
    ),
    "two images": ({"1.jpg": b"", "1.png": b"", "1.cls": b"0"}, r"a\.tar: key 1 has two images"),
}


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize(("content", "words"), BAD.values(), ids=BAD)
def test_archives_that_make_no_samples_are_refused_when_the_dataset_is_made(
    tmp_path: Path, content: dict[str, bytes], words: str
) -> None:
    path = tar_of(tmp_path / "a.tar", content)
    if "truncated" in words:
        os.truncate(path, 3000)
    with pytest.raises(BadArchive, match=words):
        of_archive(path, on_error="skip")


@pytest.mark.usefixtures("session")
def test_archives_without_images_say_where_they_were_looked_for(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", {"1.jpg": b"", "notes.md": b""})
    with pytest.raises(EmptyDataset, match=r"archives of .*a\.tar: .*\.cls.*class folders.*folder"):
        of_archive(path)


WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no archive": ([], {}, "one archive or more"),
    "twice": (["a.tar", "./a.tar"], {}, "more than once"),
    "a URL of no store": ("ftp://example.com/a.tar", {}, "ftp:// is none of s3://"),
    "paths and URLs": (["a.tar", "s3://b/a.tar"], {}, "and not both"),
    "one URL twice": (["http://h/a.tar?x=1", "http://h/a.tar?x=1"], {}, "http://h/a.tar more than"),
    "a password": ("https://me:secret@h/a.tar", {}, r"no password.*https://\.\.\.@h/a.tar"),
    "no range": ("a-{3}.tar", {}, r"\{000\.\.004\}"),
    "a range backwards": ("a-{004..000}.tar", {}, "from the lower number"),
    "a large range": ("a-{0..99999}-{0..9}.tar", {}, "more than 100,000"),
    "format": ("a.tar", {"format": "tar"}, "Invalid format: tar"),
    "label": ("a.tar", {"label": "class", "format": "folders"}, '"json:FIELD"'),
    "no label": ("a.tar", {"label": ""}, "should name a column"),
    "image": ("a.tar", {"image": ""}, "`image` should be the extension"),
    "label_mode": ("a.tar", {"label_mode": "sparse"}, "`label_mode`"),
    "nested braces": ("a-{1,{2,3}}.tar", {}, "within others"),
    "names without labels": ("a.tar", {"label": None, "class_names": ["a"]}, "class_names"),
}


@pytest.mark.parametrize(("urls", "options", "words"), WRONG.values(), ids=WRONG)
def test_arguments_that_are_not_allowed_are_named(
    urls: Any, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidArgument, match=words):
        of_archive(urls, **options)


def test_unknown_arguments_are_refused_with_the_one_that_was_meant() -> None:
    with pytest.raises(InvalidType, match=r"did you mean image_size\?"):
        of_archive("a.tar", image_sice=3)


@pytest.mark.usefixtures("session")
def test_a_pattern_stands_for_archives_in_order(photos: Path, tmp_path: Path) -> None:
    shards_of(tmp_path, samples(photos), 12)
    given = ["train-{011,000}.tar", "train-00{3..4}.tar"]
    found = of_archive([tmp_path / one for one in given], shuffle=False)
    names = [os.path.basename(os.path.dirname(path)) for path in found.file_paths]
    expected = [f"train-{number}.tar" for number in ("011", "000", "003", "004")]
    assert list(dict.fromkeys(names)) == expected


# -- the index ---------------------------------------------------------------------------


def test_progress_is_shown_where_indexing_takes_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with IndexingBar() as bar:
        bar.show(Indexing(0.25, 1, 4))
        bar.show(Indexing(0.5, 2, 4))
    assert capsys.readouterr().err == "indexing 4 archives, once until they change\n"
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with IndexingBar() as bar:
        bar.show(Indexing(0.25, 1, 4))
    shown = capsys.readouterr().err
    assert "\rindexing archives [#####...............] 25%, 1 of 4" in shown
    assert shown.endswith(" \r")


def test_an_asterisk_is_refused_with_what_to_write() -> None:
    with pytest.raises(InvalidArgument, match=r"write \{000\.\.031\} for numbers"):
        image_dataset_from_archive("/data/train-*.tar")
