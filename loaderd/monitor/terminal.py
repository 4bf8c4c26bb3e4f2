"""A report as a screen of text: on a terminal, and wherever one report is shown."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from loaderd import formatting
from loaderd.ipc.snapshot import StorageStats, StreamStats
from loaderd.ipc.text import printable
from loaderd.monitor.report import Report, StreamRates
from loaderd.monitor.sparkline import Trend

_GAP = 2
_MIN_FOLDER_WIDTH = 8
_COLUMNS = ("id", "client", "folder", "queue", "batch/s", "image/s", "waited", "epoch:pos",
            "errors")  # fmt: skip
_TEXTS = ("folder", "queue")
_FOLDER = _COLUMNS.index("folder")
_TROUBLED = "bold red"
_STYLES = {"HIGHLY": "bold red", "MODERATELY": "bold yellow", "NOT": "bold green"}


def render(report: Report, out: Console, trend: Trend | None = None) -> RenderableType:
    """The whole screen for ``out``, as wide as that is, with a trend if there is one."""
    parts: list[RenderableType] = [*_trouble(report), _daemon(report), _host(report)]
    if report.now.streams:
        more = (*_shared(report), *_shards(report))
        parts += [Text(), _streams(report, out), *more]
        if trend is not None:
            parts += [Text(), Text("\n".join(trend.lines(out.options.ascii_only)))]
    workers = (_workers(report), *_remote(report))
    return Group(*parts, Text(), *workers, *_bad(report), Text(), _verdict(report))


def _trouble(report: Report) -> list[RenderableType]:
    """The first lines: why nothing goes on, though the figures below may look good."""
    trouble = report.now.daemon.trouble
    lines = [f"TROUBLE  {printable(trouble)}"] if trouble else []
    lines += map(_silent, report.now.storage)
    return [Text(line, style=_TROUBLED) for line in lines]


def _silent(storage: StorageStats) -> str:
    who = "a new stream" if storage.stream is None else f"stream {storage.stream}"
    return (
        f"TROUBLE  storage does not answer: {printable(storage.path)} ({who}, for "
        f"{formatting.duration(storage.waited_s)})"
    )


def _daemon(report: Report) -> Text:
    daemon = report.now.daemon
    kind = " (private)" if daemon.private else ""
    state = ", ending" if daemon.draining else ""
    line = Text(f'loaderd "{printable(daemon.name)}"', style="bold")
    line.append(
        f"{kind}{state}  pid {daemon.pid}  up {formatting.duration(daemon.uptime_s)}  "
        f"version {printable(daemon.version)}\n"
        f"socket   {printable(daemon.socket)}",
        style="not bold",
    )
    return line


def _host(report: Report) -> Text:
    host = report.now.host
    return Text(
        f"host     {formatting.count(host.cpus, 'CPU')}, {host.cpu_percent:.0f}% used\n"
        f"memory   rings {formatting.size(host.ring_bytes)} of {formatting.size(host.ring_limit)}; "
        f"shared memory {formatting.size(host.shm_free)} of {formatting.size(host.shm_total)} free"
        f"{_caches(report)}"
    )


def _caches(report: Report) -> str:
    """A separate line if any stream has a cache, else empty."""
    host, kinds = report.now.host, {stream.cache for stream in report.now.streams}
    if not host.cache_bytes and kinds <= {"none"}:
        return ""
    cached = report.work.cached
    share = "-" if cached is None else f"{cached:.0f}%"
    since = " so far" if report.interval_s is None else ""  # the first epoch included
    disk = (
        f"\n         on disk in {printable(report.now.daemon.cache_dir)}" if "disk" in kinds else ""
    )
    return (
        f"\ncache    {share} of the images{since} came from a cache; in memory "
        f"{formatting.size(host.cache_bytes)} of {formatting.size(host.cache_limit)}{disk}"
    )


def _workers(report: Report) -> Text:
    now, work = report.now, report.work
    waiting = sum(worker.waits_s > 0 for worker in now.workers)
    waits = f", {waiting} waiting for storage" if waiting else ""
    auto = f" (auto, up to {now.workers_most})" if now.workers_most > now.workers_wanted else ""
    up = f"{len(now.workers)}/{now.workers_wanted} up{auto}, {now.restarts} restarted{waits}\n"
    stages = (
        f"work     read {work.read:.0f}%  decode {work.decode:.0f}%  resize {work.resize:.0f}%  "
        f"augment {work.augment:.0f}%  other {work.other:.0f}%  idle {work.idle:.0f}%"
    )
    return Text(f"workers  {up}{stages}")


def _remote(report: Report) -> list[RenderableType]:
    """A line for each other machine whose workers have joined, and one if none can."""
    now = report.now
    lines = [f"remote   {printable(now.remote_trouble)}"] if now.remote_trouble else []
    for remote, rates in zip(now.remote, report.remote_rates, strict=True):
        lines.append(
            f"remote   {printable(remote.host)}: {formatting.count(remote.workers, 'worker')}, "
            f"{formatting.rate(rates.images_per_s)} image/s, "
            f"{formatting.size(int(rates.crossed_per_s))}/s, link {rates.link_percent:.0f}%"
        )
        if remote.declined:
            lines.append(f"         {printable(remote.declined)}")
    if now.remote_wanted and not lines:
        lines.append(f"remote   none of up to {now.remote_wanted} workers has joined yet")
    return [Text(line) for line in lines]


def _bad(report: Report) -> list[RenderableType]:
    """A separate line if there are bad images."""
    bad = report.now.daemon.bad
    if bad <= 0:
        return []
    where = ", ".join(f"{s.bad} in stream {s.id}" for s in report.now.streams if s.bad > 0)
    where = f" ({where})" if where else ""
    lists = "lists it" if bad == 1 else "lists them"
    return [Text(f"bad      {formatting.count(bad, 'bad image')}{where}: `loaderd errors` {lists}")]


def _shards(report: Report) -> list[RenderableType]:
    """A separate line if trainers share epochs."""
    found = [f"{s.shard_text} in stream {s.id}" for s in report.now.streams if s.shard]
    return [Text(f"shards   {printable(', '.join(found))}")] if found else []


def _shared(report: Report) -> list[RenderableType]:
    """A line for each shared stream: who reads it, who lags, and who has left it."""
    streams = report.now.streams
    lines = []
    for name in dict.fromkeys(stream.share for stream in streams if stream.share):
        readers = [stream for stream in streams if stream.share == name]
        together = [one for one in readers if not one.detached]
        words = [formatting.count(len(together), "trainer")]
        words += [f"{one.client_pid} lags by {one.lag}" for one in together if _lags(one)]
        words += [f"{one.client_pid} is detached{_behind(one)}" for one in readers if one.detached]
        lines.append(Text(f'shared   "{printable(name)}": {", ".join(words)}'))
    return [Text(), *lines] if lines else []


def _lags(stream: StreamStats) -> bool:
    return 2 * stream.lag >= stream.slots


def _behind(stream: StreamStats) -> str:
    return f" and {stream.lag} behind" if stream.lag else ""


def _streams(report: Report, out: Console) -> Table:
    ascii_only = out.options.ascii_only
    pairs = zip(report.now.streams, report.rates, strict=True)
    cells = [_cells(stream, rates, ascii_only) for stream, rates in pairs]
    _fit_folders(cells, out.width, "~" if ascii_only else "…")
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="dim")
    for column in _COLUMNS:
        table.add_column(column, justify="left" if column in _TEXTS else "right", no_wrap=True)
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _cells(stream: StreamStats, rates: StreamRates, ascii_only: bool) -> list[str]:
    return [
        f"{stream.id}",
        f"{stream.client_pid}",
        stream.directory,
        f"{_bar(stream, ascii_only)} {stream.ready}/{stream.slots}",
        formatting.rate(rates.batches_per_s),
        formatting.rate(rates.images_per_s),
        f"{rates.waited_percent:.1f}%" if rates.read else "-",
        f"{stream.epoch}:{stream.position}/{stream.batches_per_epoch}",
        f"{stream.errors}",
    ]


def _fit_folders(rows: list[list[str]], width: int, cut: str) -> None:
    """Shorten folders to the width that the other columns leave."""
    columns = zip(_COLUMNS, *rows, strict=True)
    taken = sum(max(map(len, column)) + _GAP for column in columns if column[0] != "folder")
    for row in rows:
        row[_FOLDER] = formatting.tail(row[_FOLDER], max(_MIN_FOLDER_WIDTH, width - taken), cut)


def _bar(stream: StreamStats, ascii_only: bool, width: int = 6) -> str:
    full, empty = ("#", ".") if ascii_only else ("█", "░")
    ready = min(max(stream.ready, 0), stream.slots)
    filled = ready * width // stream.slots if stream.slots > 0 else 0
    return full * filled + empty * (width - filled)


def _verdict(report: Report) -> Text:
    verdict = report.verdict
    line = Text(verdict.text)
    if style := _STYLES.get(verdict.bound):
        line.highlight_words([f"{verdict.bound} input-bound"], style)
    return line
