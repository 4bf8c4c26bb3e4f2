"""A program that serves the files of a folder as an object store that takes its time to answer.

It knows as much of S3, and of HTTP, as reads need: GET and HEAD of ``/bucket/name``, and ranges.
It prints its port. One process, so that it costs little of the CPUs that are measured.
"""

from __future__ import annotations

import argparse
import asyncio
import mmap
import os
import re
from email.utils import formatdate
from pathlib import Path

_RANGE = re.compile(rb"\r\nrange: bytes=(\d+)-(\d*)", re.IGNORECASE)


class _File:
    """A file, and the headers that are the same in all answers."""

    def __init__(self, path: Path) -> None:
        status = path.stat()
        with path.open("rb") as file:
            self.data = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
        self.headers = (
            f'ETag: "{status.st_mtime_ns:x}-{status.st_size:x}"\r\n'
            f"Last-Modified: {formatdate(status.st_mtime, usegmt=True)}\r\n"
        ).encode()


class _Connection(asyncio.Protocol):
    def __init__(self, files: dict[bytes, _File], latency: float) -> None:
        self._files = files
        self._latency = latency
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connects."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answers each whole request after a while."""
        self._read += data
        while (end := self._read.find(b"\r\n\r\n")) >= 0:
            request, self._read = self._read[: end + 2], self._read[end + 4 :]
            asyncio.get_running_loop().call_later(self._latency, self._answer, request)

    def _answer(self, request: bytes) -> None:
        method, path, _ = request.split(b" ", 2)
        file = self._files.get(path.rpartition(b"/")[2])
        if file is None:
            self._transport.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            return
        size, status, extra = len(file.data), b"200 OK", b""
        first, last = 0, size - 1
        asked = _RANGE.search(request)
        if asked is not None:
            first, last = int(asked[1]), min(int(asked[2] or last), last)
            status, extra = (
                b"206 Partial Content",
                b"Content-Range: bytes %d-%d/%d\r\n"
                % (
                    first,
                    last,
                    size,
                ),
            )
        body = file.data[first : last + 1]
        head = b"HTTP/1.1 %s\r\nContent-Length: %d\r\n%s%s\r\n"
        self._transport.write(head % (status, len(body), extra, file.headers))
        if method != b"HEAD":
            self._transport.write(body)


async def _serve(folder: Path, latency: float) -> None:
    files = {os.fsencode(path.name): _File(path) for path in folder.iterdir() if path.is_file()}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(files, latency), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    """Serves until it is killed."""
    parser = argparse.ArgumentParser(description="Serves the files of a folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    args = parser.parse_args()
    asyncio.run(_serve(args.folder, args.latency))


if __name__ == "__main__":
    main()
