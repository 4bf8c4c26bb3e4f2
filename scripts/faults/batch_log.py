"""A log of all batches that a trainer was given, for a program that judges it afterwards.

``LOADERD_HISTORY`` names the file. Every batch is one line of JSON, appended at once, so
that processes may share the file and none is lost when one is killed. A program that is to be
judged calls :func:`install` before it makes sequences::

    {"pid": 4711, "stream": "9f…", "spec": "3c…", "epoch": 0, "position": 5, "attempt": 0,
     "batches": 12, "sha256": "e3…"}

``stream`` is one sequence, and ``spec`` decides what its bytes must be: lines of equal spec,
epoch and position have equal sums, whoever wrote them.
"""

from __future__ import annotations

import hashlib
import json
import os

import numpy as np

from loaderd.ipc.bundle import Parts
from loaderd.spec import spec as specs
from loaderd.spec.source import Directory
from loaderd.spec.spec import Spec
from loaderd_client.core.batch import Batch
from loaderd_client.keras import reader

VARIABLE = "LOADERD_HISTORY"


class History:
    """What one sequence delivers.

    Args:
        path: the file.
    """

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)
        self._stream = os.urandom(8).hex()
        self._asked: tuple[Spec, Parts] | None = None
        self._digest = ""

    def note(self, batch: Batch, spec: Spec, parts: Parts, batches: int) -> None:
        """Appends a line.

        Args:
            batch: what is delivered.
            spec: what it was made by, with the seed that counts.
            parts: the arrays that the spec means.
            batches: of an epoch.
        """
        epoch, position = batch.place
        line = {
            "pid": os.getpid(),
            "stream": self._stream,
            "spec": self._name(spec, parts),
            "epoch": epoch,
            "position": position,
            "attempt": batch.attempt,
            "batches": batches,
            "sha256": _sum(batch),
        }
        self._append(json.dumps(line).encode() + b"\n")

    def _name(self, spec: Spec, parts: Parts) -> str:
        """Of what decides about the bytes; not computed anew for every batch."""
        asked = self._asked
        if asked is None or asked[0] != spec or asked[1] is not parts:
            self._asked, self._digest = (spec, parts), _digest(spec, parts)
        return self._digest

    def _append(self, line: bytes) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        fd = os.open(self._path, flags, 0o600)
        try:
            os.write(fd, line)  # one write: lines of several processes do not mix
        finally:
            os.close(fd)


def install() -> None:
    """Writes down what sequences are given from now on, if the variable names a file."""
    path = os.environ.get(VARIABLE)
    reader.new_observer = None if not path else lambda: History(path).note


def _digest(spec: Spec, parts: Parts) -> str:
    digest = hashlib.blake2b(specs.encode(spec), digest_size=8)
    for name, part in sorted(parts.items()):
        # Of a directory the manifest says nothing new: it comes along when a stream is reopened.
        if not (name == "manifest" and isinstance(spec.source, Directory)):
            digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def _sum(batch: Batch) -> str:
    digest = hashlib.sha256()
    for array in (batch.images, batch.labels, batch.weights, batch.ids):
        if array is not None:
            digest.update(array.tobytes())
    return digest.hexdigest()
