"""``loaderd errors``: the images that a running daemon could not read."""

from __future__ import annotations

import argparse
import os

import msgspec

from loaderd import formatting
from loaderd.cli import console, options, target
from loaderd.cli.exit_codes import DONE
from loaderd.ipc import dial
from loaderd.ipc.messages import BadSample
from loaderd.ipc.text import readable

_EXAMPLES = """\
  loaderd errors                  one line for each: its path, why, and how often it was met
  loaderd errors --json | jq -r '.bad[].path'
  loaderd errors --name gpu0      of another daemon than "default"

A daemon knows what its streams have met since its start: `loaderd scan` looks at all files of
a folder. Quarantined images killed their workers, and are no longer tried.
"""


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    does = "list the images that the daemon could not read"
    parser = options.parser_of(verbs, "errors", does, _EXAMPLES)
    options.add_address(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints what could not be read; that there is something is no failure of ours."""
    where = target.find(options.address(args))
    total = dial.observe(where.socket, dial.SOON).daemon.bad
    bad = dial.list_bad(where.socket)
    total = max(total, len(bad))  # another may have come in between
    if args.json:
        rows = [row(sample) for sample in bad]
        console.say(formatting.as_json({"total": total, "bad": rows}))
        return DONE
    for sample in bad:
        console.say(f"{line(sample)} ({_history(sample)})")
    if total > len(bad):
        console.say(f"and {total - len(bad)} more, of which the daemon keeps no names")
    if not total:
        console.say("no bad images")
    return DONE


def line(sample: BadSample) -> str:
    """What people read first: where it lies, and why it cannot be read."""
    return f"{readable(sample.path)}: {sample.reason}"


def row(sample: BadSample) -> dict[str, object]:
    """The same for programs; ``os.fsencode`` of the path gives the bytes of any name."""
    known = msgspec.structs.asdict(sample)
    del known["lacking"]  # a scan alone passes over such, and lists them apart
    return {**known, "path": os.fsdecode(sample.path)}


def _history(sample: BadSample) -> str:
    met = formatting.count(sample.times, "time")
    return f"{met}, quarantined" if sample.quarantined else met
