"""An object store on loopback that misbehaves on request: S3's requests of a reader, and HTTP.

Objects lie in memory. ``/bucket/key`` is an object by either protocol; ``/bucket?list-type=2`` is
S3's listing. What a test plants happens to the requests that follow.
"""

from __future__ import annotations

import hashlib
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_PAGE = 1000


@dataclass
class Request:
    """One that came."""

    method: str
    path: str
    range: str
    authorization: str


@dataclass
class ObjectServer:
    """The objects, what is planted, and what was asked.

    Attributes:
        objects: their bytes by ``bucket/key``.
        port: that it listens at.
        latency: seconds before each answer.
        failures: how many of the next requests for objects are answered with ``status``.
        status: of a failure.
        cuts: how many of the next bodies are cut in the middle.
        stalled: while set, no request is answered.
        has_etags: whether answers have an ETag.
        modified: when all objects were, in seconds since 1970.
        at_once: how many requests are being answered.
        maximum_at_once: how many there were at the same time.
        requests: all that came.
    """

    objects: dict[str, bytes] = field(default_factory=dict)
    port: int = 0
    latency: float = 0.0
    failures: int = 0
    status: int = 503
    cuts: int = 0
    stalled: threading.Event = field(default_factory=threading.Event)
    has_etags: bool = True
    requests: list[Request] = field(default_factory=list)
    modified: float = 1.7e9
    at_once: int = 0
    maximum_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        """Of the server."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which S3 clients use it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "the-secret",
            "AWS_REGION": "us-east-1",
        }

    def count(self, change: int) -> None:
        """A request comes, or is answered."""
        with self.lock:
            self.at_once += change
            self.maximum_at_once = max(self.maximum_at_once, self.at_once)

    def take(self, name: str) -> bool:
        """Whether a fault that is planted so many times strikes now."""
        with self.lock:
            left: int = getattr(self, name)
            if left:
                setattr(self, name, left - 1)
            return left > 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # an answer is written in two parts
    wbufsize = -1
    server: _Server

    def do_GET(self) -> None:
        self.server.store.count(1)
        try:
            self._answer()
        finally:
            self.server.store.count(-1)

    do_HEAD = do_GET

    def _answer(self) -> None:
        store, parts = self.server.store, urlsplit(self.path)
        asked = self.headers.get("Range", "")
        store.requests.append(
            Request(self.command, self.path, asked, self.headers.get("Authorization", ""))
        )
        if store.latency:
            time.sleep(store.latency)
        while store.stalled.is_set():
            time.sleep(0.02)
        name, query = unquote(parts.path).strip("/"), parse_qs(parts.query)
        if store.take("failures"):
            self._send(store.status, b"<Error><Code>Planted</Code></Error>")
        elif "list-type" in query:
            self._send(200, _listing(store.objects, name, query), "application/xml")
        elif name not in store.objects:
            self._send(404, b"<Error><Code>NoSuchKey</Code></Error>")
        else:
            self._send_object(store.objects[name], asked)

    def _send_object(self, data: bytes, asked: str) -> None:
        store, extra = self.server.store, {}
        if store.has_etags:
            extra["ETag"] = f'"{_etag(data)}"'
        extra["Last-Modified"] = formatdate(store.modified, usegmt=True)
        wanted = _RANGE.fullmatch(asked)
        if wanted is None:
            self._send(200, data, "application/octet-stream", extra)
            return
        first = int(wanted[1])
        last = min(int(wanted[2] or len(data)), len(data) - 1)
        if first >= len(data):
            self._send(416, b"")
            return
        extra["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        self._send(206, data[first : last + 1], "application/octet-stream", extra)

    def _send(
        self,
        status: int,
        data: bytes,
        kind: str = "application/xml",
        extra: Mapping[str, str] | None = None,
    ) -> None:
        self.send_response(status)
        for key, value in {"Content-Type": kind, **(extra or {})}.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if status < 300 and len(data) > 1 and self.server.store.take("cuts"):
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Logs nothing."""


@lru_cache(1024)
def _etag(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def _listing(objects: Mapping[str, bytes], bucket: str, query: Mapping[str, list[str]]) -> bytes:
    """A page of a listing, in the form of S3."""
    prefix = query.get("prefix", [""])[0]
    start = query.get("continuation-token", [""])[0]
    keys = sorted(one.removeprefix(bucket + "/") for one in objects if one.startswith(bucket + "/"))
    left = [one for one in keys if one.startswith(prefix) and one > start]
    rows = "".join(
        f"<Contents><Key>{escape(key)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
        f"<ETag>&quot;{_etag(objects[f'{bucket}/{key}'])}&quot;</ETag>"
        f"<Size>{len(objects[f'{bucket}/{key}'])}</Size><StorageClass>STANDARD</StorageClass>"
        "</Contents>"
        for key in left[:_PAGE]
    )
    more, token = len(left) > _PAGE, ""
    if more:
        token = f"<NextContinuationToken>{escape(left[_PAGE - 1])}</NextContinuationToken>"
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>{escape(bucket)}</Name><Prefix>{escape(prefix)}</Prefix>"
        f"<KeyCount>{len(left[:_PAGE])}</KeyCount><MaxKeys>{_PAGE}</MaxKeys>"
        f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{rows}"
        "</ListBucketResult>"
    ).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    store: ObjectServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores clients that went away."""


@contextmanager
def object_server(objects: Mapping[str, bytes] | None = None) -> Iterator[ObjectServer]:
    """A server until the end of the block."""
    store = ObjectServer(dict(objects or {}))
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.store = store
        store.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield store
        finally:
            store.stalled.clear()
            server.shutdown()
            thread.join()
