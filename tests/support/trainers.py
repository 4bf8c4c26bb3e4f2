"""Trainers that share a stream, each in a process of its own, and what they have read.

As a program (``python -m tests.support.trainers DATA SHARE``) it opens the dataset, says so, and
reads pass after pass at the pace that it is told on its standard input.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from scripts.faults import batch_log
from tests.support.daemons import DEADLINE, eventually

SEED = 3
BATCH = 8


def a_dataset(photos: Path | str, **more: Any) -> Any:
    """What they read: 12 batches an epoch, each larger than what is copied in any case."""
    from loaderd_client import image_dataset_from_directory

    options: dict[str, Any] = {"image_size": (40, 50), "batch_size": BATCH, "seed": SEED}
    return image_dataset_from_directory(str(photos), verbose=False, **(options | more))


class Trainer:
    """A trainer in a process of its own; it is killed at the end.

    Args:
        name: of its log.
        photos: what it reads.
        share: the name of the stream; None for one of its own.

    Attributes:
        history: the path of its log of batches.
    """

    def __init__(self, name: str, photos: Path, share: str | None) -> None:
        self.history = str(Path(os.environ["XDG_RUNTIME_DIR"]) / f"{name}.history")
        Path(self.history).touch()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.trainers", str(photos), share or ""],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, batch_log.VARIABLE: self.history},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.communicate()

    @property
    def pid(self) -> int:
        return self.process.pid

    def await_open(self) -> None:
        """Waits until it has its stream."""
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], DEADLINE)[0]
        assert self.process.stdout.readline() == b"open\n"

    def read(self, batches: int, pause: float = 0.0) -> None:
        """Has it read so many batches more, with a pause after each, in seconds."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{batches} {pause}\n".encode())
        self.process.stdin.flush()

    def has_read(self) -> int:
        """Batches that it has got so far."""
        return Path(self.history).read_bytes().count(b"\n")

    def await_read(self, batches: int) -> None:
        eventually(lambda: self.has_read() >= batches)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


@contextlib.contextmanager
def trainers(photos: Path, *names: str, share: str | None = "search") -> Iterator[list[Trainer]]:
    """Trainers that have all opened the stream before one of them reads."""
    with contextlib.ExitStack() as stack:
        some = [stack.enter_context(Trainer(name, photos, share)) for name in names]
        for one in some:
            one.await_open()
        yield some


def main() -> None:
    """Opens, and reads as it is told."""
    from scripts.faults import flows

    flows.without_keras()
    from loaderd_client import connect

    photos, share = sys.argv[1:]
    batch_log.install()
    with connect("auto"):
        sequence = a_dataset(photos, share=share or None)
        print("open", flush=True)
        batches = (batch for _ in iter(int, 1) for batch in sequence)
        for line in sys.stdin:
            count, pause = line.split()
            for _ in range(int(count)):
                next(batches)
                select.select([], [], [], float(pause))


if __name__ == "__main__":
    main()
