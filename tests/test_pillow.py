"""Which Pillow lies there is found out by the packages' records, and doctor says what it costs."""

from __future__ import annotations

import base64
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loaderd import pillow
from loaderd.cli.main import main
from loaderd.pillow import Installed

SIMD = b"resizes quickly"
STOCK = b"resizes"
HEART = "PIL/_imaging.cpython-311-x86_64-linux-gnu.so"


class Site:
    """A folder of packages, before all others."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(self, name: str, version: str, heart: bytes, recorded: bool = True) -> None:
        """As pip does it: over what is there."""
        about = self.folder / f"{name.replace('-', '_')}-{version}.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        digest = base64.urlsafe_b64encode(hashlib.sha256(heart).digest()).rstrip(b"=").decode()
        line = f"{HEART},sha256={digest},{len(heart)}\n" if recorded else f"{HEART},,\n"
        (about / "RECORD").write_text("PIL/_imaging.pyi,sha256=abc,3\nPIL/__init__.py,,\n" + line)
        (self.folder / "PIL").mkdir(exist_ok=True)
        (self.folder / HEART).write_bytes(heart)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    folder = tmp_path / "site-packages"
    monkeypatch.setattr(sys, "path", [str(folder)])
    return Site(folder)


def test_one_package_owns_the_module(site: Site) -> None:
    site.install("pillow-simd", "12.1.1.post0", SIMD)
    assert pillow.installed() == Installed("pillow-simd 12.1.1.post0")


def test_stock_pillow_that_came_later_lies_over_pillow_simd(site: Site) -> None:
    site.install("Pillow-SIMD", "12.1.1.post0", SIMD)
    site.install("pillow", "13.0.0", STOCK)
    found = pillow.installed()
    assert found == Installed("pillow 13.0.0", ("pillow-simd 12.1.1.post0",))
    assert found.is_overwritten
    assert not found.is_simd


def test_pillow_simd_that_came_later_is_the_one_that_works(site: Site) -> None:
    site.install("pillow", "13.0.0", STOCK)
    site.install("pillow-simd", "12.1.1.post0", SIMD)
    found = pillow.installed()
    assert found == Installed("pillow-simd 12.1.1.post0", ("pillow 13.0.0",))
    assert found.is_simd
    assert not found.is_overwritten


def test_records_without_digests_tell_nothing_and_nothing_is_claimed(site: Site) -> None:
    site.install("pillow-simd", "12.1.1.post0", SIMD, recorded=False)
    site.install("pillow", "13.0.0", STOCK, recorded=False)
    found = pillow.installed()
    assert found == Installed("", ("pillow-simd 12.1.1.post0", "pillow 13.0.0"))
    assert not found.is_overwritten


def test_no_package_at_all_is_no_fault(site: Site) -> None:
    assert pillow.installed() == Installed("")
    assert pillow.remarks(Installed("")) == []


@pytest.mark.parametrize(
    ("package", "words"),
    [
        (Installed("pillow-simd 12.1"), []),
        (Installed("pillow 13.0.0"), ["resizes several times faster", "pip install"]),
        (
            Installed("pillow 13.0.0", ("pillow-simd 12.1",)),
            ["lies over pillow-simd 12.1", "several times slower", "pip uninstall", "for both"],
        ),
        (Installed("pillow-simd 12.1", ("pillow 13.0.0",)), ["lies over pillow 13.0.0"]),
    ],
)
def test_doctor_says_what_lies_there_and_what_to_do(
    package: Installed,
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(pillow, "installed", lambda: package)
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert f"PIL         {package.owner} (libjpeg-turbo" in shown
    for word in words:
        assert word in shown
    assert words or "slower" not in shown


@pytest.fixture
def lacking(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No library is there."""
    monkeypatch.setattr(pillow, "lacks", lambda codec: True)
    pillow.advice.cache_clear()
    yield
    pillow.advice.cache_clear()


@pytest.mark.usefixtures("lacking")
def test_doctor_says_what_pil_lacks_and_the_line_for_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: name if name == "apt-get" else None)
    monkeypatch.setattr(pillow, "installed", lambda: Installed("pillow-simd 12.1"))
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "decodes JPEG, PNG, GIF, BMP, PPM, plain TIFF\n" in shown
    packages = {
        "libtiff": "libtiff-dev",
        "libwebp": "libwebp-dev",
        "OpenJPEG": "libopenjp2-7-dev",
        "Little CMS": "liblcms2-dev",
    }
    for codec, package in packages.items():
        (line,) = (line for line in shown.splitlines() if f"lacks {codec} for " in line)
        assert f"sudo apt-get install -y {package} && pip uninstall" in line
    assert "lacks libavif for AVIF: pip install pillow-avif-plugin\n" in shown


@pytest.mark.usefixtures("lacking")
def test_the_line_fits_the_system_and_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: name if name == "dnf" else None)
    monkeypatch.setattr(pillow, "installed", lambda: Installed("pillow-simd 12.1"))
    assert pillow.advice(pillow.TIFF).startswith("sudo dnf install -y libtiff-devel && pip ")
    pillow.advice.cache_clear()
    monkeypatch.setattr(pillow, "installed", lambda: Installed("pillow 13.0.0"))
    assert pillow.advice(pillow.TIFF) == "pip install --force-reinstall --no-deps pillow"


def test_setup_mends_what_this_environment_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pillow, "lacks", lambda codec: codec is pillow.TIFF)
    over = Installed("pillow 13.0.0", ("pillow-simd 12.1",))
    monkeypatch.setattr(pillow, "installed", lambda: over)
    assert pillow.faults() == ["libtiff", "its own files, over which pillow 13.0.0 lies"]


def test_the_environment_of_the_tests_is_as_setup_makes_it() -> None:
    assert pillow.faults() == []
