"""``loaderd stat``: what the daemon does, how fast, and whether training waits for it.

``loaderd-stat`` is another name for it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console
from rich.live import Live

from loaderd import __version__
from loaderd.cli import console, options, target
from loaderd.cli.exit_codes import DONE, guarded
from loaderd.config import Address
from loaderd.errors import DaemonGone, LoaderdError, NoAnswer, NoDaemon
from loaderd.ipc import dial
from loaderd.monitor import check, json_lines, rows, terminal
from loaderd.monitor.report import Report, derive
from loaderd.monitor.sparkline import Trend
from loaderd.monitor.verdict import HIGHLY_PERCENT, MODERATELY_PERCENT
from loaderd.monitor.window import WatchWindow

_UNFOLDED = 1000

Show = Callable[[Report], None]

DOES = "show what the daemon does, and whether training waits for it"
EXAMPLES = """\
  loaderd stat                    once; rates are averages since each stream was opened
  loaderd stat --watch            every second; rates are those of the last second
  loaderd stat --watch 5 >log     one row every 5 seconds, as vmstat does
  loaderd stat --json | jq .verdict.text
  loaderd stat --name gpu0        another daemon than "default"
  loaderd stat --check --warn 5 --crit 20     for Nagios and its like

The first screen of --watch holds averages too. Without --name, --socket or their variables,
and with no daemon called "default", the only daemon that runs is shown, such as a trainer's
private one. Exit codes: 0 done, 1 no daemon answers or it went away, 2 wrong argument.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``loaderd-stat`` and return its exit code."""
    texts = options.texts_of(DOES, EXAMPLES.replace("loaderd stat", "loaderd-stat"))
    parser = argparse.ArgumentParser("loaderd-stat", **texts)
    add_options(parser)
    return guarded("loaderd-stat", lambda: run(parser.parse_args(argv)))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
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
    parser.add_argument(
        "--check",
        metavar="SEC",
        nargs="?",
        type=options.seconds,
        const=5.0,
        help="watch for SEC seconds (5), and answer as a plugin of Nagios, Icinga or Checkmk: "
        "0 OK, 1 warning, 2 critical, 3 unknown",
    )
    parser.add_argument("--warn", type=_percent, default=MODERATELY_PERCENT, metavar="PERCENT",
                        help="of its time waited, from which --check warns (5)")  # fmt: skip
    parser.add_argument("--crit", type=_percent, default=HIGHLY_PERCENT, metavar="PERCENT",
                        help="the same, from which it is critical (20)")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Show the daemon once, or until Ctrl-C.

    Raises:
        NoDaemon: none answers.
        DaemonGone: it went away during ``--watch``.
    """
    if args.check is not None:
        return _check(args)
    where = target.find(options.address(args))
    if args.watch is None:
        with _renderer(args) as show:
            show(derive(dial.observe(where.socket, dial.SOON)))
        return DONE
    # Ctrl-C is how a watch ends, and no failure.
    with contextlib.suppress(KeyboardInterrupt), _renderer(args) as show:
        _watch(where, args.watch, show)
    return DONE


def _percent(value: str) -> float:
    """Parse a percentage, with or without its sign."""
    try:
        number = float(value.removesuffix("%"))
    except ValueError:
        number = -1.0
    if not 0 <= number <= 100:
        raise argparse.ArgumentTypeError(f"{value!r} is no percentage: 0 to 100")
    return number


def _check(args: argparse.Namespace) -> int:
    """Answer as a monitoring plugin."""
    if args.warn > args.crit:
        console.out(check.answer(check.UNKNOWN, "--warn should not be above --crit"))
        return check.UNKNOWN
    try:
        where = target.find(options.address(args))
        before = dial.observe(where.socket, dial.SOON)
        time.sleep(args.check)
        report = derive(dial.observe(where.socket, dial.SOON), before)
    except LoaderdError as error:
        gone = isinstance(error, NoDaemon)
        code = check.CRITICAL if gone else check.UNKNOWN
        console.out(check.answer(code, str(error)))
        return code
    code, line = check.checked(report, check.Limits(args.warn, args.crit))
    console.out(line)
    return code


@contextlib.contextmanager
def _renderer(args: argparse.Namespace) -> Iterator[Show]:
    """Choose how reports are shown, by the options and by where standard output goes."""
    out = Console(markup=False, highlight=False, emoji=False)  # names may look like markup
    if args.json:
        yield lambda report: console.out(json_lines.render(report))
    elif args.watch is None:
        yield lambda report: _print(report, out)
    elif out.is_terminal:
        trend = Trend()
        with Live(console=out, auto_refresh=False) as live:
            yield lambda report: _update(live, report, out, trend)
    else:
        render = rows.renderer()
        yield lambda report: console.out(*render(report))


def _update(live: Live, report: Report, out: Console, trend: Trend) -> None:
    trend.add(report)
    live.update(terminal.render(report, out, trend), refresh=True)


def _print(report: Report, out: Console) -> None:
    """Prints a report; where no terminal has a width, without folding lines or filling them."""
    if not out.is_terminal and "COLUMNS" not in os.environ:
        out.width = _UNFOLDED
    with out.capture() as screen:
        out.print(terminal.render(report, out))
    for line in screen.get().splitlines():
        out.out(line.rstrip(), highlight=False)


def _watch(where: Address, seconds: float, show: Show) -> None:
    """Show one report after the other until the daemon goes away."""
    before = dial.observe(where.socket, dial.SOON)
    window = WatchWindow()
    show(window.add(before))
    due = time.monotonic()
    while True:
        due = max(due + seconds, time.monotonic())  # whatever the work in between takes
        time.sleep(max(0.0, due - time.monotonic()))
        try:
            now = dial.observe(where.socket, dial.SOON)
        except NoAnswer:
            raise  # it runs, but does not answer
        except NoDaemon as error:
            daemon = before.daemon
            raise DaemonGone(f'loaderd "{daemon.name}" (pid {daemon.pid}) went away') from error
        show(window.add(now))
        before = now
