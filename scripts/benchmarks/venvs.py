"""Environments of the peers: one for each, made when it is first needed."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from scripts.benchmarks.workloads import Peer

FOLDER = Path(".bench/venvs")


class NotAvailable(Exception):
    """A peer cannot be installed here; says why."""


def python_of(peer: Peer) -> str:
    """The interpreter that runs a peer; its packages are installed first.

    Raises:
        NotAvailable: they cannot be.
    """
    if not peer.requires:
        return sys.executable
    folder = FOLDER / peer.environment
    stamp = folder / "installed"
    wanted = hashlib.sha256("\n".join([sys.version, *peer.requires]).encode()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        _install(folder, peer)
        stamp.write_text(wanted)
    return str((folder / "bin/python").absolute())


def _install(folder: Path, peer: Peer) -> None:
    log = FOLDER / f"{folder.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    pip = [str(folder / "bin/pip"), "install", "--disable-pip-version-check"]
    with log.open("w") as lines:
        for words in ([sys.executable, "-m", "venv", str(folder)], [*pip, *peer.requires]):
            if subprocess.run(words, stdout=lines, stderr=subprocess.STDOUT).returncode:
                needs = f"; it needs {peer.needs}" if peer.needs else ""
                raise NotAvailable(f"{_reason(log)}{needs} ({log})")


def _reason(log: Path) -> str:
    """The line that says most, of what an installer wrote."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or ["it said nothing"])[-1][:200]
