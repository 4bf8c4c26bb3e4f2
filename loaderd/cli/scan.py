"""``loaderd scan``: which images of a folder cannot be read, before a training meets them.

::

    scan ── spec ──► a daemon for this scan alone ──► workers: read, decode
      │ ◄─ Ready ──┘           │
      └── at the end: ListBad ─┘

The daemon is the one that trains, so what it finds is what a training would: also files that
crash a decoder or hang in it, which cost a worker and are quarantined.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterable, Iterator

import msgspec
from rich.console import Console
from rich.progress import track

from loaderd import config, formatting
from loaderd.cli import console, decoders, errors, options, scan_epoch
from loaderd.cli.exit_codes import DONE, FAILED
from loaderd.cli.scan_epoch import Epoch, Outcome
from loaderd.errors import DaemonError, InvalidArgument
from loaderd.ipc import dial
from loaderd.ipc.messages import BadSample
from loaderd.launch.private import PrivateDaemon
from loaderd.spec.load import Load
from loaderd.spec.output import Batch, Order, Output
from loaderd.spec.source import Directory
from loaderd.spec.spec import Spec

EXTENSIONS = ("png", "jpg", "jpeg", "bmp", "ppm", "tif", "tiff", ".gif")
"""What either rule of Keras takes for an image; that of ``ImageDataGenerator`` wants no dot."""

_SAMPLE = ("sample_timeout", "io_timeout", "max_pixels", "worker_memory")
"""Settings of what one image may take."""

_LINES = 20
_FLAGS = ("--max-bad=100%", "--grace=0.1")
"""However many are bad, it goes on; and what is left undone at the end is not wanted."""

_EXAMPLES = """\
  loaderd scan data/train                    exit code 1 if an image cannot be read
  loaderd scan data/train --json >bad.json
  loaderd scan data/train | cut -d: -f1      the names alone
  loaderd scan data/train --max-pixels 50M   larger pictures count as bad

All images in the folder and its subfolders are read and decoded as for a training, on all CPUs,
by a daemon of its own. Nothing is changed, and nothing is left behind.
"""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it.

    Attributes:
        directory: the folder.
        images: how many there are.
        skipped: how many of them cannot be read.
        bad: those, by their paths, as far as the daemon kept their names.
        lacking: those that may be well, and that this installation cannot decode.
        troubles: why others could not be tried.
        untried: how many those are, at most.
    """

    directory: str
    images: int
    skipped: int
    bad: list[BadSample]
    lacking: list[BadSample]
    troubles: list[str]
    untried: int


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    does = "find the images that cannot be read"
    parser = options.parser_of(verbs, "scan", does, _EXAMPLES)
    parser.add_argument("directory", metavar="DIR", help="the folder, with all its subfolders")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options.add(parser, "config", "workers", *_SAMPLE)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the bad images; 1 if there are any, or some could not be tried."""
    decoders.require()
    config.load(options.flags(args), os.environ)  # before anything is started
    directory = os.path.abspath(args.directory)
    if not os.path.isdir(args.directory):  # as it was said: "" is no folder
        raise InvalidArgument(
            f"{args.directory!r} is no folder: name the one that holds the images"
        )
    with _daemon(options.forwarded(args)) as daemon:
        found = _scan(daemon, directory)
    if args.json:
        console.say(formatting.as_json(_row(found)))
    else:
        _tell(found)
    return FAILED if found.skipped or found.lacking or found.untried else DONE


@contextlib.contextmanager
def _daemon(words: list[str]) -> Iterator[PrivateDaemon]:
    """A daemon that ends with the block, and in any case with this process."""
    daemon = PrivateDaemon([*words, *_FLAGS], f"scan-{os.getpid()}")
    try:
        yield daemon
    except DaemonError:
        daemon.stop()
        for line in daemon.last_lines(_LINES):
            console.tell(line)
        raise
    finally:
        daemon.stop()


def _scan(daemon: PrivateDaemon, directory: str) -> Found:
    with scan_epoch.opened(daemon.connect(), _spec(directory)) as batches:
        outcomes = list(_tracked(batches))
    spoilt = [outcome for outcome in outcomes if outcome.trouble]
    told = sorted(_bad(daemon), key=lambda sample: sample.path)
    lacking = [sample for sample in told if sample.lacking]
    return Found(
        directory=directory,
        images=batches.samples,
        skipped=sum(outcome.skipped for outcome in outcomes) - len(lacking),
        bad=[sample for sample in told if not sample.lacking],
        lacking=lacking,
        troubles=[outcome.trouble for outcome in spoilt],
        untried=sum(outcome.samples for outcome in spoilt),
    )


def _bad(daemon: PrivateDaemon) -> list[BadSample]:
    line = daemon.connect()
    try:
        return dial.list_bad_on(line, daemon.path)
    finally:
        line.close()


def _spec(directory: str) -> Spec:
    """As little as possible besides reading and decoding."""
    return Spec(
        source=Directory(directory=directory, extensions=EXTENSIONS, flat=True),
        load=Load(target_size=(1, 1)),
        transforms=(),
        output=Output(dtype="uint8"),
        batch=Batch(batch_size=32, label_mode="none"),
        order=Order(shuffle=False, seed=0),
        on_error="skip",
        survey=True,
    )


def _tracked(batches: Epoch) -> Iterable[Outcome]:
    out = Console(stderr=True)
    return track(
        batches,
        "scanning",
        total=batches.batches,
        console=out,
        transient=True,
        disable=not out.is_terminal,
    )


def _row(found: Found) -> dict[str, object]:
    return {
        "directory": found.directory,
        "images": found.images,
        "bad_images": found.skipped,
        "bad": [_bad_row(sample) for sample in found.bad],
        "undecodable": [_bad_row(sample) for sample in found.lacking],
        "untried_images": found.untried,
        "troubles": found.troubles,
    }


def _bad_row(sample: BadSample) -> dict[str, object]:
    known = errors.row(sample)
    return {key: known[key] for key in ("path", "reason", "quarantined")}


def _tell(found: Found) -> None:
    for sample in found.bad:
        console.say(errors.line(sample))
    if found.skipped > len(found.bad):
        console.say(f"and {found.skipped - len(found.bad)} more")
    for sample in found.lacking:
        console.say(errors.line(sample))
    for trouble in found.troubles:
        console.tell(f"loaderd: {trouble}")
    untried = f", {found.untried} not tried" if found.untried else ""
    missing = len(found.lacking)
    lacking = f", {missing} that this installation cannot decode" if missing else ""
    console.say(f"{formatting.count(found.images, 'image')}, {found.skipped} bad{lacking}{untried}")
