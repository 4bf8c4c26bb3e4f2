"""The verbs of ``loaderd``, and the parser over them all.

A verb is a module with ``DOES`` and ``EXAMPLES`` for its help, ``add_options`` and ``run``. To add
one, name the module here, and describe it in docs/reference/loaderd.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from loaderd import __version__
from loaderd.cli import (
    cache,
    completion,
    doctor,
    errors,
    index,
    options,
    preview,
    scan,
    serve,
    start,
    stat,
    status,
    stop,
    web,
)
from loaderd.cli.exit_codes import guarded

_VERBS = (
    serve,
    start,
    stop,
    status,
    stat,
    web,
    errors,
    scan,
    preview,
    index,
    cache,
    doctor,
    completion,
)
_DOES = "loads images for Keras in worker processes, over shared memory"
_EXAMPLES = """\
  loaderd start                        a daemon in the background, for all your trainers
  loaderd start --workers 8 --memory 4G
  loaderd serve                        the same in the foreground, for systemd and containers
  loaderd stat --watch                 watch it work, and see whether training waits for it
  loaderd web                          the same on a page in the browser
  loaderd stop
  loaderd scan data/train              finds the images that cannot be read, before training
  loaderd preview data/train           a picture of samples, augmented or not
  loaderd index 'train-{000..031}.tar'  finds the samples of archives, before training
  loaderd errors                       those that a running daemon has met
  loaderd doctor                       what is installed and what the machine offers

`loaderd VERB --help` tells more. Exit codes: 0 done, 1 error or a bad image found,
2 wrong argument, and 3 from `status` where no daemon runs.
"""


def run(argv: Sequence[str] | None) -> int:
    """Run one verb and return its exit code."""
    return guarded("loaderd", lambda: _run(argv))


def _run(argv: Sequence[str] | None) -> int:
    args = parser().parse_args(argv)
    return int(args.run(args))


def parser() -> argparse.ArgumentParser:
    """The parser of all verbs."""
    whole = argparse.ArgumentParser("loaderd", **options.texts_of(_DOES, _EXAMPLES))
    whole.add_argument("--version", action="version", version=f"loaderd {__version__}")
    verbs = whole.add_subparsers(title="verbs", metavar="VERB", required=True)
    for verb in _VERBS:
        name, texts = verb.__name__.rpartition(".")[2], options.texts_of(verb.DOES, verb.EXAMPLES)
        of_verb = verbs.add_parser(name, help=verb.DOES, **texts)
        verb.add_options(of_verb)
        of_verb.set_defaults(run=verb.run, whole=whole)
    return whole
