"""``loaderd doctor`` names the extras that there are, and what the others would add."""

from __future__ import annotations

from importlib import metadata

import pytest

from loaderd.cli.decoders import EXTRAS
from loaderd.cli.main import main


def test_extras_are_named_and_those_that_are_missing_with_their_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    version = metadata.version

    def without_ray(package: str) -> str:
        if package == "ray":
            raise metadata.PackageNotFoundError
        return version(package)

    monkeypatch.setattr(metadata, "version", without_ray)
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert 'ray is missing; for workers on other machines: pip install "loaderd[ray]"' in shown
    for package in {*EXTRAS} - {"ray"}:
        assert f"{package} {version(package)}: " in shown
