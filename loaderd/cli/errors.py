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

DOES = "list the images that the daemon could not read"
EXAMPLES = """\
  loaderd errors                  one line for each: its path, why, and how often it was met
  loaderd errors --json | jq -r '.bad[].path'
  loaderd errors --name gpu0      of another daemon than "default"

A daemon lists what its streams have met since its start; `loaderd scan` tries all files of a
folder. Quarantined images crashed their workers, and are no longer tried.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    options.add_address(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print the images that could not be read; return 0 even if there are some."""
    where = target.find(options.address(args))
    total = dial.observe(where.socket, dial.SOON).daemon.bad
    bad = dial.list_bad(where.socket)
    total = max(total, len(bad))  # another may have been found in between
    if args.json:
        rows = [row(sample) for sample in bad]
        console.out(formatting.as_json({"total": total, "bad": rows}))
        return DONE
    for sample in bad:
        times = formatting.count(sample.times, "time")
        quarantined = ", quarantined" if sample.quarantined else ""
        console.out(f"{line(sample)} ({times}{quarantined})")
    if total > len(bad):
        console.out(f"and {total - len(bad)} more, whose names the daemon has not kept")
    if not total:
        console.out("no bad images")
    return DONE


def line(sample: BadSample) -> str:
    """The path of an image, and why it cannot be read."""
    return f"{readable(sample.path)}: {sample.reason}"


def row(sample: BadSample) -> dict[str, object]:
    """The fields of the JSON; ``os.fsencode`` of the path gives the bytes of any name."""
    known = msgspec.structs.asdict(sample)
    del known["lacking"]  # only a scan meets such, and it lists them separately
    return {**known, "path": os.fsdecode(sample.path)}
