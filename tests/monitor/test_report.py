"""Snapshots become rates, shares and a verdict; screen, rows and JSON show them."""

from __future__ import annotations

import io
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from loaderd.ipc.snapshot import (
    SCHEMA,
    WAIT_BOUNDS_S,
    DaemonStats,
    HostStats,
    RemoteStats,
    Snapshot,
    StorageStats,
    StreamStats,
    WorkerStats,
)
from loaderd.monitor import json_lines, rows, terminal
from loaderd.monitor.report import Report, derive

GIB = 2**30


def stream(**fields: Any) -> StreamStats:
    usual: dict[str, Any] = {
        "id": 1,
        "client_pid": 4711,
        "directory": "/data/photos/train",
        "samples": 3000,
        "batch_size": 32,
        "batches_per_epoch": 94,
        "epoch": 3,
        "position": 57,
        "slots": 8,
        "ready": 6,
        "filling": 1,
        "leased": 1,
        "age_s": 100.0,
        "batches": 1520,
        "images": 48640,
        "waited_s": 34.2,
        "errors": 0,
        "on_error": "raise",
        "bad": 0,
        "ring_bytes": 69_120_000,
        "cache": "none",
        "cache_samples": 0,
    }
    return StreamStats(**(usual | fields))


def worker(**fields: Any) -> WorkerStats:
    usual: dict[str, Any] = {
        "pid": 5001,
        "up_s": 100.0,
        "chunks": 3000,
        "rows": 24000,
        "cached": 18000,
        "read_s": 5.0,
        "decode_s": 52.0,
        "resize_s": 9.0,
        "augment_s": 20.0,
        "busy_s": 88.0,
    }
    return WorkerStats(**(usual | fields))


def snapshot(
    *streams: StreamStats, workers: tuple[WorkerStats, ...] = (worker(),), **daemon: Any
) -> Snapshot:
    usual: dict[str, Any] = {
        "pid": 4242,
        "name": "default",
        "socket": "/run/user/1000/loaderd/default.sock",
        "version": "0.1.0",
        "uptime_s": 3725.0,
        "private": False,
        "draining": False,
        "cpu_s": 3.0,
        "chunks": 3000,
        "bad": 0,
        "cache_dir": "/home/me/.cache/loaderd",
        "trouble": "",
    }
    return Snapshot(
        schema=SCHEMA,
        time=1_700_000_000.0,
        daemon=DaemonStats(**(usual | daemon)),
        host=HostStats(
            cpus=16,
            cpu_percent=87.2,
            shm_total=16 * GIB,
            shm_free=14 * GIB,
            ring_bytes=GIB + GIB // 5,
            ring_limit=8 * GIB,
            cache_bytes=2 * GIB,
            cache_limit=4 * GIB,
        ),
        streams=streams,
        workers=workers,
        workers_wanted=2,
        restarts=1,
    )


def painted(seen: Report, width: int = 100, encoding: str = "utf-8") -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding)
    out = Console(file=file, width=width, markup=False, highlight=False, emoji=False)
    out.print(terminal.render(seen, out))
    file.seek(0)
    return "\n".join(line.rstrip() for line in file.read().splitlines())


class TestRates:
    def test_one_snapshot_gives_averages_since_the_stream_was_opened(self) -> None:
        seen = derive(snapshot(stream()))
        (rates,) = seen.rates
        assert (rates.batches_per_s, rates.images_per_s) == (15.2, 486.4)
        assert rates.waited_percent == pytest.approx(34.2)
        assert seen.interval_s is None

    def test_two_snapshots_give_the_rates_of_the_time_between(self) -> None:
        before = snapshot(stream())
        later = stream(age_s=102.0, batches=1530, images=48960, waited_s=34.3)
        seen = derive(snapshot(later, uptime_s=3727.0), before)
        (rates,) = seen.rates
        assert (rates.batches_per_s, rates.images_per_s) == (5.0, 160.0)
        assert rates.waited_percent == pytest.approx(5.0)
        assert seen.interval_s == 2.0

    def test_a_stream_that_is_new_counts_from_its_opening(self) -> None:
        new = stream(id=2, age_s=0.5, batches=4, images=128, waited_s=0.1)
        seen = derive(snapshot(new, uptime_s=3726.0), snapshot(stream()))
        assert seen.rates[0].batches_per_s == 8.0

    def test_a_restarted_daemon_counts_from_the_beginning(self) -> None:
        assert derive(snapshot(stream(), uptime_s=1.0), snapshot()).interval_s is None
        assert derive(snapshot(stream(), uptime_s=9e9, pid=1), snapshot()).interval_s is None

    def test_waiting_in_several_threads_is_at_most_all_the_time(self) -> None:
        assert derive(snapshot(stream(waited_s=250.0))).rates[0].waited_percent == 100.0

    def test_the_workers_time_adds_up(self) -> None:
        work = derive(snapshot()).work
        assert (work.read, work.decode, work.resize, work.augment) == (5.0, 52.0, 9.0, 20.0)
        assert (work.other, work.idle) == (2.0, 12.0)

    def test_a_long_chunk_that_ends_in_a_short_interval_is_no_more_than_all(self) -> None:
        later = worker(up_s=101.0, decode_s=55.0, busy_s=92.0)
        work = derive(snapshot(workers=(later,), uptime_s=3726.0), snapshot()).work
        assert (work.decode, work.other, work.idle) == (75.0, 25.0, 0.0)

    def test_a_replaced_worker_counts_from_its_start(self) -> None:
        new = worker(
            pid=6000, up_s=1.0, read_s=0.5, decode_s=0, resize_s=0, augment_s=0, busy_s=0.5
        )
        work = derive(snapshot(workers=(new,), uptime_s=3726.0), snapshot()).work
        assert (work.read, work.idle) == (50.0, 50.0)


class TestVerdict:
    @pytest.mark.parametrize(
        ("waited", "bound"),
        [
            (0.0, "NOT"),
            (4.99, "NOT"),
            (5.0, "MODERATELY"),
            (19.99, "MODERATELY"),
            (20.0, "HIGHLY"),
            (100.0, "HIGHLY"),
        ],
    )
    def test_the_thresholds_are_5_and_20_percent(self, waited: float, bound: str) -> None:
        verdict = derive(snapshot(stream(waited_s=waited))).verdict
        assert verdict.bound == bound
        assert f"Your program is {bound} input-bound" in verdict.text
        assert f"{waited:.1f}%" in verdict.text

    def test_the_wait_for_the_first_batch_does_not_count(self) -> None:
        first = stream(age_s=10.0, batches=0, images=0, waited_s=9.0, first_batch_s=10.0,
                       first_waited_s=9.0)  # fmt: skip
        assert derive(snapshot(first)).verdict.bound == "UNREAD"
        later = stream(age_s=20.0, batches=100, waited_s=12.5, first_batch_s=12.0,
                       first_waited_s=12.1)  # fmt: skip
        for before in (None, snapshot(first)):
            seen = derive(snapshot(later, uptime_s=3735.0), before)
            assert seen.verdict.waited_percent == pytest.approx(5.0)
            assert seen.rates[0].waited_percent == pytest.approx(5.0)

    def test_a_watched_verdict_looks_further_back_than_the_rates(self) -> None:
        calm = stream(age_s=109.0, waited_s=34.2)
        late = stream(age_s=110.0, batches=1530, waited_s=34.6)
        before = snapshot(stream()), snapshot(calm, uptime_s=3734.0)
        seen = derive(snapshot(late, uptime_s=3735.0), before[1], before[0])
        assert (seen.interval_s, seen.rates[0].batches_per_s) == (1.0, 10.0)
        assert seen.rates[0].waited_percent == pytest.approx(40.0)
        assert seen.verdict.waited_percent == pytest.approx(4.0)
        assert "only 4.0% of the last 10.0 s" in seen.verdict.text

    @pytest.mark.parametrize(
        ("busy_s", "wanted", "advice"),
        [
            (88.0, 15, "more workers. There are 15, and 16 CPUs may be used: with --workers 16"),
            (88.0, 16, "Decoding takes 68% of the work: with cache="),
            (27.0, 2, "More workers would not help, as they were idle 73% of it"),
        ],
    )
    def test_more_workers_are_advised_only_where_they_help(
        self, busy_s: float, wanted: int, advice: str
    ) -> None:
        decode_s = busy_s - 28.0 if busy_s > 28 else 10.0
        part = worker(read_s=5.0, decode_s=decode_s, resize_s=0.0, augment_s=0.0, busy_s=busy_s)
        now = msgspec.structs.replace(snapshot(stream(), workers=(part,)), workers_wanted=wanted)
        assert advice in derive(now).verdict.text

    def test_without_a_stream_nothing_is_read(self) -> None:
        verdict = derive(snapshot()).verdict
        assert (verdict.bound, verdict.waited_percent) == ("NO STREAM", None)
        assert verdict.text == "Nothing is read: no stream is open."

    def test_a_stream_that_is_not_read_is_not_called_input_bound(self) -> None:
        idle = stream(age_s=101.0)
        verdict = derive(snapshot(idle, uptime_s=3726.0), snapshot(stream())).verdict
        assert (verdict.bound, verdict.client_pid) == ("UNREAD", None)
        assert "1 stream is open, and no batch was taken in the last 1.0 s" in verdict.text

    def test_an_idle_stream_does_not_soften_the_verdict(self) -> None:
        later = stream(age_s=101.0, batches=1525, waited_s=34.7)
        idle = stream(id=2)
        seen = derive(snapshot(later, idle, uptime_s=3726.0), snapshot(stream(), idle))
        assert seen.verdict.waited_percent == pytest.approx(50.0)

    def test_training_and_validation_of_one_program_are_read_in_turn(self) -> None:
        seen = derive(snapshot(stream(waited_s=12.0), stream(id=2, waited_s=9.0)))
        assert seen.verdict.waited_percent == pytest.approx(21.0)
        assert seen.verdict.bound == "HIGHLY"

    def test_of_several_programs_the_one_that_waits_most_is_judged(self) -> None:
        other = stream(id=2, client_pid=4990, waited_s=1.0)
        verdict = derive(snapshot(other, stream())).verdict
        assert verdict.client_pid == 4711
        assert verdict.text.startswith("Of 2 programs, 4711 waits most and is HIGHLY input-bound")


def stalled(*workers: WorkerStats) -> Snapshot:
    """A stream and a new one wait for storage."""
    silent = (
        StorageStats(path="/data/\\x1b.jpg", waited_s=14.2, stream=1, client_pid=4711),
        StorageStats(path="/nfs", waited_s=65.0, stream=None, client_pid=4990),
    )
    return msgspec.structs.replace(snapshot(stream(), workers=workers), storage=silent)


class TestStorage:
    def test_what_does_not_answer_comes_before_all_else(self) -> None:
        shown = painted(derive(stalled(worker(waits_s=14.2), worker())))
        first, second, third, *_ = shown.splitlines()
        line = r"TROUBLE  storage does not answer: /data/\x1b.jpg (stream 1, for 14 s)"
        assert first == line
        assert second == "TROUBLE  storage does not answer: /nfs (a new stream, for 1 min 5 s)"
        assert third.startswith('loaderd "default"')
        assert "workers  2/2 up, 1 restarted, 1 waiting for storage" in shown

    def test_the_verdict_is_on_storage(self) -> None:
        verdict = derive(stalled()).verdict
        assert verdict.bound == "HIGHLY"
        assert verdict.text.startswith("Storage does not answer: /nfs (for 1 min 5 s).")

    def test_between_rows_it_is_said_when_it_begins_and_when_it_is_over(self) -> None:
        render = rows.renderer()
        seen = (snapshot(), stalled(), stalled(), snapshot())
        lines = [line for now in seen for line in render(derive(now))]
        said = [line for line in lines if "storage" in line]
        assert said == [
            r"storage does not answer: /data/\x1b.jpg, /nfs",
            "storage answers again",
        ]

    def test_json_has_it(self) -> None:
        table = json.loads(json_lines.render(derive(stalled(worker(waits_s=14.2)))))
        assert table["workers"][0]["waits_s"] == 14.2
        assert table["storage"][1] == {
            "path": "/nfs",
            "waited_s": 65.0,
            "stream": None,
            "client_pid": 4990,
        }


SCREEN = """\
loaderd "default"  pid 4242  up 1 h 2 min  version 0.1.0
socket   /run/user/1000/loaderd/default.sock
host     16 CPUs, 87% used
memory   rings 1.2 GiB of 8.0 GiB; shared memory 14.0 GiB of 16.0 GiB free
cache    75% of the images so far came from a cache; in memory 2.0 GiB of 4.0 GiB

id  client  folder                           queue       batch/s  image/s  waited  epoch:pos  errors
 1    4711  /data/photos/train               ████░░ 6/8     15.2    486.4   34.2%    3:57/94       0
 2    4711  …es/on/for/long/data/photos/val  ░░░░░░ 0/8      0.0      0.0       -     0:0/94       3

workers  1/2 up, 1 restarted
work     read 5%  decode 52%  resize 9%  augment 20%  other 2%  idle 12%

Your program is HIGHLY input-bound: 34.2% of the time since its first batch went into waiting for
images. Make loading faster first: more workers. There are 2, and 16 CPUs may be used: with
--workers 16, training could be up to 1.5 times as fast."""


class TestCached:
    def test_between_two_snapshots_it_is_the_share_of_that_time(self) -> None:
        before = snapshot(stream(), uptime_s=100.0)
        after = snapshot(stream(), workers=(worker(rows=24100, cached=18100),), uptime_s=101.0)
        assert derive(after, before).work.cached == 100.0
        assert "cache    100% of the images came from a cache; in" in painted(derive(after, before))

    def test_where_nothing_was_rendered_there_is_no_share(self) -> None:
        before = snapshot(stream(cache="disk"), uptime_s=100.0)
        after = snapshot(stream(cache="disk"), uptime_s=101.0)
        seen = derive(after, before)
        assert seen.work.cached is None
        assert json.loads(json_lines.render(seen))["work_percent"]["cached"] is None
        assert "cache    - of the images came from a cache; in memory 2.0 GiB of" in painted(seen)
        assert "\n         on disk in /home/me/.cache/loaderd\n" in painted(seen)


class TestScreen:
    def test_it_looks_like_this(self) -> None:
        unread = stream(id=2, directory="/a/very/long/path/that/goes/on/for/long/data/photos/val",
                        ready=0, batches=0, images=0, waited_s=0.0, epoch=0,
                        position=0, errors=3)  # fmt: skip
        assert painted(derive(snapshot(stream(), unread)), 100) == SCREEN

    def test_a_terminal_without_unicode_gets_plain_characters(self) -> None:
        seen = derive(snapshot(stream(directory="/long" * 30)))
        shown = painted(seen, encoding="ascii")
        assert "####.. 6/8" in shown
        assert "~/long/long" in shown

    @pytest.mark.parametrize("width", [20, 60, 80, 100, 200])
    def test_the_width_is_respected(self, width: int) -> None:
        lines = painted(derive(snapshot(stream(directory="/dir" * 99))), width).splitlines()
        assert max(map(len, lines)) <= width

    def test_at_80_columns_every_figure_is_whole(self) -> None:
        shown = painted(derive(snapshot(stream(directory="/dir" * 99))), 80)
        assert " 15.2    486.4   34.2%    3:57/94       0" in shown

    def test_names_reach_the_screen_as_they_are_but_for_controls(self) -> None:
        shown = painted(derive(snapshot(stream(directory="/\x1b[2J[red]\n"), name="\x07")))
        assert r"/\x1b[2J[red]\n" in shown
        assert r'"\x07"' in shown

    def test_the_state_of_the_daemon_is_said(self) -> None:
        assert '"default" (private), ending' in painted(
            derive(snapshot(private=True, draining=True))
        )

    def test_trouble_comes_before_all_else(self) -> None:
        shown = painted(derive(snapshot(trouble="no worker can start:\n\x1b")))
        first, second, *_ = shown.splitlines()
        assert first == r"TROUBLE  no worker can start:\n\x1b"
        assert second.startswith('loaderd "default"')

    def test_trouble_is_red_on_a_terminal(self) -> None:
        (trouble, *_) = terminal._trouble(derive(snapshot(trouble="no worker can start")))
        assert isinstance(trouble, Text)
        assert "red" in str(trouble.style)

    @pytest.mark.parametrize(
        ("bad", "line"),
        [
            (1, "bad      1 bad image: `loaderd errors` lists it"),
            (3, "bad      3 bad images: `loaderd errors` lists them"),
        ],
    )
    def test_bad_images_are_counted_with_a_way_to_see_them(self, bad: int, line: str) -> None:
        lines = painted(derive(snapshot(bad=bad))).splitlines()
        assert lines[lines.index(line) - 1].startswith("work ")

    def test_streams_that_met_bad_images_are_named(self) -> None:
        others = stream(id=2, on_error="skip", bad=12), stream(id=3, bad=1)
        shown = painted(derive(snapshot(stream(), *others, bad=12)))
        assert "12 bad images (12 in stream 2, 1 in stream 3): `loaderd errors`" in shown

    def test_of_a_shared_stream_it_says_who_reads_it_who_lags_and_who_is_detached(self) -> None:
        readers = [
            stream(client_pid=11, share="search"),
            stream(client_pid=12, share="search", lag=7),
            stream(client_pid=13, share="search", lag=3),
            stream(client_pid=14, share="search", detached=True, lag=90),
            stream(client_pid=15, share="other"),
            stream(client_pid=16),
        ]
        shown = painted(derive(snapshot(*readers)), 120)
        assert (
            'shared   "search": 3 trainers, 12 lags by 7, 14 is detached and 90 behind\n'
            'shared   "other": 1 trainer\n'
        ) in shown
        assert "shared   " not in painted(derive(snapshot(stream())))

    def test_where_nothing_is_bad_nothing_is_said_of_it(self) -> None:
        assert "bad" not in painted(derive(snapshot(stream())))


ROWS = """\
    time streams   queue  batch/s  image/s waited  cpu read decode resize augment idle workers errors  bad input-bound
       ?       1     6/8     15.2    486.4  34.2%  87%   5%    52%     9%     20%  12%     1/2      0    7      HIGHLY
       ?       0     0/0      0.0      0.0      -  87%   5%    52%     9%     20%  12%     1/2      0    0           -"""  # noqa: E501


def test_rows_line_up_under_their_header() -> None:
    never = {"time": 1e300}  # no clock shows it, so that the test knows no time zone
    full = msgspec.structs.replace(snapshot(stream(), bad=7), **never)
    empty = msgspec.structs.replace(snapshot(), **never)
    lines = [rows.HEADER, rows.row(derive(full)), rows.row(derive(empty))]
    assert "\n".join(lines) == ROWS


def test_json_is_the_snapshot_with_its_rates_and_the_verdict() -> None:
    now = snapshot(stream())
    table = json.loads(json_lines.render(derive(now)))
    assert table["schema"] == SCHEMA
    assert table["streams"][0]["images_per_s"] == 486.4
    assert table["work_percent"]["decode"] == 52.0
    assert table["verdict"]["bound"] == "HIGHLY"
    assert table["interval_s"] is None
    assert msgspec.convert(table, Snapshot) == now  # our own additions are beside its fields


_TYPES: dict[Any, st.SearchStrategy[Any]] = {
    tuple[int, ...]: st.lists(st.integers(-9, 2**64 - 1), max_size=20).map(tuple),
    int: st.integers(-(2**63), 2**64 - 1) | st.integers(0, 3),
    float: st.floats() | st.sampled_from([0.0, 1.0]),
    str: st.text(st.characters()),
}


def odd(kind: type[Any]) -> st.SearchStrategy[Any]:
    fields = {f.name: _TYPES.get(f.type, st.booleans()) for f in msgspec.structs.fields(kind)}
    return st.builds(kind, **fields)


SNAPSHOTS = st.builds(
    Snapshot,
    schema=st.just(SCHEMA),
    time=st.floats(),
    daemon=odd(DaemonStats),
    host=odd(HostStats),
    streams=st.lists(odd(StreamStats), max_size=2).map(tuple),
    workers=st.lists(odd(WorkerStats), max_size=2).map(tuple),
    workers_wanted=st.integers(0, 99),
    restarts=st.integers(0, 99),
)


@settings(max_examples=200, deadline=None)
@given(SNAPSHOTS, st.none() | SNAPSHOTS, st.integers(1, 120))
def test_no_snapshot_is_too_odd_to_be_shown(
    now: Snapshot, before: Snapshot | None, width: int
) -> None:
    seen = derive(now, before)
    shown = painted(seen, width)
    assert shown.replace("\n", "").isprintable()
    assert rows.row(seen).isprintable()
    assert all(0 <= rates.waited_percent <= 100 for rates in seen.rates)
    json.loads(json_lines.render(seen), parse_constant=pytest.fail)


def test_waits_are_shown_as_what_half_and_nearly_all_batches_took() -> None:
    counts = [0] * (len(WAIT_BOUNDS_S) + 1)
    before = stream(waits=tuple(counts), age_s=90.0)
    counts[3], counts[10] = 90, 10  # up to 2 ms, and up to 256 ms
    later = snapshot(stream(waits=tuple(counts)), uptime_s=101.0)
    rates = derive(later, snapshot(before, uptime_s=91.0)).rates[0]
    assert rates.wait_p50_s == pytest.approx(0.001 + 0.001 * 50 / 90)
    assert rates.wait_p95_s == pytest.approx(0.128 + 0.128 * 0.5)
    assert rates.wait_p99_s == pytest.approx(0.128 + 0.128 * 0.9)
    assert derive(snapshot(before)).rates[0].wait_p50_s is None


class TestShards:
    def test_a_line_says_which_trainer_reads_which_stream_and_where_that_was_found(self) -> None:
        trainer = stream(id=3, shard="1/8", shard_found="RANK")
        seen = derive(snapshot(stream(), trainer, stream(id=4, shard="0/1", shard_found="default")))
        assert "\nshards   1/8 by RANK in stream 3, 0/1 by default in stream 4\n" in painted(seen)
        table = json.loads(json_lines.render(seen))["streams"]
        assert [(one["shard"], one["shard_found"]) for one in table] == [
            ("", ""),
            ("1/8", "RANK"),
            ("0/1", "default"),
        ]

    def test_without_shards_there_is_no_line(self) -> None:
        assert "shards" not in painted(derive(snapshot(stream())))


def remote(**fields: Any) -> RemoteStats:
    usual: dict[str, Any] = {
        "host": "node7",
        "workers": 4,
        "up_s": 400.0,
        "chunks": 1000,
        "rows": 10_000,
        "read_s": 10.0,
        "decode_s": 150.0,
        "resize_s": 20.0,
        "augment_s": 10.0,
        "busy_s": 200.0,
        "held_s": 250.0,
        "crossed": 2**30,
    }
    return RemoteStats(**(usual | fields))


class TestOtherMachines:
    @staticmethod
    def with_remote(*hosts: RemoteStats, **fields: Any) -> Snapshot:
        return msgspec.structs.replace(snapshot(stream(), **fields), remote=hosts, remote_wanted=8)

    def test_each_has_a_line_with_its_rates(self) -> None:
        before = self.with_remote(remote())
        after = remote(rows=10_400, crossed=2**30 + 2**21, held_s=260.0, busy_s=209.0)
        seen = derive(self.with_remote(after, uptime_s=3727.0), before)
        (rates,) = seen.remote_rates
        assert (rates.images_per_s, rates.crossed_per_s) == (200.0, 2**20)
        assert rates.link_percent == pytest.approx(10.0)
        assert "remote   node7: 4 workers, 200.0 image/s, 1.0 MiB/s, link 10%" in painted(seen)

    def test_their_work_counts_with_that_of_this_machine(self) -> None:
        with_it, without = derive(self.with_remote(remote())), derive(snapshot(stream()))
        assert with_it.work.decode < without.work.decode < 100

    def test_what_a_machine_does_not_serve_and_why_none_is_there_is_shown(self) -> None:
        shown = painted(derive(self.with_remote(remote(declined="node7 does not reach /data"))))
        assert "\n         node7 does not reach /data\n" in shown
        assert "none of up to 8 workers has joined yet" in painted(derive(self.with_remote()))
        gone = msgspec.structs.replace(self.with_remote(), remote_trouble="the gateway died")
        assert "remote   the gateway died" in painted(derive(gone))

    def test_a_link_that_takes_long_is_the_limit(self) -> None:
        slow = self.with_remote(remote(held_s=600.0))
        assert "The network is the limit" in derive(slow).verdict.text
        assert "67% of their time on the link" in derive(slow).verdict.text
        assert "network" not in derive(self.with_remote(remote())).verdict.text

    def test_the_json_has_them(self) -> None:
        shown = json.loads(json_lines.render(derive(self.with_remote(remote()))))
        assert shown["remote"][0]["link_percent"] == pytest.approx(20.0)
        assert shown["remote"][0]["host"] == "node7"
