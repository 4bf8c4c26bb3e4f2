"""What ``loaderd-stat`` shows: what the daemon does, how fast, and whether training waits."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

from rich.live import Live

from loaderd import __version__
from loaderd.cli import console, options, target
from loaderd.cli.exit_codes import DONE, FAILED, guarded
from loaderd.config import Address
from loaderd.errors import NoAnswer, NoDaemon
from loaderd.ipc import dial
from loaderd.ipc.snapshot import Snapshot
from loaderd.monitor import report, rows, screen
from loaderd.monitor.report import Report, derive

Show = Callable[[Report], None]

_EPILOG = """\
examples:
  loaderd-stat                    once; rates are averages since each stream was opened
  loaderd-stat --watch            every second; rates are those of the last second
  loaderd-stat --watch 5 >log     one row every 5 seconds, as vmstat does
  loaderd-stat --json | jq .verdict.text
  loaderd-stat --name gpu0        another daemon than "default"

The first picture of --watch holds averages too. Without --name, --socket or their variables,
and with no daemon called "default", the only daemon that runs is shown, such as a trainer's
private one. Exit codes: 0 done, 1 no daemon answers or it went away, 2 wrong argument.
"""


def run(argv: Sequence[str] | None) -> int:
    """Shows the daemon once or until Ctrl-C, and returns the exit code."""
    console.survive_any_name()
    return guarded("loaderd-stat", lambda: _run(_parser().parse_args(argv)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="loaderd-stat",
        description="Shows what the loaderd daemon does, and whether training waits for it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"loaderd-stat {__version__}")
    options.add_address(parser)
    parser.add_argument(
        "--watch",
        metavar="SEC",
        nargs="?",
        type=options.seconds,
        const=1.0,
        help="again and again, every SEC seconds (1)",
    )
    parser.add_argument(
        "--json", action="store_true", help="one JSON object; with --watch one per line"
    )
    return parser


def _run(args: argparse.Namespace) -> int:
    where = target.find(options.address(args))
    if args.watch is None:
        _show_once(args.json)(derive(dial.observe(where.socket, dial.SOON)))
        return DONE
    # Ctrl-C is how a watch ends, and no failure.
    with contextlib.suppress(KeyboardInterrupt):
        with _shown_again(args.json) as show:
            last = _watch(where, args.watch, show)
        console.tell(
            f'loaderd-stat: loaderd "{last.daemon.name}" (pid {last.daemon.pid}) went away'
        )
        return FAILED
    return DONE


def _watch(where: Address, seconds: float, show: Show) -> Snapshot:
    """Shows one report after the other until the daemon goes; its last snapshot."""
    before = dial.observe(where.socket, dial.SOON)
    show(derive(before))
    for _ in _ticks(seconds):
        try:
            now = dial.observe(where.socket, dial.SOON)
        except NoAnswer:
            raise  # it has not gone away
        except NoDaemon:
            break
        show(derive(now, before))
        before = now
    return before


def _ticks(seconds: float) -> Iterator[None]:
    """Every so many seconds, whatever the work in between takes."""
    due = time.monotonic()
    while True:
        due = max(due + seconds, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))
        yield


def _show_once(json: bool) -> Show:
    out = screen.console()
    return _json_line if json else lambda seen: out.print(screen.render(seen, out))


@contextlib.contextmanager
def _shown_again(json: bool) -> Iterator[Show]:
    out = screen.console()
    if json:
        yield _json_line
    elif out.is_terminal:
        with Live(console=out, auto_refresh=False) as live:
            yield lambda seen: live.update(screen.render(seen, out), refresh=True)
    else:
        yield _rolling()


def _json_line(seen: Report) -> None:
    console.say(report.to_json(seen))


def _rolling() -> Show:
    shown, trouble, silent = 0, "", ""

    def show(seen: Report) -> None:
        nonlocal shown, trouble, silent
        paths = ", ".join(sorted({storage.path for storage in seen.now.storage}))
        if paths != silent:
            silent = paths
            console.say(f"storage does not answer: {paths}" if paths else "storage answers again")
        if seen.now.daemon.trouble != trouble:
            trouble = seen.now.daemon.trouble
            console.say(f"TROUBLE  {trouble}" if trouble else "the trouble is over")
        if shown % rows.HEADER_EVERY == 0:
            console.say(rows.header())
        console.say(rows.row(seen))
        shown += 1

    return show
