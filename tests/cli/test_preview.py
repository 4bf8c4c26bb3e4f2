"""``loaderd preview``: reads operations, and draws what training gets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from loaderd.cli.main import main
from loaderd.cli.preview import operation_of
from loaderd.errors import InvalidArgument
from loaderd_client import augment as A
from loaderd_client import image_dataset_from_directory
from tests.support.daemons import Serve


@pytest.mark.parametrize(
    ("text", "operation"),
    [
        ("RandAugment", A.RandAugment()),
        ("RandomFlip('horizontal')", A.RandomFlip("horizontal")),
        ("A.RandomResizedCrop(8, 9, scale=(0.3, 1))", A.RandomResizedCrop(8, 9, (0.3, 1.0))),
        ("Rescaling(1 / 255)", A.Rescaling(1 / 255)),
        ("RandomApply([RandomFlip(), RandomHue(-0.1)], p=0.3)", None),
        ("RandomMix([MixUp(0.4), CutMix()])", A.RandomMix([A.MixUp(0.4), A.CutMix()])),
    ],
)
def test_operations_are_read_as_a_program_writes_them(
    text: str, operation: A.RandAugment | None
) -> None:
    if operation is None:
        with pytest.raises(InvalidArgument, match="RandomHue: `factor`"):
            operation_of(text)
    else:
        assert operation_of(text) == operation


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("RandomFlop", "there is no operation RandomFlop: did you mean RandomFlip?"),
        ("RandomCrop(2)", "Missing required argument 'width'"),
        ("RandomFlip(", "is no operation"),
        ("__import__('os').system('true')", "there is no operation system"),
        ("3", "is no operation"),
        ("open", "there is no operation open"),
        ("Rescaling(1 / 0)", "is no operation"),
        ("RandomFlip(mode=3)", "`mode` "),
        ("Function(print)", "Function takes code of a program: call `preview` of its dataset"),
        ("RandomApply([Function])", "Function takes code of a program"),
    ],
)
def test_anything_else_is_refused_in_one_line(text: str, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says.replace("(", r"\(")) as caught:
        operation_of(text)
    assert "\n" not in str(caught.value)


def test_the_picture_is_that_of_the_dataset(
    serve: Serve, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    operations = ["RandomResizedCrop(96, 100)", "RandomFlip", "MixUp"]
    path = tmp_path / "preview.png"
    words = ["--size", "96", "100", "--count", "5", "--seed", "4", "-o", str(path)]
    with serve(workers=2):
        assert main(["preview", str(photos), *operations, *words]) == 0
        augment = [A.RandomResizedCrop(96, 100), A.RandomFlip(), A.MixUp()]
        train = image_dataset_from_directory(
            photos, image_size=(96, 100), batch_size=5, seed=4, augment=augment, verbose=False
        )
        expected = train.preview(5)  # type: ignore[union-attr]
    with Image.open(path) as picture:
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(expected))
    assert capsys.readouterr().out.startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--count", "0"], "--count must be at least 1"),
        (["--size", "1", "2", "3"], "--size takes one number"),
        (["RandomCrop(2, 2)"], "they must be equal"),
        (["-o", "nowhere/x.png"], "nowhere/x.png cannot be written"),
        (["-o", "x.nothing"], "x.nothing cannot be written"),
    ],
)
def test_wrong_options_are_one_line_and_exit_code_2(
    serve: Serve, photos: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    with serve(workers=1):
        assert main(["preview", str(photos), *words]) == 2
    found = capsys.readouterr().err
    assert says in found


def test_a_folder_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preview", "/nowhere"]) == 2
    assert capsys.readouterr().err == (
        "loaderd: '/nowhere' is no folder: name the one with the classes\n"
    )
