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
import subprocess
from collections.abc import Iterable, Iterator

import msgspec
from rich.console import Console
from rich.progress import track

from loaderd import config
from loaderd.cli import background, epoch, errors, extra, options, text
from loaderd.cli.epoch import Epoch, Outcome
from loaderd.cli.exits import DONE, FAILED
from loaderd.errors import DaemonError, InvalidArgument
from loaderd.wire import address, dial
from loaderd.wire.messages import BadSample
from loaderd.wire.spec import Batch, Dataset, Order, Pipeline, Spec

EXTENSIONS = ("png", "jpg", "jpeg", "bmp", "ppm", "tif", "tiff", ".gif")
"""What either rule of Keras takes for an image; that of ``ImageDataGenerator`` wants no dot."""

PATIENCE = 5.0
"""Seconds for which the daemon's end is waited for."""

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
    parser.add_argument(
        "--config", metavar="FILE", help="a TOML file with these settings (LOADERD_CONFIG)"
    )
    options.add_workers(parser)
    options.add_samples(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the bad images; 1 if there are any, or some could not be tried."""
    extra.require()
    config.load(options.flags(args), os.environ)  # before anything is started
    directory = os.path.abspath(args.directory)
    if not os.path.isdir(args.directory):  # as it was said: "" is no folder
        raise InvalidArgument(
            f"{args.directory!r} is no folder: name the one that holds the images"
        )
    with _daemon(background.given(args)) as socket:
        found = _scan(socket, directory)
    if args.json:
        text.say(text.as_json(_row(found)))
    else:
        _tell(found)
    return FAILED if found.skipped or found.lacking or found.untried else DONE


@contextlib.contextmanager
def _daemon(words: list[str]) -> Iterator[str]:
    """The socket of a daemon that ends with the block, and in any case with this process."""
    socket = address.socket_path(f"scan-{os.getpid()}")
    address.make_folder(socket)
    log = os.memfd_create("loaderd-log")
    mine = [f"--socket={socket}", f"--owner={os.getpid()}"]
    child, ready = background.spawn([*words, *mine, *_FLAGS], log)
    try:
        if not background.came_up(child, ready):
            raise DaemonError(f"the scan's daemon {background.end(child)}")
        yield socket
    except DaemonError:
        _tell_log(child, log)
        raise
    finally:
        _end(child, socket)
        os.close(log)


def _tell_log(child: subprocess.Popen[bytes], log: int) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(1)  # its last words
    for line in background.last_lines(log):
        text.tell(line)


def _end(child: subprocess.Popen[bytes], socket: str) -> None:
    child.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(PATIENCE)
    child.kill()
    child.wait()
    for path in (socket, socket.removesuffix(".sock") + ".lock"):
        with contextlib.suppress(OSError):  # usually it was in time to do it itself
            os.unlink(path)


def _scan(socket: str, directory: str) -> Found:
    with epoch.opened(socket, _spec(directory)) as batches:
        outcomes = list(_tracked(batches))
    spoilt = [outcome for outcome in outcomes if outcome.trouble]
    told = sorted(dial.list_bad(socket), key=lambda sample: sample.path)
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


def _spec(directory: str) -> Spec:
    """As little as possible besides reading and decoding."""
    return Spec(
        dataset=Dataset(directory=directory, extensions=EXTENSIONS, flat=True),
        pipeline=Pipeline(target_size=(1, 1), dtype="uint8"),
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
        text.say(errors.line(sample))
    if found.skipped > len(found.bad):
        text.say(f"and {found.skipped - len(found.bad)} more")
    for sample in found.lacking:
        text.say(errors.line(sample))
    for trouble in found.troubles:
        text.tell(f"loaderd: {trouble}")
    untried = f", {found.untried} not tried" if found.untried else ""
    missing = len(found.lacking)
    lacking = f", {missing} that this installation cannot decode" if missing else ""
    text.say(f"{text.count(found.images, 'image')}, {found.skipped} bad{lacking}{untried}")
