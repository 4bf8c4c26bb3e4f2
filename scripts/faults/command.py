"""What the commands of faults and growth have in common."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

PHOTOS = Path(".bench/photos-chaos")
MADE = ("--classes", "4", "--images", "40")
INTERRUPTED = 130


def number(text: str) -> float:
    """A number above 0, of a command line."""
    try:
        read = float(text)
    except ValueError:
        read = 0.0
    if not 0 < read < 1e5:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return read


def photos() -> str:
    """The folder of images; missing ones are made."""
    PHOTOS.parent.mkdir(exist_ok=True)
    words = [sys.executable, "scripts/make_photos.py", str(PHOTOS), *MADE]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return str(PHOTOS.absolute())


@contextlib.contextmanager
def place(name: str, keep: str | None) -> Iterator[Path]:
    """A folder for the run, removed afterwards unless ``keep`` names it."""
    if keep:
        Path(keep).mkdir(parents=True)
        yield Path(keep).absolute()
        return
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def keep_logs(name: str, folder: Path) -> str:
    """Copy the logs of a run that had findings; return the folder."""
    return shutil.copytree(folder, f"{tempfile.mkdtemp()}/{name}", ignore=_sockets)


def _sockets(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name.endswith((".sock", ".lock"))]


@contextlib.contextmanager
def ignored_signals() -> Iterator[None]:
    """Ignore signals in the block, so that a second Ctrl-C does not stop the clean-up."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def exit_code(name: str, run: Callable[[], int]) -> int:
    """Run a command; an interrupt becomes one line and an exit code."""
    for signalled in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signalled, _interrupt)
    try:
        return run()
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
