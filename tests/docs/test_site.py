"""The site builds without a warning, has every public name and verb, and needs no other server."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import loaderd_client
from loaderd.cli import verbs
from loaderd_client import image

ROOT = Path(__file__).parents[2]
KERAS_OWN = {"array_to_img", "img_to_array", "load_img", "save_img", "smart_resize"}
"""Functions of Keras, which the page names and Keras documents."""


@pytest.fixture(scope="module")
def site() -> Path:
    done = subprocess.run([ROOT / "scripts/docs"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return ROOT / "build/site"


def ids_of(page: Path) -> set[str]:
    return set(re.findall(r' id="([^"]+)"', page.read_text()))


def test_every_public_name_is_generated(site: Path) -> None:
    page = site / "docs/reference/api.html"
    names = {f"loaderd_client.{name}" for name in loaderd_client.__all__} - {
        "loaderd_client.__version__"
    }
    of_image = {*image.__all__} - KERAS_OWN - {"ImageDataGenerator"}
    names |= {f"loaderd_client.image.{name}" for name in of_image}
    assert names <= ids_of(page)
    assert KERAS_OWN | {"__version__"} <= set(re.findall(r">(\w+)<", page.read_text()))


def test_every_verb_is_generated(site: Path) -> None:
    page = site / "docs/reference/commands.html"
    names = [verb.__name__.rpartition(".")[2] for verb in verbs._VERBS]
    assert {f"loaderd-{verb}" for verb in names} | {"loaderd", "loaderd-stat"} <= ids_of(page)
    assert page.read_text().count("--help") >= len(names)


def loads(page: Path) -> Iterator[str]:
    """What a browser fetches by itself to show a page or apply a style sheet."""
    text = page.read_text()
    for tag in re.findall(r"<(?:script|img|iframe|link)\b[^>]*>", text):
        yield from re.findall(r'(?:src|href)="([^"]*)"', tag)
    if page.suffix == ".css":
        yield from re.findall(r"url\(([^)]*)\)", text) + re.findall("@import ([^;]*);", text)


def test_nothing_is_fetched_from_another_server(site: Path) -> None:
    pages = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert len(pages) > 30
    for page in pages:
        for address in loads(page):
            assert not re.match(r"[\"\']?(https?:)?//", address), f"{page} loads {address}"
