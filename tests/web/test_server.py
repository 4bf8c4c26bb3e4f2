"""The page's server: what it shows, and to whom."""

from __future__ import annotations

import io
import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest
from PIL import Image
from prometheus_client.openmetrics.parser import text_string_to_metric_families as strictly

from loaderd.ipc.snapshot import StreamStats
from loaderd.monitor import json_lines
from loaderd.monitor.report import derive
from loaderd.web.server import MAX_CONNECTIONS, MAX_HEADER
from loaderd_client import ImageDataGenerator, Session
from loaderd_client.core.stream import Stream
from loaderd_client.keras.preview import Overlay, caption, picture_of
from tests.support.daemons import Serve, eventually, gone
from tests.support.page import TOKEN, LivePage
from tests.support.streams import a_spec


@pytest.fixture
def stream(page: LivePage, photos: Path) -> Iterator[Stream]:
    with Session(page.daemon.path) as session:
        yield session.open(a_spec(photos), slots=4)


class TestWhoGetsIn:
    def test_without_the_token_nobody_sees_anything(self, watched: LivePage) -> None:
        paths = ("/", "/events", "/api/report", "/api/bad", "/metrics", "/preview/1.png")
        for path in paths:
            assert watched.ask(path).status == 401
            assert watched.ask(path, Authorization="Bearer wrong").status == 401
            assert watched.ask(f"{path}?token={TOKEN[:-1]}").status == 401
        assert watched.ask("/api/workers", "POST", "{}", Origin=_origin(watched)).status == 401

    def test_the_token_is_exchanged_for_a_cookie_that_scripts_cannot_read(
        self, watched: LivePage
    ) -> None:
        answer = watched.ask(f"/?token={TOKEN}")
        cookie = answer.headers["Set-Cookie"]
        assert (answer.status, answer.headers["Location"]) == (303, "/")
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
        assert TOKEN not in cookie
        assert watched.ask("/", Cookie=cookie.partition(";")[0]).status == 200
        assert watched.ask("/", Cookie=cookie.partition("=")[0] + "=forged").status == 401

    @pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example"])
    def test_a_foreign_name_for_this_address_is_refused(self, watched: LivePage, host: str) -> None:
        assert watched.get("/api/report", Host=host).status == 403

    def test_a_tunnel_from_another_port_is_let_in(self, watched: LivePage) -> None:
        assert watched.get("/", Host="localhost:9000").status == 200

    @pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1", ""])
    def test_another_sites_page_can_change_nothing(self, watched: LivePage, origin: str) -> None:
        assert watched.post("/api/workers", {"count": 3}, Origin=origin).status == 403
        assert watched.daemon.snapshot().workers_wanted == 2

    def test_another_sites_page_can_read_nothing(self, watched: LivePage) -> None:
        assert watched.get("/api/report", Sec_Fetch_Site="cross-site").status == 403
        assert "Access-Control-Allow-Origin" not in watched.get("/api/report").headers

    @pytest.mark.parametrize(
        "path",
        [
            "/static/../server.py",
            "/static/..%2fserver.py",
            "//etc/passwd",
            "/static/page.html",
        ],
    )
    def test_no_other_file_is_served(self, watched: LivePage, path: str) -> None:
        assert watched.get(path).status == 404

    def test_the_policy_lets_the_page_load_nothing_from_elsewhere(self, watched: LivePage) -> None:
        headers = watched.get("/").headers
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert b"http" not in watched.get("/").body.replace(b"http-equiv", b"")

    def test_the_token_is_in_no_command_line(self, watched: LivePage) -> None:
        lines = [one.cmdline() for one in psutil.Process(watched.daemon.process.pid).children()]
        assert lines
        assert not any(TOKEN in word for line in lines for word in line)


class TestBadRequests:
    def test_a_huge_header_is_refused(self, watched: LivePage) -> None:
        with pytest.raises(ConnectionError):
            watched.ask("/", Cookie="x" * 2 * MAX_HEADER)
        assert watched.get("/").status == 200

    def test_a_slow_request_is_dropped(self, watched: LivePage) -> None:
        with socket.create_connection(("127.0.0.1", watched.port), 30) as slow:
            slow.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
            assert slow.recv(1000) == b""  # after REQUEST_SECONDS

    def test_no_more_than_so_many_connections_are_held(self, watched: LivePage) -> None:
        held = [
            socket.create_connection(("127.0.0.1", watched.port)) for _ in range(MAX_CONNECTIONS)
        ]
        with socket.create_connection(("127.0.0.1", watched.port), 20) as one_more:
            assert one_more.recv(1000) == b""
        for one in held:
            one.close()

        def answers() -> bool:
            try:
                return watched.get("/").status == 200
            except OSError:
                return False

        eventually(answers)

    @pytest.mark.parametrize("body", ["", "[]", '{"count": "many"}', "\0"])
    def test_a_body_that_is_no_answer_is_refused(self, watched: LivePage, body: str) -> None:
        headers = {"Authorization": f"Bearer {TOKEN}", "Origin": _origin(watched)}
        assert watched.ask("/api/workers", "POST", body, **headers).status == 400

    def test_a_number_that_is_not_allowed_is_refused_in_words(self, watched: LivePage) -> None:
        answer = watched.post("/api/workers", {"count": 0})
        assert answer.status == 400
        assert "from 1 to 512" in answer.text


class TestWhatItLogs:
    def test_a_refusal_is_logged_once(self, page: LivePage) -> None:
        for _ in range(5):
            page.ask("/api/report")
            page.get("/", Host="evil.example")
        eventually(lambda: "DNS rebinding" in page.daemon.log)
        assert page.daemon.log.count("DNS rebinding") == 1
        assert page.daemon.log.count("without the token") == 1


class TestWhatItShows:
    def test_the_figures_are_those_of_the_command(self, page: LivePage, stream: Stream) -> None:
        stream.take((0, 0))
        eventually(lambda: page.get("/api/report").json["streams"] != [])
        shown, now = page.get("/api/report").json, page.daemon.snapshot()
        told = json.loads(json_lines.render(derive(now)))
        assert shown.keys() == told.keys()
        for key in ("id", "client_pid", "directory", "samples", "batches", "slots", "ring_bytes"):
            assert shown["streams"][0][key] == told["streams"][0][key]
        assert shown["daemon"]["pid"] == now.daemon.pid

    def test_events_begin_with_the_past_and_go_on_each_second(self, page: LivePage) -> None:
        with socket.create_connection(("127.0.0.1", page.port), 20) as viewer:
            request = f"GET /events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}"
            viewer.sendall(f"{request}\r\n\r\n".encode())
            lines = viewer.makefile()
            names: list[str] = []
            while len(names) < 3:
                line = lines.readline()
                if line.startswith("event: "):
                    names.append(line.removeprefix("event: ").strip())
        assert names == ["history", "report", "report"]

    def test_it_says_when_the_daemon_does_not_answer(self, page: LivePage) -> None:
        page.daemon.process.send_signal(signal.SIGSTOP)
        try:
            eventually(lambda: page.get("/api/report").status == 503)
            assert "loaderd_up 0.0" in page.get("/metrics").text
        finally:
            page.daemon.process.send_signal(signal.SIGCONT)
        eventually(lambda: page.get("/api/report").status == 200)

    def test_a_preview_has_the_pixels_of_the_batch_and_takes_none_away(
        self, page: LivePage, photos: Path, stream: Stream
    ) -> None:
        for position in range(2):
            stream.take((0, position))
        shown = _at_rest(page)
        answer = page.get(f"/preview/{shown.id}.png")
        assert answer.status == 200, answer.text
        names = list(stream.manifest.class_names)
        places = [(shown.epoch, shown.position + more) for more in (0, 1)]
        assert page.daemon.snapshot().streams[0].batches == 2
        expected = picture_of(
            map(stream.take, places),
            16,
            a_spec(photos),
            lambda batch, row: (caption(batch.labels[row], "categorical", names), Overlay()),  # type: ignore[index]
        )
        drawn = Image.open(io.BytesIO(answer.body))
        np.testing.assert_array_equal(np.asarray(drawn), np.asarray(expected))

    def test_a_preview_saves_nothing_though_the_stream_does(
        self, page: LivePage, photos: Path, tmp_path: Path
    ) -> None:
        with Session(page.daemon.path):
            flow = ImageDataGenerator().flow_from_directory(
                photos, target_size=(32, 32), batch_size=8, save_to_dir=str(tmp_path)
            )
            next(flow)
            (shown,) = page.daemon.snapshot().streams
            saved = sorted(tmp_path.iterdir())
            answer = page.get(f"/preview/{shown.id}.png")
            assert answer.status == 200, answer.text
            assert saved
            assert sorted(tmp_path.iterdir()) == saved

    def test_there_is_no_preview_of_a_stream_that_is_closed(self, page: LivePage) -> None:
        answer = page.get("/preview/99.png")
        assert answer.status == 400
        assert "there is no stream 99" in answer.text


class TestWhatItDoes:
    def test_it_sets_the_number_of_workers(self, page: LivePage) -> None:
        for count in (3, 1):
            assert page.post("/api/workers", {"count": count}).json == {"workers": count}
            eventually(lambda count=count: len(page.daemon.workers()) == count)  # type: ignore[misc]

    def test_it_removes_the_caches_on_disk(
        self, serve: Serve, monkeypatch: pytest.MonkeyPatch, photos: Path, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("LOADERD_WEB_TOKEN", TOKEN)
        with serve(1, "--http=0", f"--cache-dir={tmp_path}") as daemon:
            page, cached = LivePage(daemon), msgspec.structs.replace(a_spec(photos), cache="disk")
            with Session(daemon.path) as session:
                session.open(cached, slots=2).take((0, 0))
            assert list(tmp_path.glob("*.images"))
            eventually(lambda: page.get("/api/report").status == 200)
            assert page.post("/api/caches/clear", {}).json["removed_bytes"] > 0
            assert not list(tmp_path.glob("*.images"))


class TestMetrics:
    def test_they_are_valid_and_of_the_snapshot(self, page: LivePage, stream: Stream) -> None:
        for position in range(3):
            stream.take((0, position))
        eventually(lambda: "loaderd_stream_batches_total{" in page.get("/metrics").text)
        kind = "application/openmetrics-text; version=1.0.0"
        answer = page.get("/metrics", Accept=kind)
        families = {family.name: family for family in strictly(answer.text)}
        assert {one.value for one in families["loaderd_up"].samples} == {1.0}
        assert sum(one.value for one in families["loaderd_stream_slots"].samples) == 4
        waits = families["loaderd_stream_batch_wait_seconds"].samples
        assert [one.value for one in waits if one.name.endswith("_count")] == [2.0]

    def test_they_can_be_opened_to_all(self, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LOADERD_WEB_TOKEN", TOKEN)
        with serve(1, "--http=0", "--metrics-open") as daemon:
            page = LivePage(daemon)
            assert page.ask("/metrics").status == 200
            assert page.ask("/api/report").status == 401


class TestTheProcess:
    def test_it_ends_with_the_daemon_and_is_started_again_if_it_dies(self, page: LivePage) -> None:
        server = _server(page)
        server.kill()
        eventually(lambda: gone(server) and page.daemon.log.count("the page is at") == 2)
        again = _server(page)
        page.daemon.process.kill()
        eventually(lambda: gone(again))

    def test_a_port_that_is_taken_is_an_error_at_once(
        self, watched: LivePage, runtime: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        from loaderd.cli.main import main

        for verb in ("serve", "start", "web"):
            assert main([verb, f"--http={watched.port}"]) == 1
            assert "it is taken; choose another port" in capsys.readouterr().err

    def test_a_short_token_is_refused(
        self, runtime: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        from loaderd.cli.main import main

        monkeypatch.setenv("LOADERD_WEB_TOKEN", "short")
        assert main(["serve", "--http=0"]) == 2
        assert "16 or more" in capsys.readouterr().err


def _at_rest(page: LivePage) -> StreamStats:
    """The only stream, when its ring is full."""
    seen: list[StreamStats] = []

    def rests() -> bool:
        seen.append(page.daemon.snapshot().streams[0])
        before = seen[-2] if len(seen) > 1 else None
        now = seen[-1]
        return before is not None and now.ready > 0 and _place(before) == _place(now)

    eventually(rests)
    return seen[-1]


def _place(stream: StreamStats) -> tuple[int, ...]:
    return stream.epoch, stream.position, stream.filling, stream.ready


def _origin(page: LivePage) -> str:
    return f"http://127.0.0.1:{page.port}"


def _server(page: LivePage) -> psutil.Process:
    children = psutil.Process(page.daemon.process.pid).children()
    return next(one for one in children if "web" in one.cmdline())
