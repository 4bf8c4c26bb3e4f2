"""The images are as many, as large and as heavy as asked, and always the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

PROGRAM = Path(__file__).parents[2] / "scripts" / "make_photos.py"


def make_photos(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROGRAM), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.jpg")}


def pixels(path: Path) -> npt.NDArray[np.uint8]:
    image = cv2.imread(str(path))
    assert image is not None
    return np.asarray(image, np.uint8)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "photos"
    made = make_photos(folder, "--classes", 3, "--images", 6)
    assert made.returncode == 0, made.stderr
    return folder


def test_each_class_has_its_folder_of_numbered_pictures(photos: Path) -> None:
    expected = {f"class_{c:02}/{n:04}.jpg" for c in range(3) for n in range(6)}
    assert set(contents(photos)) == expected


def test_pictures_cost_what_photographs_cost(photos: Path) -> None:
    sizes = [len(data) for data in contents(photos).values()]
    assert 45_000 <= np.mean(sizes) <= 55_000
    assert {pixels(p).shape for p in photos.rglob("*.jpg")} == {(375, 500, 3)}


def test_colours_tell_the_classes_apart(photos: Path) -> None:
    """The most saturated pixels belong to the objects, whose hue is the class's."""
    for label in range(3):
        images = [pixels(path) for path in (photos / f"class_{label:02}").iterdir()]
        hue, saturation, _ = cv2.split(cv2.cvtColor(np.vstack(images), cv2.COLOR_BGR2HSV))
        vivid = hue[saturation > np.quantile(saturation, 0.95)] / 180
        apart = np.abs((vivid - label / 3 + 0.5) % 1 - 0.5)
        assert np.median(apart) < 1 / 6


def test_a_picture_depends_on_seed_class_and_number_only(photos: Path, tmp_path: Path) -> None:
    make_photos(tmp_path / "fewer", "--classes", 3, "--images", 2, "--jobs", 1)
    fewer, all_of_them = contents(tmp_path / "fewer"), contents(photos)
    assert len(fewer) == 6
    assert fewer.items() <= all_of_them.items()
    assert len(set(all_of_them.values())) == 18
    make_photos(tmp_path / "other", "--classes", 3, "--images", 2, "--seed", 1)
    assert not set(contents(tmp_path / "other").values()) & set(all_of_them.values())


def test_a_second_run_makes_only_what_is_missing(photos: Path) -> None:
    before = contents(photos)
    kept, lost = photos / "class_00/0000.jpg", photos / "class_01/0005.jpg"
    made_at = kept.stat().st_mtime_ns
    lost.unlink()
    assert make_photos(photos, "--classes", 3, "--images", 6).returncode == 0
    assert contents(photos) == before
    assert kept.stat().st_mtime_ns == made_at


def test_the_size_can_be_chosen(tmp_path: Path) -> None:
    make_photos(tmp_path, "--classes", 1, "--images", 1, "--size", "64x48")
    assert pixels(tmp_path / "class_00/0000.jpg").shape == (48, 64, 3)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    refused = make_photos(tmp_path, "--images", 1)
    assert refused.returncode == 1
    assert refused.stderr == (
        f"make-photos: {tmp_path} is not empty and not from make-photos: use another folder\n"
    )
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_folder_of_another_recipe_is_left_alone(photos: Path) -> None:
    before = contents(photos)
    refused = make_photos(photos, "--classes", 3, "--images", 7, "--seed", 5)
    assert refused.returncode == 1
    assert json.dumps({"classes": 3, "size": [500, 375], "seed": 0}) in refused.stderr
    assert contents(photos) == before


@pytest.mark.parametrize(
    "wrong", [["--size", "big"], ["--size", "8x8"], ["--classes", "0"], ["--seed", "-1"]]
)
def test_wrong_values_are_named(tmp_path: Path, wrong: list[str]) -> None:
    refused = make_photos(tmp_path / "photos", *wrong)
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith(f"make-photos: error: argument {wrong[0]}:")
    assert not (tmp_path / "photos").exists()


def test_a_folder_that_cannot_be_made_is_an_error_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = make_photos(tmp_path / "file" / "photos", "--images", 1)
    assert refused.returncode == 1
    assert len(refused.stderr.splitlines()) == 1
