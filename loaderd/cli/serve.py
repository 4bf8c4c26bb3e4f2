"""``loaderd serve``: the daemon in the foreground."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

from loaderd import config, formatting
from loaderd.cli import decoders, options
from loaderd.cli.exit_codes import DONE
from loaderd.config import Settings
from loaderd.ipc import segment
from loaderd.ipc.text import printable
from loaderd.launch import cpus
from loaderd.launch.launch import READY

LITTLE_SHM = 64 * 2**20
"""What Docker gives a container that asks for nothing: room for one small ring."""

_PLACES = ("name", "socket", "cache_dir")
"""Settings of which a daemon keeps those that it was started with."""

_EXAMPLES = """\
  loaderd serve                              logs to stderr; Ctrl-C or SIGTERM drains and ends
  loaderd serve --name gpu0 --workers 8      trainers find it with LOADERD_NAME=gpu0
  loaderd serve --memory 50%                 of the RAM, for all rings together
  loaderd serve --config /etc/loaderd.toml   holding lines like: workers = 8
"""


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    parser = options.parser_of(verbs, "serve", "run the daemon in the foreground", _EXAMPLES)
    options.add_all(parser)
    options.add(parser, "owner", "control_fd", "ready_fd")
    parser.add_argument("--cpus", help=argparse.SUPPRESS)  # that the program which starts it uses
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serves until it is told to stop."""
    decoders.require()
    if args.cpus is not None:
        cpus.use(args.cpus)  # first, as the default number of workers depends on it
    settings = config.load(options.flags(args), os.environ)
    flags = _lasting(options.flags(args), settings)
    logging.basicConfig(level=logging.INFO, handlers=[log_handler()])
    if short := shortage():
        logging.getLogger("loaderd").warning(short)
    os.chdir("/")  # holds no folder, and takes no modules from the one that we are in
    # Late, so that every other verb and every wrong flag is answered at once.
    from loaderd.supervisor import supervisor

    supervisor.serve(settings, _teller(settings), reload=_reloader(flags, settings))
    return DONE


def shortage() -> str:
    """A warning if shared memory is short; else empty."""
    free = segment.free()
    if free > LITTLE_SHM:
        return ""
    return (
        f"only {formatting.size(free)} of shared memory are free in {segment.SHM}: rings will be "
        "small or refused; make it larger (docker run --shm-size)"
    )


class _Formatter(logging.Formatter):
    """Lines of the log, of which only a traceback has several.

    What is logged holds names of files, and they may hold anything: escaped, they neither
    reach the terminal's controls nor look like a line of their own.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        return "\n".join(map(printable, super().formatException(ei).split("\n")))


def log_handler() -> logging.Handler:
    """What writes the log to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(message)s"))
    return handler


def _lasting(flags: Mapping[str, str | None], settings: Settings) -> Mapping[str, str | None]:
    """The same options for later: in another folder, and when the descriptors are used up."""
    config = os.path.abspath(settings.config) if settings.config else None
    return {**flags, "config": config, "control_fd": None, "ready_fd": None}


def _reloader(flags: Mapping[str, str | None], settings: Settings) -> Callable[[], Settings]:
    """What reads the settings anew, in the folder that we are in by now.

    A path in the file may mean another here: only what has changed since is news.
    """
    before = config.load(flags, os.environ)

    def reload() -> Settings:
        new = config.load(flags, os.environ)
        same = [key for key in _PLACES if getattr(new, key) == getattr(before, key)]
        return dataclasses.replace(new, **{key: getattr(settings, key) for key in same})

    return reload


def _teller(settings: Settings) -> Callable[[], None]:
    fd = settings.ready_fd
    return (lambda: None) if fd is None else (lambda: _tell(fd))


def _tell(fd: int) -> None:
    # Whoever started us may have given up: that is no reason not to serve.
    with contextlib.suppress(BrokenPipeError):
        os.write(fd, READY)
    os.close(fd)
