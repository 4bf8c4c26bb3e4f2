"""Every file of the corpus is rendered as Keras would, or refused for the expected reason."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from loaderd.errors import BadImage
from loaderd.sources.directory import Listing, list_samples
from loaderd.spec.base import Interpolation
from loaderd.spec.source import Directory
from scripts.benchmarks.file_renderer import FileRenderer
from tests.corpus import make, pictures
from tests.corpus.make import Expected
from tests.support.specs import rendering

Pixels = NDArray[Any]

INTERPOLATIONS: list[Interpolation] = ["nearest", "bilinear"]
TARGET = (20, 30)
SLOWEST = 2.0  # seconds for a file


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus") / "files"
    make.write(str(folder))
    return folder


@pytest.fixture(scope="module")
def expected(corpus: Path) -> list[Expected]:
    return [Expected(**case) for case in json.loads((corpus / "expected.json").read_text())]


@pytest.fixture(scope="module", autouse=True)
def pils_limit() -> Iterator[None]:
    """What we set is PIL's for good, and Keras's side needs its own."""
    limit = Image.MAX_IMAGE_PIXELS
    yield
    Image.MAX_IMAGE_PIXELS = limit


def as_keras(path: Path, interpolation: Interpolation = "nearest") -> Pixels:
    from keras.src.utils.image_utils import img_to_array, load_img

    image = load_img(str(path), target_size=TARGET, interpolation=interpolation)
    pixels: Pixels = img_to_array(image)
    return pixels


def outcome(renderer: FileRenderer, path: Path) -> Pixels | str:
    start = time.perf_counter()
    try:
        pixels: Pixels = renderer.load_file(os.fsencode(path)).copy()
        return pixels
    except BadImage as error:
        return str(error)
    finally:
        assert time.perf_counter() - start < SLOWEST, path


def test_there_are_enough_files_of_every_kind(expected: list[Expected]) -> None:
    counts = Counter(case.kind for case in expected)
    assert counts.total() >= 200
    assert counts["flipped bytes"] >= 40
    assert {form for form in counts if form.startswith("cut ")} == {
        f"cut {form}" for form in pictures.SUFFIXES
    }


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.filterwarnings("ignore")  # from Keras's side
def test_good_pictures_have_kerass_pixels(
    corpus: Path, expected: list[Expected], interpolation: Interpolation
) -> None:
    renderer = FileRenderer(rendering(target_size=TARGET, interpolation=interpolation))
    wrong = []
    for case in expected:
        if case.reason is None:
            ours = outcome(renderer, corpus / case.path)
            keras = as_keras(corpus / case.path, interpolation)
            if isinstance(ours, str) or not np.array_equal(ours, keras):
                wrong.append((case, ours if isinstance(ours, str) else "other pixels"))
    assert not wrong


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_bad_files_are_refused_for_the_expected_reason(
    corpus: Path, expected: list[Expected], interpolation: Interpolation
) -> None:
    renderer = FileRenderer(rendering(target_size=TARGET, interpolation=interpolation))
    wrong = []
    for case in expected:
        if case.reason is not None:
            found = outcome(renderer, corpus / case.path)
            if not isinstance(found, str) or case.reason not in found:
                wrong.append((case, found if isinstance(found, str) else "taken"))
    assert not wrong


@pytest.mark.parametrize("decode", ["exact", "scaled"])
@pytest.mark.parametrize("color_mode", ["rgba", "grayscale"])
def test_in_other_modes_there_is_a_picture_or_a_bad_image(
    corpus: Path, expected: list[Expected], color_mode: Any, decode: Any
) -> None:
    pipeline = rendering(
        target_size=TARGET,
        color_mode=color_mode,
        decode=decode,
        interpolation="bilinear",
        truncated=True,
        exif=True,
        aspect="pad",
        compat="fixed",
    )
    renderer = FileRenderer(pipeline)
    for case in expected:
        outcome(renderer, corpus / case.path)


def test_errors_are_one_line_that_names_the_file(corpus: Path, expected: list[Expected]) -> None:
    renderer = FileRenderer(rendering(target_size=TARGET))
    for case in expected:
        found = outcome(renderer, corpus / case.path)
        if isinstance(found, str):
            assert found.isprintable()
            name = str(corpus / case.path)
            assert not name.isprintable() or found.startswith(f"{name}: ")
            assert found.startswith(str(corpus / case.kind))
            assert len(found.split(": ", 1)[1]) < 300


def test_the_orientation_is_applied_on_request(corpus: Path, expected: list[Expected]) -> None:
    renderer = FileRenderer(rendering(target_size=TARGET, interpolation="bilinear", exif=True))
    seen = 0
    for case in expected:
        if case.kind in ("orientations", "plain"):
            seen += 1
            with Image.open(corpus / case.path) as image:
                upright = ImageOps.exif_transpose(image).convert("RGB")
            pixels = np.asarray(upright.resize(TARGET[::-1], Image.Resampling.BILINEAR))
            np.testing.assert_array_equal(renderer.load_file(str(corpus / case.path)), pixels)
    assert seen > 30


def test_a_damaged_exif_block_changes_nothing(corpus: Path, expected: list[Expected]) -> None:
    plain, turned = (
        FileRenderer(rendering(target_size=TARGET, exif=exif)) for exif in (False, True)
    )
    paths = [str(corpus / case.path) for case in expected if case.kind == "damaged EXIF"]
    assert len(paths) > 10
    for path in paths:
        np.testing.assert_array_equal(turned.load_file(path), plain.load_file(path))


def test_the_first_of_several_pictures_is_taken(corpus: Path) -> None:
    renderer = FileRenderer(rendering(target_size=pictures.SIZE[::-1]))
    first = renderer.load_file(str(corpus / "first of several" / "three-pages.tif"))
    np.testing.assert_array_equal(first, np.asarray(pictures.photo()))


# What PIL is given

FOREIGN = """
import os, sys
from loaderd.errors import BadImage
from scripts.benchmarks.file_renderer import FileRenderer
from tests.support.specs import rendering
renderer = FileRenderer(rendering(target_size=(8, 8), exif=True))
for entry in os.scandir(sys.argv[1]):
    try:
        renderer.load_file(entry.path)
    except BadImage:
        continue
    print("taken:", entry.name)
print(*sorted(name[4:] for name in sys.modules if name.startswith("PIL.") and "Plugin" in name))
"""


def plugins_after(folder: Path) -> list[str]:
    words = [sys.executable, "-c", FOREIGN, str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].removesuffix("ImagePlugin").split("ImagePlugin ")


def test_files_of_the_usual_formats_import_no_other_plugin(corpus: Path) -> None:
    forms = plugins_after(corpus / "damaged EXIF")
    assert forms == ["Bmp", "Gif", "Jpeg", "Png", "Ppm", "Tiff"]


def test_no_file_has_a_plugin_imported_that_runs_programs(corpus: Path) -> None:
    for kind in ("other formats", "text"):
        found = plugins_after(corpus / kind)
        assert "WebP" in found
        assert not {"Eps", "Wmf", "Iptc", "Pdf", "Hdf5Stub", "Fpx"} & {*found}


def test_keras_lists_these_formats_and_no_others() -> None:
    from keras.src.legacy.preprocessing.image import Iterator as KerasIterator
    from keras.src.utils.image_dataset_utils import ALLOWLIST_FORMATS

    listed = {*KerasIterator.white_list_formats}
    listed |= {ending.removeprefix(".") for ending in ALLOWLIST_FORMATS}
    assert listed == {"png", "jpg", "jpeg", "bmp", "ppm", "tif", "tiff", "gif"}


# What is listed


def listing(directory: Path | str, follow_links: bool = False) -> Listing:
    return list_samples(
        Directory(
            directory=str(directory),
            extensions=("jpg", "jpeg", "png", "gif", "bmp", "tif", "ppm"),
            follow_links=follow_links,
        )
    )


def test_all_files_are_listed_whatever_their_names_and_folders_are_not(
    corpus: Path, expected: list[Expected]
) -> None:
    folders = {case.path for case in expected if (corpus / case.path).is_dir()}
    assert len(folders) == 3  # a folder called .jpg, and two links to folders
    listed = [os.fsdecode(name) for name in listing(corpus).filenames]
    assert sorted(listed) == sorted({case.path for case in expected} - folders)


def test_a_loop_of_links_is_gone_through_once(corpus: Path, expected: list[Expected]) -> None:
    found = listing(corpus, follow_links=True)
    (links,) = (i for i, name in enumerate(found.class_names) if name == "links")
    files = [name for name, label in zip(found.filenames, found.labels, strict=True)
             if label == links]  # fmt: skip
    real = [
        (os.path.realpath(os.path.dirname(path := os.fsencode(corpus) + b"/" + name)),
         os.path.basename(path)) for name in files
    ]  # fmt: skip
    assert len(real) == len(set(real))
    everything = {case.path for case in expected if not (corpus / case.path).is_dir()}
    assert len(real) == len(everything)


UNREADABLE = """
import os, sys
from loaderd.sources.directory import list_samples
from loaderd.errors import DatasetNotFound
from loaderd.spec.source import Directory
if os.geteuid() == 0:
    os.seteuid(65534)
try:
    list_samples(Directory(directory=sys.argv[1], extensions=("jpg",)))
except DatasetNotFound as error:
    print(error)
"""


def test_a_folder_that_must_not_be_read_is_an_error() -> None:
    with tempfile.TemporaryDirectory() as folder:  # which anybody may reach, unlike pytest's
        os.chmod(folder, 0o755)
        secret = Path(folder, "class", "secret")
        secret.mkdir(parents=True)
        secret.chmod(0)
        words = [sys.executable, "-c", UNREADABLE, folder]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"cannot list the directory '{secret}': permission denied")


UNREADABLE_FILE = """
import os, sys
from loaderd.errors import BadImage
from scripts.benchmarks.file_renderer import FileRenderer
from tests.support.specs import rendering
renderer = FileRenderer(rendering(target_size=(8, 8)))
if os.geteuid() == 0:
    os.seteuid(65534)
try:
    renderer.load_file(sys.argv[1])
except BadImage as error:
    print(error)
"""


def test_a_file_that_must_not_be_read_is_a_bad_image() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = Path(folder, "secret.jpg")
        path.write_bytes(make.plain("jpeg"))
        path.chmod(0)
        words = [sys.executable, "-c", UNREADABLE_FILE, str(path)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout == f"{path}: Permission denied\n"


# The generator


def test_two_runs_write_the_same(corpus: Path, tmp_path: Path, expected: list[Expected]) -> None:
    make.write(str(tmp_path / "again"))
    for case in expected:
        one, other = corpus / case.path, tmp_path / "again" / case.path
        assert one.lstat().st_mode == other.lstat().st_mode
        if one.is_file() and not one.is_symlink() and os.access(one, os.R_OK):
            assert one.read_bytes() == other.read_bytes()
    again = (tmp_path / "again" / "expected.json").read_bytes()
    assert again == (corpus / "expected.json").read_bytes()


def test_nothing_is_written_over(corpus: Path) -> None:
    with pytest.raises(FileExistsError):
        make.write(str(corpus))


def test_the_table_counts_all_files(expected: list[Expected]) -> None:
    words = [sys.executable, "-m", "tests.corpus.make", "--table"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    good = sum(case.reason is None for case in expected)
    last = f"| together | {len(expected)} | {good} | {len(expected) - good} |"
    assert done.stdout.splitlines()[-1] == last
