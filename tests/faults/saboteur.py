"""A daemon whose workers do themselves harm: all else of it is the real one.

Run as ``python -m tests.faults.saboteur PLAN READY_FD [FLAG=VALUE ...]``, where PLAN is a JSON
object with the fields of :class:`Plan`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from loaderd import config
from loaderd.child import init
from loaderd.config import Settings

NAPS = {"hang": 3600.0, "nap": 0.3}
"""Seconds."""


@dataclass(frozen=True)
class Plan:
    """What happens where.

    Attributes:
        stage: ``reading``, ``decoding``, ``writing`` (a row is half written) or ``after`` (the
            last row of a chunk is written, and nobody was told).
        harm: the name of a signal that the worker sends to itself, or one of ``NAPS``.
        folder: where it is noted how often.
        times: it is done so often in all.
        name: only to files that hold this in their name.
    """

    stage: str
    harm: str
    folder: str
    times: int = 1
    name: str = ""

    def strike(self, path: Any = b"") -> None:
        """Does the harm, if it is time."""
        if self.name.encode() in os.fsencode(path) and self._claim():
            harm(self.harm)

    def _claim(self) -> bool:
        for turn in range(self.times):
            try:
                os.close(os.open(f"{self.folder}/{turn}", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                continue
            return True
        return False


def harm(what: str) -> None:
    """Does it to this process."""
    if what in NAPS:
        time.sleep(NAPS[what])
    else:
        os.kill(os.getpid(), signal.Signals[what])


def work(plan: Plan, sock: socket.socket, settings: Settings) -> None:
    """A worker process that is sabotaged."""
    init.init_child()
    from loaderd.render import renderer
    from loaderd.render.load import decode
    from loaderd.sources import files
    from loaderd.worker import loop, stream_renderer

    match plan.stage:
        case "reading":
            _before(files.FileReader, "read", plan.strike)
        case "decoding":
            _with_path(files.FileReader, decode.Decoder, plan)
        case "writing":
            _half_written(renderer.Renderer, plan)
        case "after":
            _after(stream_renderer.StreamRenderer, "write", plan.strike)
    loop.main(sock, settings)


def _before(owner: Any, name: str, strike: Callable[[Any], None]) -> None:
    original = getattr(owner, name)

    def sabotaged(self: Any, path: Any) -> Any:
        strike(path)
        return original(self, path)

    setattr(owner, name, sabotaged)


def _with_path(reader: Any, decoder: Any, plan: Plan) -> None:
    """The decoder knows no paths; it decodes what was read last."""
    read, decode, paths = reader.read, decoder.decode, [b""]

    def noted_read(self: Any, path: Any) -> Any:
        paths[0] = path
        return read(self, path)

    def sabotaged_decode(self: Any, data: Any) -> Any:
        plan.strike(paths[0])
        return decode(self, data)

    reader.read, decoder.decode = noted_read, sabotaged_decode


def _half_written(renderer: Any, plan: Plan) -> None:
    finish = renderer.finish

    def sabotaged(self: Any, image: Any, prepared: Any, at: int, row: Any) -> None:
        row[: len(row) // 2] = 77
        plan.strike()
        finish(self, image, prepared, at, row)

    renderer.finish = sabotaged


def _after(owner: Any, name: str, strike: Callable[[], None]) -> None:
    original = getattr(owner, name)

    def sabotaged(self: Any, chunk: Any) -> Any:
        done = original(self, chunk)
        strike()
        return done

    setattr(owner, name, sabotaged)


def main() -> None:
    """Serves until it is told to stop."""
    serve(sys.argv[1], [f"--ready-fd={sys.argv[2]}", *sys.argv[3:]])


def serve(plan: str, words: list[str]) -> None:
    """The same.

    Args:
        plan: see above.
        words: options of ``loaderd serve``, with or without their dashes.
    """
    from loaderd.supervisor import supervisor  # late: the workers import this module too
    from tests.faults import defects

    defects.plant()
    pairs = [word.removeprefix("--").split("=", 1) for word in words if "=" in word]
    flags = {key.replace("-", "_"): value for key, value in pairs}
    settings = config.load(flags, {"XDG_RUNTIME_DIR": os.environ["XDG_RUNTIME_DIR"]})
    assert settings.ready_fd is not None
    tell = partial(_tell, settings.ready_fd)
    supervisor.serve(settings, tell, partial(work, Plan(**json.loads(plan))))


def _tell(ready: int) -> None:
    os.write(ready, b"1")
    os.close(ready)


if __name__ == "__main__":
    # Workers unpickle their entry by its module's name, which must not be __main__.
    from tests.faults import saboteur

    saboteur.main()
