"""``loaderd scan``: which images of a folder cannot be read.

::

    scan ── spec ──► a daemon for this scan alone ──► workers: read, decode
      │ ◄─ Ready ──┘           │
      └── at the end: ListBad ─┘

The images are read by the same workers as in a training, so the findings are the same. Files that
crash a decoder, or hang in it, cost a worker and are quarantined.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator

import msgspec

from loaderd import config, formatting
from loaderd.cli import console, decoders, errors, options, scan_epoch
from loaderd.cli.exit_codes import DONE, FAILED
from loaderd.errors import DaemonError, InvalidArgument
from loaderd.ipc import dial
from loaderd.ipc.messages import BadSample
from loaderd.launch.private import PrivateDaemon
from loaderd.spec.load import Load
from loaderd.spec.output import Batching, Order, Output
from loaderd.spec.source import Directory
from loaderd.spec.spec import Spec

EXTENSIONS = ("png", "jpg", "jpeg", "bmp", "ppm", "tif", "tiff", ".gif")
"""Extensions of both loaders of Keras; ``ImageDataGenerator`` compares them without a dot."""

_SAMPLE = ("sample_timeout", "io_timeout", "max_pixels", "worker_memory")
"""Settings of what one image may take."""

_LINES = 20
_FLAGS = ("--max-bad=100%", "--grace=0.1")
"""Go on whatever the share of bad images, and drop unfinished batches at the end."""

DOES = "find the images that cannot be read"
EXAMPLES = """\
  loaderd scan data/train                    exit code 1 if an image cannot be read
  loaderd scan data/train --json >bad.json
  loaderd scan data/train | cut -d: -f1      the names alone
  loaderd scan data/train --max-pixels 50M   larger images count as bad

All images in the folder and its subfolders are read and decoded as in a training, on all CPUs,
by a daemon that ends with the scan. Nothing is changed, and nothing is left behind.
"""


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What a scan has found, and the fields of the JSON.

    Attributes:
        directory: the folder.
        images: how many it holds.
        bad_images: how many of them cannot be read.
        bad: those, sorted by path, as far as the daemon kept their names.
        undecodable: those that may be valid, but need a codec that is not installed.
        untried_images: how many could not be tried, at most.
        troubles: why those could not.
    """

    directory: str
    images: int
    bad_images: int
    bad: list[BadSample]
    undecodable: list[BadSample]
    untried_images: int
    troubles: list[str]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    parser.add_argument("directory", metavar="DIR", help="the folder, with all its subfolders")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options.add(parser, "config", "workers", *_SAMPLE)


def run(args: argparse.Namespace) -> int:
    """Print the bad images; return 1 if there are any, or some could not be tried."""
    decoders.require()
    config.load(options.flags(args), os.environ)  # fails before anything is started
    directory = os.path.abspath(args.directory)
    if not os.path.isdir(args.directory):  # not abspath, which makes "" a folder
        raise InvalidArgument(
            f"{args.directory!r} is no folder: name the one that holds the images"
        )
    with _daemon(options.forwarded(args)) as daemon:
        found = _scan(daemon, directory)
    if args.json:
        console.out(formatting.as_json(_row(found)))
    else:
        _print(found)
    return FAILED if found.bad_images or found.undecodable or found.untried_images else DONE


@contextlib.contextmanager
def _daemon(words: list[str]) -> Iterator[PrivateDaemon]:
    """A daemon that ends with the block, or with this process if that is killed."""
    daemon = PrivateDaemon([*words, *_FLAGS], f"scan-{os.getpid()}")
    try:
        yield daemon
    except DaemonError:
        daemon.stop()
        for line in daemon.last_lines(_LINES):
            console.err(line)
        raise
    finally:
        daemon.stop()


def _scan(daemon: PrivateDaemon, directory: str) -> Findings:
    with scan_epoch.opened(daemon.connect(), _spec(directory)) as batches:
        outcomes = list(console.tracked(batches, "scanning"))
    failed = [outcome for outcome in outcomes if outcome.trouble]
    with contextlib.closing(daemon.connect()) as channel:
        listed = sorted(dial.list_bad_on(channel, daemon.path), key=lambda sample: sample.path)
    lacking = [sample for sample in listed if sample.lacking]
    return Findings(
        directory=directory,
        images=batches.samples,
        bad_images=sum(outcome.skipped for outcome in outcomes) - len(lacking),
        bad=[sample for sample in listed if not sample.lacking],
        undecodable=lacking,
        untried_images=sum(outcome.samples for outcome in failed),
        troubles=[outcome.trouble for outcome in failed],
    )


def _spec(directory: str) -> Spec:
    """A stream that does little besides reading and decoding."""
    return Spec(
        source=Directory(directory=directory, extensions=EXTENSIONS, flat=True),
        load=Load(target_size=(1, 1)),
        transforms=(),
        output=Output(dtype="uint8"),
        batch=Batching(batch_size=32, label_mode="none"),
        order=Order(shuffle=False, seed=0),
        on_error="skip",
        survey=True,
    )


def _row(found: Findings) -> dict[str, object]:
    samples = {"bad": found.bad, "undecodable": found.undecodable}
    rows = {key: [_bad_row(sample) for sample in listed] for key, listed in samples.items()}
    return msgspec.structs.asdict(found) | rows


def _bad_row(sample: BadSample) -> dict[str, object]:
    known = errors.row(sample)
    return {key: known[key] for key in ("path", "reason", "quarantined")}


def _print(found: Findings) -> None:
    for sample in found.bad:
        console.out(errors.line(sample))
    if found.bad_images > len(found.bad):
        console.out(f"and {found.bad_images - len(found.bad)} more")
    for sample in found.undecodable:
        console.out(errors.line(sample))
    for trouble in found.troubles:
        console.err(f"loaderd: {trouble}")
    untried = f", {found.untried_images} not tried" if found.untried_images else ""
    missing = len(found.undecodable)
    lacking = f", {missing} that this installation cannot decode" if missing else ""
    images = formatting.count(found.images, "image")
    console.out(f"{images}, {found.bad_images} bad{lacking}{untried}")
