"""Datasets from tables and records give the batches of the same images in a folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loaderd.errors import BadArchive, BadImage, EmptyDataset, InvalidArgument, InvalidType
from loaderd_client import (
    Session,
    image_dataset_from_archive,
    image_dataset_from_directory,
    image_dataset_from_huggingface,
    image_dataset_from_parquet,
)
from loaderd_client import augment as A
from tests.support.batches import batches_of, check_equal
from tests.support.daemons import Daemon, Serve, shared
from tests.support.records import mds_of, tfrecord_of
from tests.support.tables import Photos, dataset_of, parquet_of

of_parquet: Any = image_dataset_from_parquet
of_huggingface: Any = image_dataset_from_huggingface
OPTIONS: dict[str, Any] = {"image_size": (24, 32), "batch_size": 8, "seed": 3, "verbose": False}
Make = Callable[..., Any]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with shared(f"--cache-dir={tmp_path_factory.mktemp('cache')}") as daemon:
        yield daemon


@pytest.fixture
def session(daemon: Daemon) -> Iterator[Session]:
    with Session(daemon.path) as session:
        yield session


@pytest.fixture(scope="module")
def saved(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The photos as a dataset of Hugging Face, in three files."""
    import datasets

    folder = tmp_path_factory.mktemp("saved")
    dataset_of(Photos.of(photos)).save_to_disk(folder, num_shards=3)
    return datasets.load_from_disk(folder)


@pytest.fixture(scope="module")
def makers(photos: Path, saved: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Make]:
    """What makes a dataset of the photos, by the kind of table."""
    root, every = tmp_path_factory.mktemp("tables"), Photos.of(photos)
    half = len(every.paths) // 2
    one = parquet_of(root / "1.parquet", every.part(0, half), row_group_size=20)
    two = parquet_of(root / "2.parquet", every.part(half, 2 * half), compression="none")
    written = root / "of-datasets.parquet"
    saved.to_parquet(written)
    for shard in range(3):
        tfrecord_of(root / f"photos-{shard}", every.part(32 * shard, 32 * shard + 32))
    folder = mds_of(root / "mds", every, 3)
    return {
        "parquet": lambda **given: of_parquet([one, two], **OPTIONS | given),
        "parquet of datasets": lambda **given: image_dataset_from_archive(
            written, **OPTIONS | given
        ),
        "huggingface": lambda **given: of_huggingface(saved, **OPTIONS | given),
        "tfrecord": lambda **given: image_dataset_from_archive(
            root / "photos-{0..2}", **OPTIONS | given
        ),
        "mds": lambda **given: image_dataset_from_archive(folder, **OPTIONS | given),
    }


KINDS = ["parquet", "parquet of datasets", "huggingface", "tfrecord", "mds"]


def of_folder(photos: Path, **options: Any) -> Any:
    return image_dataset_from_directory(photos, **OPTIONS | options)


CASES: dict[str, dict[str, Any]] = {
    "in order": {"shuffle": False},
    "without labels": {"label_mode": None},
    "training": {"validation_split": 0.3, "subset": "training", "label_mode": "categorical"},
    "of one trainer of two": {"shard": (1, 2), "remainder": "pad"},
    "augmented": {"augment": [A.RandomResizedCrop(24, 32), A.RandomHue(0.2)]},
    "cached in memory": {"cache": "memory"},
    "cached on disk": {"cache": "disk"},
    "balanced": {"class_weights": "balanced"},
    "shared": {"share": "one"},
}


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize("kind", ["parquet", "huggingface", "mds"])
@pytest.mark.parametrize("case", CASES)
def test_batches_are_those_of_the_folder(
    photos: Path, makers: dict[str, Make], kind: str, case: str
) -> None:
    given = CASES[case] | ({"share": f"of {kind}"} if case == "shared" else {})
    expected = of_folder(photos, **CASES[case] | ({"share": "folder"} if case == "shared" else {}))
    found = makers[kind](**given)
    check_equal(batches_of(found), batches_of(expected))
    found.close()
    expected.close()


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds_have_classes_and_the_paths_of_their_rows(
    photos: Path, makers: dict[str, Make], kind: str
) -> None:
    expected, found = of_folder(photos), makers[kind]()
    check_equal(batches_of(found, 1), batches_of(expected, 1))
    is_named = kind in ("parquet of datasets", "huggingface")
    assert found.class_names == (["cat", "dog", "emu"] if is_named else ["0", "1", "2"])
    assert len(set(found.file_paths)) == 96
    for path in found.file_paths:
        file, row = os.path.split(path)
        assert os.path.isfile(file)
        assert row.isdigit()
    found.close()
    expected.close()


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize("kind", KINDS)
def test_a_state_of_one_table_is_loaded_by_another_of_the_same_kind(
    makers: dict[str, Make], kind: str
) -> None:
    first = makers[kind]()
    expected = batches_of(first, 1)
    again = makers[kind]()
    read = [[np.array(part) for part in next(again)] for _ in range(5)]
    state = again.state_dict()
    resumed = makers[kind](seed=99)
    resumed.load_state_dict(state)
    rest = [[np.array(part) for part in next(resumed)] for _ in range(len(first) - 5)]
    check_equal(read + rest, expected)
    for one in (first, again, resumed):
        one.close()


@pytest.mark.usefixtures("session")
def test_a_state_is_loaded_with_the_same_dataset_elsewhere(photos: Path, tmp_path: Path) -> None:
    import datasets

    dataset_of(Photos.of(photos)).save_to_disk(tmp_path / "one", num_shards=2)
    shutil.copytree(tmp_path / "one", tmp_path / "elsewhere" / "two")
    first, moved = (
        of_huggingface(datasets.load_from_disk(tmp_path / name), **OPTIONS)
        for name in ("one", "elsewhere/two")
    )
    next(first)
    moved.load_state_dict(first.state_dict())
    np.testing.assert_array_equal(next(moved)[0], next(first)[0])


def test_one_worker_and_three_make_the_same_batches(
    serve: Serve, makers: dict[str, Make], tmp_path: Path
) -> None:
    found = []
    for workers in (1, 3):
        with serve(workers, f"--cache-dir={tmp_path / 'cache'}") as daemon, Session(daemon.path):
            found.append([batches_of(makers[kind](), 1) for kind in KINDS])
    for one, other in zip(*found, strict=True):
        check_equal(one, other)


# -- datasets of Hugging Face ------------------------------------------------------------


@pytest.mark.usefixtures("session")
def test_what_a_dataset_has_selected_counts(saved: Any) -> None:
    """Its images are compared by their bytes, which Hugging Face does not decode either."""
    import datasets

    plain = {"shuffle": False, "interpolation": "nearest"}
    for one in (
        saved.shuffle(seed=5).select(range(10, 40)),
        saved.filter(lambda label: label != 1, input_columns="label"),
        saved.train_test_split(0.3, seed=1)["test"],
        saved.select(range(20, 60)),
        datasets.concatenate_datasets([saved.select([5, 1]), saved.select(range(3, 9))]),
    ):
        found = of_huggingface(one, **OPTIONS | plain)
        raw = one.cast_column("image", datasets.Image(decode=False))
        expected = [by_hand(row["image"]["bytes"]) for row in raw]
        np.testing.assert_array_equal(
            np.concatenate([x for x, _ in batches_of(found, 1)]), np.stack(expected)
        )
        labels = np.concatenate([y for _, y in batches_of(found, 1)])
        assert labels.tolist() == one["label"][:]
        found.close()


def by_hand(content: bytes) -> Any:
    import io

    from PIL import Image

    picture = Image.open(io.BytesIO(content)).convert("RGB")
    return np.asarray(picture.resize((32, 24), Image.Resampling.NEAREST))


@pytest.mark.usefixtures("session")
def test_images_that_are_files_are_read_as_files(photos: Path, tmp_path: Path) -> None:
    import datasets

    given = datasets.load_dataset(
        "imagefolder", data_dir=str(photos), split="train", cache_dir=str(tmp_path / "hub")
    )
    found = of_huggingface(given, **OPTIONS)
    check_equal(batches_of(found), batches_of(of_folder(photos)))
    assert found.class_names == ["cat", "dog", "emu"]
    assert found.file_paths == of_folder(photos).file_paths


@pytest.mark.usefixtures("session")
def test_names_of_classes_may_be_labels_and_some_be_chosen(photos: Path, tmp_path: Path) -> None:
    import datasets

    every = Photos.of(photos)
    path = parquet_of(tmp_path / "a.parquet", every)
    columns = {"image": every.content, "name": every.names}
    datasets.Dataset.from_dict(columns).save_to_disk(tmp_path / "saved")
    saved = datasets.load_from_disk(tmp_path / "saved")
    given = {"label": "name", "class_names": ["emu", "cat"]}
    expected = batches_of(of_folder(photos, class_names=["emu", "cat"], shuffle=False))
    images = {float(image.sum()) for batch in expected for image in batch[0]}
    for found in (
        of_parquet(path, **OPTIONS | given),
        of_huggingface(saved, **OPTIONS | given),
    ):
        assert found.class_names == ["emu", "cat"]
        assert found.n == 41 + 25
        batches = batches_of(found, 1)
        assert {float(image.sum()) for batch in batches for image in batch[0]} == images
        assert sum(int((batch[1] == 1).sum()) for batch in batches) == 41


@pytest.mark.usefixtures("session")
def test_datasets_that_cannot_be_read_in_place_say_what_to_do(saved: Any, photos: Path) -> None:
    import datasets

    every = Photos.of(photos)
    for given, options, words in (
        (dataset_of(every), {}, "lie in the memory of this program.*save_to_disk"),
        (saved.with_transform(lambda one: one), {}, "has a transform.*reset_format"),
        (saved, {"image": "picture"}, "no column 'picture': it has image, label"),
        (saved, {"label": "kind"}, "no column 'kind'.*`label`"),
        (saved, {"image": "label"}, "of type int64"),
        (saved, {"class_names": ["cat"]}, "has 1 names, and the labels of `dataset` are up to 2"),
    ):
        with pytest.raises(InvalidArgument, match=words):
            of_huggingface(given, **OPTIONS | options)
    for given, words in (
        (datasets.DatasetDict(train=saved, test=saved), r"several parts.*dataset\['train'\]"),
        (saved.to_iterable_dataset(), "streaming=True"),
        ("a/b", "should be a datasets.Dataset"),
    ):
        with pytest.raises(InvalidType, match=words):
            of_huggingface(given)
    with pytest.raises(EmptyDataset, match="no rows"):
        of_huggingface(saved.select([]))
    with pytest.raises(InvalidType, match=r"did you mean image_size\?"):
        of_huggingface(saved, image_sice=3)


@pytest.mark.usefixtures("session")
def test_files_that_were_replaced_since_they_were_mapped_are_not_taken_for_them(
    photos: Path, tmp_path: Path
) -> None:
    import datasets

    every = Photos.of(photos)
    dataset_of(every.part(0, 20)).save_to_disk(tmp_path / "saved")
    saved = datasets.load_from_disk(tmp_path / "saved")
    (file,) = (tmp_path / "saved").glob("*.arrow")
    other = tmp_path / "other.arrow"
    other.write_bytes(bytes(file.stat().st_size))
    other.replace(file)
    with pytest.raises(InvalidArgument, match="not in a file"):
        of_huggingface(saved, **OPTIONS)


# -- what is wrong with files ------------------------------------------------------------


@pytest.fixture(scope="module")
def flawed(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Photos:
    """The photos with one that is damaged."""
    every = Photos.of(photos)
    every.content[3] = b"\xff\xd8\xff no picture"
    return every


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize("value", [None, b"", b"\xff\xd8\xff no picture"], ids=repr)
def test_a_policy_for_bad_images_counts_for_each_row(
    photos: Path, tmp_path: Path, value: bytes | None
) -> None:
    folder = Path(shutil.copytree(photos, tmp_path / "photos"))
    (folder / "cat" / "003.jpg").write_bytes(b"\xff\xd8\xff no picture")
    every: Any = Photos.of(photos)
    every.content[3] = value
    path = parquet_of(tmp_path / "a.parquet", every)
    found = of_parquet(path, **OPTIONS, on_error="skip")
    check_equal(batches_of(found), batches_of(of_folder(folder, on_error="skip")))
    found.close()
    words = r"a\.parquet/3: there is no image: the value is null" if value is None else "parquet/3"
    with pytest.raises(BadImage, match=words):
        batches_of(of_parquet(path, **OPTIONS))


BAD: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no column": ({"x": [b""], "label": [1]}, {}, "no column 'image' of images: it has x, label"),
    "of numbers": ({"image": [7], "label": [1]}, {}, "'image' holds INT64, and should hold"),
    "of lists": ({"image": [[b""]], "label": [1]}, {}, "no column 'image' of images: it has"),
    "no label": ({"image": [b""]}, {}, "no column 'label' of labels: it has image"),
    "null label": ({"image": [b""] * 2, "label": [1, None]}, {}, "row 1 has no label.*None"),
    "negative": ({"image": [b""], "label": [-1]}, {}, "row 0 has no label.*-1.*label=None"),
    "of floats": ({"image": [b""], "label": [0.5]}, {}, "row 0 has no label.*0.5"),
}


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize(("columns", "options", "words"), BAD.values(), ids=BAD)
def test_tables_that_make_no_samples_are_refused_when_the_dataset_is_made(
    tmp_path: Path, columns: dict[str, Any], options: dict[str, Any], words: str
) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(BadArchive, match=rf"a\.parquet: .*{words}"):
        of_parquet(path, **OPTIONS | options)


@pytest.mark.usefixtures("session")
def test_damaged_files_are_named(photos: Path, tmp_path: Path) -> None:
    path = parquet_of(tmp_path / "a.parquet", Photos.of(photos).part(0, 8))
    whole = path.read_bytes()
    for content, words in (
        (whole[:-10], "it is truncated"),
        (b"PAR1", "it is"),
        (whole[:4] + b"\xff" * (len(whole) // 2) + whole[4 + len(whole) // 2 :], "damaged"),
    ):
        path.write_bytes(content)
        with pytest.raises(BadArchive, match=rf"a\.parquet: .*{words}"):
            image_dataset_from_archive(path, **OPTIONS)
    pq.write_table(pa.table({"image": pa.array([], pa.binary()), "label": []}), path)
    with pytest.raises(EmptyDataset):
        image_dataset_from_archive(path, **OPTIONS, label_mode=None)
