"""A trainer whose ring takes most of 60 MiB of shared memory loses its daemon; see ``test_room``.

Only batches that are still held may be in the way of the new ring, which is smaller then.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import psutil

from loaderd.ipc import address
from loaderd_client import LoaderSequence, Session
from tests.support.streams import a_spec, digest, slow

ROWS = 3
"""So many make a slot of 11 MB: four, as many as are enough, are more than half of all room."""


def main(directory: str, kind: str, holding: str) -> None:
    """Reads an epoch, without and with a death in its midst."""
    path = address.socket_path("large")
    if kind == "started":
        serve(path)
    session = Session(path if kind == "started" else None)
    spec = slow(a_spec(Path(directory), batch_size=ROWS))
    sequence = LoaderSequence(spec, session)
    expected = [digest(sequence.fetch(index)) for index in range(6)]
    sequence.close()
    sequence = LoaderSequence(spec, session)
    got = [digest(sequence.fetch(index)) for index in range(2)]
    held = [sequence.fetch(index) for index in (2, 3)]
    got += [digest(batch) for batch in held]
    del held[int(holding) :]
    kill()
    if kind == "started":
        serve(path)
    rest = threading.Thread(target=lambda: got.extend(read(sequence)))
    rest.start()
    rest.join()
    assert got == expected
    assert [digest(batch) for batch in held] == expected[2 : 2 + int(holding)]
    session.close()
    kill()
    print("the rest is the same")


def read(sequence: LoaderSequence) -> list[str]:
    """The batches after the fourth."""
    return [digest(sequence.fetch(index)) for index in (4, 5)]


def serve(path: str) -> None:
    """A daemon that answers."""
    command = [sys.executable, "-m", "loaderd", "start", f"--socket={path}", "--workers=1"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def kill() -> None:
    """All daemons of this namespace."""
    mine = os.stat("/proc/self/ns/mnt").st_ino
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "serve" in words and os.stat(f"/proc/{process.pid}/ns/mnt").st_ino == mine:
            process.kill()
            process.wait(10)


if __name__ == "__main__":
    main(*sys.argv[1:])
