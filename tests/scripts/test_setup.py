"""``scripts/setup`` sees what Pillow was built without, and builds it anew past pip's wheels."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NATIVE = "loaderd/render/native"

PYTHON = r"""#!/bin/bash
echo "$*" >>"$PWD/said"
case "$*" in
    *pillow.faults*) cat "$PWD/lacks" ;;
    *"pip install"*--no-binary*) cp "$PWD/lacks-then" "$PWD/lacks" ;;
    "-m pip"*) touch loaderd/render/native/_kernels.abi3.so ;;
    *) exec REAL "$@" ;;
esac
"""


class Checkout:
    """A folder with the script, and a Python that installs nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        sources = [str(path.relative_to(ROOT)) for path in (ROOT / NATIVE).glob("*.[ch]")]
        assert len(sources) > 5
        for name in ("scripts/setup", "setup.cfg", "setup.py", "pyproject.toml", *sources):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
        python = folder / ".venv/bin/python"
        python.parent.mkdir(parents=True)
        python.write_text(PYTHON.replace("REAL", sys.executable))
        python.chmod(0o755)
        (python.parent / "pip").symlink_to("python")
        self.lacks("", then="")

    def lacks(self, words: str, then: str) -> None:
        """What its Pillow lacks, now and when it was built anew."""
        (self.folder / "lacks").write_text(words)
        (self.folder / "lacks-then").write_text(then)

    def setup(self) -> tuple[subprocess.CompletedProcess[str], list[str]]:
        """Runs it; what came of it, and what Python was told."""
        (self.folder / "said").write_text("")
        words = [self.folder / "scripts/setup"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        return done, (self.folder / "said").read_text().splitlines()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def builds(said: list[str]) -> list[str]:
    return [line for line in said if "--no-binary pillow-simd" in line]


def test_what_is_done_is_not_done_again(checkout: Checkout) -> None:
    done, said = checkout.setup()
    assert done.returncode == 0, done.stderr
    assert any("pip install" in line for line in said)
    assert not builds(said)
    done, said = checkout.setup()
    assert done.returncode == 0
    assert not any("pip" in line for line in said)


def test_a_changed_kernel_is_built_anew(checkout: Checkout) -> None:
    checkout.setup()
    with (checkout.folder / NATIVE / "finish.c").open("a") as source:
        source.write("/* changed */\n")
    done, said = checkout.setup()
    assert done.returncode == 0
    assert any("pip install" in line for line in said)


def test_kernels_that_are_gone_are_built_anew(checkout: Checkout) -> None:
    checkout.setup()
    (checkout.folder / NATIVE / "_kernels.abi3.so").unlink()
    _, said = checkout.setup()
    assert any("pip install" in line for line in said)


def test_a_wheel_without_libtiff_is_thrown_away_and_built_anew(checkout: Checkout) -> None:
    checkout.setup()
    checkout.lacks("libtiff, libwebp", then="")
    done, said = checkout.setup()
    assert done.returncode == 0, done.stderr
    assert "pillow-simd anew, as it lacks: libtiff, libwebp" in done.stderr
    order = [line for line in said if "pillow" in line and "pip" in line and "faults" not in line]
    assert [line.split()[2] for line in order] == ["cache", "uninstall", "install"]
    assert order[1].endswith("uninstall -y pillow pillow-simd")
    assert "--no-deps" in order[2]


def test_the_readme_names_what_setup_installs() -> None:
    script, page = ((ROOT / name).read_text() for name in ("scripts/setup", "README.md"))
    for system in ("apt", "dnf"):
        packages = " ".join(re.findall(rf'{system}_packages\+?="([^"]+)"', script)).split()
        assert len(packages) > 7
        for package in {*packages} - {"python3-venv"}:
            assert re.search(rf"[` ]{re.escape(package)}[` ]", page), package


def test_what_cannot_be_had_is_said_with_the_line_that_installs_it(checkout: Checkout) -> None:
    checkout.lacks("libtiff", then="libtiff")
    done, _ = checkout.setup()
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "pillow-simd was built without libtiff" in last
    assert "libtiff-dev" in last
    assert not (checkout.folder / ".venv/loaderd-setup.sha256").exists()
