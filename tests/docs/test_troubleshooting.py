"""The texts on the page are those of the sources, and no error that people meet is missing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from loaderd import errors

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/how-to/troubleshooting.md"
SOURCES = sorted([*(ROOT / "loaderd").rglob("*.py"), *(ROOT / "client").rglob("*.py")])

HOLE = "…"
"""What stands on the page, and here, for what is not the same each time."""

CLASSES = {
    name
    for name, one in vars(errors).items()
    if isinstance(one, type) and issubclass(one, errors.LoaderdError)
}
TOLD_TOGETHER = {"InvalidArgument", "InvalidType", "ProtocolError", "RenderError"}
"""The page says of these what all of a kind mean; their texts name the rest."""


def text_of(node: ast.AST) -> str | None:
    """A literal as people read it, with holes; None if it is no text."""
    raw = _raw(node)
    return None if raw is None else " ".join(raw.split())


def _raw(node: ast.AST) -> str | None:
    match node:
        case ast.Constant(value=str(text)):
            return re.sub(r"%[a-z]", HOLE, text)
        case ast.JoinedStr(values=parts):
            return "".join(_raw(part) or HOLE for part in parts)
        case ast.BinOp(left=left, right=right):
            return f"{_raw(left) or HOLE}{_raw(right) or HOLE}"
    return None


@cache
def texts() -> list[str]:
    found = [text_of(node) for path in SOURCES for node in ast.walk(ast.parse(path.read_text()))]
    return [text for text in found if text]


def raised() -> Iterator[tuple[str, str]]:
    """Where an error is made whose text is a literal: its class and that text."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Name(id=name), args=[first, *_]) if name in CLASSES:
                    text = text_of(first)
                    if text and text.strip(HOLE + ": "):
                        yield name, text


def rows() -> list[list[str]]:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def quoted() -> list[str]:
    """What is quoted from an error or a log, each as it stands in the first column."""
    return [text for first, *_ in rows() for text in re.findall(r"`([^`]+)`", first)]


@pytest.mark.parametrize("quote", quoted())
def test_a_quoted_text_is_in_the_sources(quote: str) -> None:
    wanted = quote.strip(HOLE + " ")
    assert any(wanted in text for text in texts())


@pytest.mark.parametrize(
    ("kind", "text"), [(kind, text) for kind, text in raised() if kind not in TOLD_TOGETHER]
)
def test_an_error_that_people_meet_is_on_the_page(kind: str, text: str) -> None:
    assert any(quote.strip(HOLE + " ") in text for quote in quoted()), f"{kind}: {text}"


def test_every_class_is_on_the_page() -> None:
    assert set(re.findall(r"`(\w+)`", PAGE.read_text())) >= CLASSES - {"DatasetError"}
