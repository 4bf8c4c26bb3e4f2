"""Whatever the page on reliability promises is shown by tests that exist, and by all of them."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/explanation/reliability.md"
FAULTS = sorted((ROOT / "tests/faults").glob("test_*.py"))


def named() -> list[tuple[str, str]]:
    return re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE.read_text())


@cache
def found_in(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text())
    return {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


@pytest.mark.parametrize(("path", "test"), named())
def test_a_test_that_is_named_exists(path: str, test: str) -> None:
    assert test in found_in(path)


def rows() -> list[list[str]]:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row[-1] not in ("test", "where") and set(row[0]) != {"-"}]


def test_every_promise_has_a_test() -> None:
    assert rows()
    for row in rows():
        assert "::test_" in row[-1], row


def test_every_numbered_fault_is_there() -> None:
    assert {int(row[0]) for row in rows() if row[0].isdecimal()} == {*range(1, 11)}


@pytest.mark.parametrize("file", FAULTS, ids=lambda path: path.name)
def test_every_file_of_faults_is_named(file: Path) -> None:
    assert str(file.relative_to(ROOT)) in {path for path, _ in named()}
