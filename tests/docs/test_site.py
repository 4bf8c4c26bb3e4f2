"""The site builds without a warning, has every public name and verb, and needs no other server."""

from __future__ import annotations

import fcntl
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import loaderd_client
from loaderd.cli import verbs
from loaderd_client import augment, image

ROOT = Path(__file__).parents[2]
KERAS_OWN = {"array_to_img", "img_to_array", "load_img", "save_img", "smart_resize"}
"""Functions of Keras, which the page names and Keras documents."""


@pytest.fixture(scope="module")
def site(testrun_uid: str) -> Path:
    """The site, built once for all processes of the run, which share the folder."""
    folder = ROOT / "build/site"
    folder.parent.mkdir(exist_ok=True)
    with (folder.parent / "site.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        built = folder / "built-for"
        if not built.exists() or built.read_text() != testrun_uid:
            done = subprocess.run([ROOT / "scripts/docs"], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            built.write_text(testrun_uid)
    return folder


def ids_of(page: Path) -> set[str]:
    return set(re.findall(r' id="([^"]+)"', page.read_text()))


def test_every_public_name_is_generated(site: Path) -> None:
    page = site / "docs/reference/api.html"
    names = {f"loaderd_client.{name}" for name in loaderd_client.__all__} - {
        "loaderd_client.__version__"
    }
    of_image = {*image.__all__} - KERAS_OWN - {"ImageDataGenerator"}
    names |= {f"loaderd_client.image.{name}" for name in of_image}
    names |= {
        "loaderd_client.keras.annotated.AnnotatedSequence",
        "loaderd_client.keras.dataset_options.DatasetOptions",
    }
    assert names <= ids_of(page)
    assert KERAS_OWN | {"__version__"} <= set(re.findall(r">(\w+)<", page.read_text()))


def test_every_operation_of_augment_is_generated_with_a_picture(site: Path) -> None:
    page = site / "docs/reference/augment.html"
    assert {f"loaderd_client.augment.{name}" for name in augment.__all__} <= ids_of(page)
    pictures = re.findall(r'<img alt="(\w+)"[^>]* src="([^"]+)"', page.read_text())
    assert sorted(name for name, _ in pictures) == sorted(augment.__all__)
    for name, source in pictures:
        with Image.open(page.parent / source) as picture:
            assert picture.height > 50, name
            assert len(np.unique(np.asarray(picture))) > 5, name


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
