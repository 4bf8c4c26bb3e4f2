"""A spec is encoded once, and decoded once in each process that needs it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

COUNTS = """
import os
import loaderd.spec.spec as spec

def counted(name):
    original = getattr(spec, name)
    def call(value):
        with open(os.environ["COUNTS"], "a") as file:
            file.write(f"{os.getpid()} {name}\\n")
        return original(value)
    return call

for name in ("encode", "decode"):
    setattr(spec, name, counted(name))
"""
READS = """
import os, sys
from loaderd_client.image import ImageDataGenerator
flow = ImageDataGenerator(rotation_range=9, rescale=1 / 255).flow_from_directory(
    sys.argv[1], target_size=(20, 30), batch_size=8
)
for index in range(len(flow)):
    flow[index]
from loaderd.ipc import dial
import loaderd_client
from loaderd_client.core import session
snapshot = dial.observe(session.current().path)
print(os.getpid(), snapshot.daemon.pid, *(worker.pid for worker in snapshot.workers))
"""


def test_a_spec_of_flow_from_directory_is_encoded_once_and_decoded_once_in_each_process(
    photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(COUNTS)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    counts = tmp_path / "counts"
    environ = {**os.environ, "PYTHONPATH": path, "COUNTS": str(counts), "LOADERD_WORKERS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", READS, str(photos)],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    trainer, supervisor, *workers = map(int, done.stdout.splitlines()[-1].split())
    seen = Counter(tuple(line.split()) for line in counts.read_text().splitlines())
    encoded = {int(pid): count for (pid, what), count in seen.items() if what == "encode"}
    decoded = {int(pid): count for (pid, what), count in seen.items() if what == "decode"}
    assert encoded == {trainer: 1}
    openers = decoded.keys() - {supervisor, *workers}
    assert len(openers) == 1
    assert decoded.keys() >= {supervisor, *workers}
    assert set(decoded.values()) == {1}
