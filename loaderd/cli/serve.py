"""``loaderd serve``: the daemon in the foreground."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from loaderd import config, formatting
from loaderd.cli import decoders, options
from loaderd.cli.exit_codes import DONE
from loaderd.config import Settings
from loaderd.ipc import segment
from loaderd.ipc.text import printable
from loaderd.launch import cpus
from loaderd.launch.launch import READY

SCARCE_SHM = 64 * 2**20
"""Bytes. Docker's default for a container, room for one small ring."""

_PATHS = ("name", "socket", "cache_dir")
"""Settings that a relative path may decide."""

DOES = "run the daemon in the foreground"
EXAMPLES = """\
  loaderd serve                              logs to stderr; Ctrl-C or SIGTERM drains and ends
  loaderd serve --name gpu0 --workers 8      trainers find it with LOADERD_NAME=gpu0
  loaderd serve --memory 50%                 of the RAM, for all rings together
  loaderd serve --ray auto --ray-workers 32  with workers on other machines of a Ray cluster
  loaderd serve --config /etc/loaderd.toml   holding lines like: workers = 8
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    options.add_all(parser)
    options.add(parser, "owner", "control_fd", "ready_fd")
    parser.add_argument("--cpus", help=argparse.SUPPRESS)  # that the program which starts it uses


def run(args: argparse.Namespace) -> int:
    """Serve until a signal or ``loaderd stop``."""
    decoders.require()
    if args.cpus is not None:
        cpus.use(args.cpus)  # first, as the default number of workers depends on it
    settings = config.load(options.flags(args), os.environ)
    decoders.require_ray(settings.ray)
    decoders.require_page(settings.http)
    # For SIGHUP: valid in another folder, and without descriptors.
    file = os.path.abspath(settings.config) if settings.config else None
    flags = {**options.flags(args), "config": file, "control_fd": None, "ready_fd": None}
    logging.basicConfig(level=logging.INFO, handlers=[log_handler()])
    if short := shortage():
        logging.getLogger("loaderd").warning(short)
    os.chdir("/")  # keep no folder busy, and import no module from it
    # Imported late, so that all other verbs and wrong flags are answered fast.
    from loaderd.supervisor import supervisor

    on_ready = partial(_report_ready, settings.ready_fd)
    supervisor.serve(settings, on_ready, reload=_reloader(flags, settings))
    return DONE


def shortage() -> str:
    """A warning if little shared memory is free, else an empty text."""
    free = segment.free()
    if free > SCARCE_SHM:
        return ""
    return (
        f"only {formatting.size(free)} of shared memory are free in {segment.SHM}: rings will be "
        "small or refused; make it larger (docker run --shm-size)"
    )


class _Formatter(logging.Formatter):
    """Writes one line for each record, and more only for a traceback.

    Control characters are escaped: names of files may hold any, and could control the terminal
    or look like another record.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        return "\n".join(map(printable, super().formatException(ei).split("\n")))


def log_handler() -> logging.Handler:
    """A handler that writes the log to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(message)s"))
    return handler


def _reloader(flags: Mapping[str, str | None], settings: Settings) -> Callable[[], Settings]:
    """Return a function that reads the settings again.

    The working directory has changed, and a relative path in the file means another one now. So
    a path is taken over only if it differs from what the same reading gives before.
    """
    before = config.load(flags, os.environ)

    def reload() -> Settings:
        new = config.load(flags, os.environ)
        same = [key for key in _PATHS if getattr(new, key) == getattr(before, key)]
        return dataclasses.replace(new, **{key: getattr(settings, key) for key in same})

    return reload


def _report_ready(fd: int | None) -> None:
    if fd is None:
        return
    # The program that started us may have given up: serve all the same.
    with contextlib.suppress(BrokenPipeError):
        os.write(fd, READY)
    os.close(fd)
