"""Python's own watch over resources finds nothing in commands, and nothing in daemons."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def loaderd(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "loaderd", *words],
        env={**os.environ, "PYTHONDEVMODE": "1", "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_python_warns_of_nothing(photos: Path, runtime: str) -> None:
    for words in (["start", "--workers=1"], ["status"], ["scan", str(photos)], ["stop"]):
        done = loaderd(*words)
        assert (done.returncode, done.stderr) == (0, ""), words
    log = Path(runtime, "loaderd", "default.log").read_text()
    assert "Warning" not in log
    assert "Traceback" not in log
