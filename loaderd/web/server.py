"""The HTTP server of the live page."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import mimetypes
import socket
from collections.abc import Callable, Iterator
from importlib import resources
from typing import Any, NamedTuple

import msgspec
from tornado import httputil
from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream, StreamClosedError
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler

from loaderd import formatting
from loaderd.errors import (
    DaemonError,
    InvalidArgument,
    LoaderdError,
    MissingDependency,
    RequestRefused,
)
from loaderd.ipc.text import printable
from loaderd.monitor import json_lines
from loaderd.web.access import Access
from loaderd.web.actions import Actions
from loaderd.web.watcher import Watcher

log = logging.getLogger("loaderd")

MAX_CONNECTIONS = 64
MAX_HEADER = 16 * 1024
MAX_BODY = 16 * 1024
"""Bytes of a request."""

REQUEST_SECONDS = 5.0
"""Within which a request must be complete."""

KEEP_ALIVE_SECONDS = 15.0
"""After which viewers get a comment, so that tunnels stay open and dead ones are noticed."""

_MAX_NOTED = 256
_STATIC = ("page.css", "page.js", "icon.svg")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; form-action 'none'; frame-ancestors 'none'; "
    "base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Options(NamedTuple):
    """How the page is served.

    Attributes:
        host: to listen at.
        port: the same; 0 takes a free one.
        token: the secret in the URL.
        metrics_open: whether ``/metrics`` needs no token.
    """

    host: str
    port: int
    token: str
    metrics_open: bool = False


class _Served(NamedTuple):
    """What all handlers share."""

    access: Access
    watcher: Watcher
    actions: Actions
    metrics_open: bool
    noted: set[tuple[str, str]]

    def note(self, peer: str, reason: str) -> None:
        """Logs a refusal, once for each peer and reason."""
        if (peer, reason) not in self.noted and len(self.noted) < _MAX_NOTED:
            self.noted.add((peer, reason))
            log.warning("web: refused %s: %s", printable(peer), reason)


class _LimitedServer(HTTPServer):
    """A server with at most ``MAX_CONNECTIONS``; Tornado makes it without calling ``__init__``."""

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        if len(self._connections) >= MAX_CONNECTIONS:
            stream.close()
        else:
            super().handle_stream(stream, address)


class _Handler(RequestHandler):
    """Checks every request before it is answered."""

    is_open = False
    """Whether a request needs no token."""

    def initialize(self, served: _Served) -> None:
        self.served = served

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        for name, value in _HEADERS.items():
            self.set_header(name, value)

    def prepare(self) -> None:
        headers, access = self.request.headers, self.served.access
        host = headers.get("Host")
        if not access.is_ours(host):
            self._refuse(403, f"the Host {host!r}, which is not this server's (DNS rebinding?)")
        if headers.get("Sec-Fetch-Site") == "cross-site" and self.request.path != "/":
            self._refuse(403, "a request from another site")
        reads = self.request.method in ("GET", "HEAD")
        if not (reads or access.is_from_page(headers.get("Origin"), host)):
            self._refuse(403, "an Origin that is not this server's page")
        if not self.is_open and not self._is_known():
            self._refuse(401, "a request without the token")

    def _is_known(self) -> bool:
        access, bearer = self.served.access, self.request.headers.get("Authorization", "")
        return (
            access.has_cookie(self.get_cookie(self.cookie_name))
            or access.has_token(self.get_query_argument("token", None))
            or access.has_token(bearer.removeprefix("Bearer "))
        )

    @property
    def cookie_name(self) -> str:
        """Of this port: browsers share cookies among the ports of a host."""
        port = httputil.split_host_and_port(self.request.host)[1]
        return f"loaderd-{port}"

    def _refuse(self, status: int, reason: str) -> None:
        self.served.note(self.request.remote_ip or "?", reason)
        raise HTTPError(status, reason=_SHORT[status])

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """A line of text, without a traceback."""
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        text = _TEXTS.get(status_code, self._reason)
        error = kwargs.get("exc_info", (None, None, None))[1]
        if isinstance(error, LoaderdError):
            text = str(error)
            self.set_status(400 if isinstance(error, RequestRefused) else 500)
        self.finish(f"{text}\n")

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Only what is a fault of ours."""
        if not isinstance(value, HTTPError | LoaderdError):
            log.error(
                "web: %s %s", self.request.method, self.request.path, exc_info=(typ, value, tb)
            )

    def json(self, value: Any) -> None:
        """Answers with JSON."""
        self.set_header("Content-Type", "application/json")
        self.finish(value if isinstance(value, str) else formatting.as_json(value))

    @property
    def report(self) -> Any:
        """The present report; raises 503 while there is none."""
        found = self.served.watcher.report
        if found is None:
            raise HTTPError(503, reason="No daemon")
        return found


_SHORT = {401: "Unauthorized", 403: "Forbidden"}
_TEXTS = {
    401: "401: open the address with the token that `loaderd web` has printed, or the daemon's log",
    403: "403: this request did not come from the page, or was sent to a name that this server "
    "does not have: open the address that `loaderd web` has printed, or name the host by --http",
    404: "404: there is nothing here",
    405: "405: this method is not allowed here",
    503: "503: the daemon does not answer",
}


class _Page(_Handler):
    """The page; a token in its address is exchanged for a cookie."""

    def get(self) -> None:
        if self.get_query_argument("token", None) is not None:
            self.set_cookie(
                self.cookie_name, self.served.access.cookie, httponly=True, samesite="Strict"
            )
            self.redirect("/", status=303)
            return
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish(_static("page.html"))


class _Static(_Handler):
    """Style, script and icon, which hold no secret."""

    is_open = True

    def get(self, name: str) -> None:
        if name not in _STATIC:
            raise HTTPError(404)
        self.set_header("Content-Type", mimetypes.guess_type(name)[0] or "text/plain")
        self.finish(_static(name))


class _Events(_Handler):
    """Server-sent events, until the viewer goes."""

    async def get(self) -> None:
        if self.served.watcher.is_full:
            raise HTTPError(503, reason="Too many viewers")
        self.set_header("Content-Type", "text/event-stream")
        with (
            self.served.watcher.viewing() as queue,
            contextlib.suppress(StreamClosedError, asyncio.CancelledError),
        ):
            while not self.request.connection.stream.closed():  # type: ignore[union-attr]
                try:
                    name, data = await asyncio.wait_for(queue.get(), KEEP_ALIVE_SECONDS)
                    self.write(f"event: {name}\ndata: {data}\n\n")
                except TimeoutError:
                    self.write(": still here\n\n")
                await self.flush()


class _Report(_Handler):
    """What ``loaderd stat --json`` prints."""

    def get(self) -> None:
        self.json(json_lines.render(self.report))


class _Bad(_Handler):
    """The images that could not be read, the last first."""

    async def get(self) -> None:
        self.json({"images": await self.served.actions.bad_images()})


class _Preview(_Handler):
    """A picture of a stream's next samples."""

    async def get(self, stream: str) -> None:
        picture = await self.served.actions.preview(int(stream))
        self.set_header("Content-Type", "image/png")
        self.finish(picture)


class _Metrics(_Handler):
    """Prometheus's metrics."""

    def prepare(self) -> None:
        self.is_open = self.served.metrics_open
        super().prepare()

    def get(self) -> None:
        try:
            from prometheus_client.exposition import choose_encoder
            from prometheus_client.registry import CollectorRegistry

            from loaderd.monitor.metrics import ReportCollector
        except ImportError as error:
            raise MissingDependency(
                "metrics need the package prometheus-client: pip install 'loaderd[web]'"
            ) from error
        registry = CollectorRegistry(auto_describe=False)
        registry.register(ReportCollector(self.served.watcher.report))
        encode, kind = choose_encoder(self.request.headers.get("Accept", ""))
        self.set_header("Content-Type", kind)
        self.finish(encode(registry))


class _SetWorkers(_Handler):
    """Sets how many workers there are."""

    async def post(self) -> None:
        asked = _decoded(self.request.body, _Workers)
        await self.served.actions.set_workers(asked.count)
        self.json({"workers": asked.count})


class _ClearCaches(_Handler):
    """Removes the caches on disk that no stream uses."""

    async def post(self) -> None:
        self.json({"removed_bytes": await self.served.actions.clear_caches()})


class _Nothing(_Handler):
    """Any other address."""

    def get(self) -> None:
        raise HTTPError(404)

    post = get


class _Workers(msgspec.Struct):
    count: int


def _decoded(body: bytes, kind: type[_Workers]) -> _Workers:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise HTTPError(400, reason="Bad request") from error


def _static(name: str) -> bytes:
    return resources.files("loaderd.web").joinpath("static", name).read_bytes()


def _application(served: _Served) -> Application:
    shared = {"served": served}
    return Application(
        [
            (r"/", _Page, shared),
            (r"/static/([a-z.]+)", _Static, shared),
            (r"/events", _Events, shared),
            (r"/api/report", _Report, shared),
            (r"/api/bad", _Bad, shared),
            (r"/api/workers", _SetWorkers, shared),
            (r"/api/caches/clear", _ClearCaches, shared),
            (r"/preview/([0-9]{1,9})\.png", _Preview, shared),
            (r"/metrics", _Metrics, shared),
            (r".*", _Nothing, shared),
        ],
        log_function=lambda handler: None,
    )


@contextlib.contextmanager
def _listening(options: Options) -> Iterator[list[socket.socket]]:
    """Open sockets; raises a typed error where the address cannot be used."""
    try:
        sockets = bind_sockets(options.port, options.host)
    except socket.gaierror as error:
        raise InvalidArgument(f"--http: there is no host {options.host!r}: {error}") from error
    except OSError as error:
        what = f"{options.host}:{options.port}"
        if error.errno == errno.EADDRINUSE:
            raise DaemonError(f"{what} is taken by another program: choose another port") from error
        raise DaemonError(f"cannot listen at {what}: {error.strerror}") from error
    try:
        yield sockets
    finally:
        for one in sockets:
            one.close()


async def serve(socket_path: str, options: Options, on_ready: Callable[[str], None]) -> None:
    """Serves the page until it is cancelled.

    Args:
        socket_path: the daemon's.
        options: how to serve.
        on_ready: told the URL, with the token.

    Raises:
        DaemonError: the address cannot be used.
        InvalidArgument: there is no such host.
    """
    watcher = Watcher(socket_path)
    access = Access(options.token, options.host)
    actions = Actions(socket_path, watcher)
    served = _Served(access, watcher, actions, options.metrics_open, set())
    with _listening(options) as sockets:
        server = _LimitedServer(
            _application(served),
            max_header_size=MAX_HEADER,
            max_body_size=MAX_BODY,
            idle_connection_timeout=REQUEST_SECONDS,
            body_timeout=REQUEST_SECONDS,
        )
        server.add_sockets(sockets)
        on_ready(url(options, sockets[0].getsockname()[1]))
        logging.getLogger("tornado").setLevel(logging.CRITICAL)  # malformed requests of strangers
        try:
            await watcher.run()
        finally:
            server.stop()
            await server.close_all_connections()


def url(options: Options, port: int) -> str:
    """The address of the page, with the token."""
    host = "localhost" if options.host in ("127.0.0.1", "::1") else options.host
    if host in ("0.0.0.0", "::", ""):  # compared, not bound
        host = socket.gethostname()
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/?token={options.token}"
