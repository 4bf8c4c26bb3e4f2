"""``scripts/bench augment``: every operation is measured, with Albumentations or without."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from loaderd.augment.operation import ImageOperation, Operation
from loaderd.augment.values import ValueOperation
from loaderd_client import augment as A
from scripts.benchmarks import augment, contest, venvs
from scripts.benchmarks.augment import Measured
from scripts.benchmarks.operations import PAIRS, Call

NOT_ALONE = {"Function"}
"""Operations that do what a user's program tells them."""


def is_alone(name: str) -> bool:
    """Whether an operation is applied to each image by itself, and holds no others."""
    kind = getattr(A, name)
    return (
        issubclass(kind, ImageOperation | ValueOperation)
        and "ops" not in kind.__struct_fields__
        and name not in NOT_ALONE
    )


def bench(folder: Path, *words: str) -> None:
    """Runs the benchmark, as short as can be."""
    parser = argparse.ArgumentParser()
    augment.add(parser.add_subparsers())
    args = parser.parse_args(["augment", *words, f"--data={folder}", "--runs=1", "--seconds=0.01"])
    args.run(args)


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contest, "LOGS", tmp_path / "logs")


@pytest.mark.parametrize("name", PAIRS)
def test_the_arguments_of_each_operation_are_allowed(name: str) -> None:
    assert isinstance(PAIRS[name].ours.made_from(A), Operation)


def test_no_operation_is_left_out() -> None:
    assert set(PAIRS) == set(filter(is_alone, A.__all__))


def test_without_albumentations_ours_are_measured_alone(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(peer: object) -> str:
        raise venvs.NotAvailable("no index could be reached")

    monkeypatch.setattr(venvs, "python_of", refuse)
    # One in the pictures' own size, one in the target's, and one with floats.
    names = ["RandomResizedCrop", "RandomFlip", "Normalization"]
    bench(photos, *names, f"--out={tmp_path}/table.md")
    assert "without Albumentations: no index could be reached" in capsys.readouterr().out
    lines = (tmp_path / "table.md").read_text().splitlines()
    rows = [line.split("|")[1:-1] for line in lines if line.startswith("| R") or "Norm" in line]
    assert [row[0].strip() for row in rows] == names
    assert all(int(row[1].replace(",", "")) > 0 for row in rows)
    assert all(row[2].strip() == row[3].strip() == "-" for row in rows)


def test_an_operation_that_cannot_run_says_why_and_the_others_go_on(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(augment, "sys", argparse.Namespace(executable="/bin/false"))
    bench(photos, "RandomFlip", "--alone", f"--out={tmp_path}/table.md")
    assert "| RandomFlip | - | - | - | it ended" in (tmp_path / "table.md").read_text()


def test_an_unknown_operation_is_refused(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench(photos, "RandomFlop")
    assert "no operation 'RandomFlop'" in capsys.readouterr().err


def test_the_summary_names_what_is_slower_than_it_may_be() -> None:
    found = {
        "RandomFlip": Measured([100, 130, 120], [100, 100, 100]),
        "Resize": Measured([70, 60, 50], [100, 100, 100]),
        "AugMix": Measured([5, 5, 5], [], "it has none"),
    }
    assert augment.summary(found) == (
        "median of 2 ratios: 0.90 (at least 1.2); below 0.8: Resize 0.60"
    )
    table = augment.markdown(found)
    assert "| RandomFlip | 120 | 100 | 1.20 (1.00 to 1.30) | HorizontalFlip |" in table
    assert "| AugMix | 5 | - | - | it has none |" in table


def test_without_ratios_there_is_no_median() -> None:
    assert augment.summary({"AugMix": Measured([5], [])}) == "no ratios"


def test_a_call_is_shown_as_in_a_program() -> None:
    assert str(Call("Resize", {"height": 2, "width": 3})) == "Resize(height=2, width=3)"
