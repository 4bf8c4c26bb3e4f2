"""Options that several verbs share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from typing import Any

from loaderd import config
from loaderd.config import Address

SETTINGS = (
    "name",
    "socket",
    "config",
    "workers",
    "memory",
    "cache_dir",
    "cache_size",
    "nice",
    "user_code",
    "sample_timeout",
    "io_timeout",
    "grace",
    "max_bad",
    "max_pixels",
    "worker_memory",
    "owner",
    "control_fd",
    "ready_fd",
)
MOST_SECONDS = 86400.0


def parser_of(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser], name: str, does: str, examples: str
) -> argparse.ArgumentParser:
    """A verb's parser: its name, what it does, and examples under its help."""
    return verbs.add_parser(name, help=does, **texts_of(does, examples))


def texts_of(does: str, examples: str) -> dict[str, Any]:
    """What a parser's help says: the arguments for it."""
    return {
        "description": f"{does[0].upper()}{does[1:]}.",
        "epilog": f"examples:\n{examples}",
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }


def add_address(parser: argparse.ArgumentParser) -> None:
    """Which daemon is meant."""
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--name", help='the daemon\'s name (LOADERD_NAME; "default")')
    either.add_argument(
        "--socket", metavar="PATH", help="the socket itself, in place of a name (LOADERD_SOCKET)"
    )
    parser.add_argument(
        "--config", metavar="FILE", help="a TOML file with these settings (LOADERD_CONFIG)"
    )


def add_workers(parser: argparse.ArgumentParser) -> None:
    """How many processes decode."""
    parser.add_argument(
        "--workers",
        metavar="N",
        help="worker processes; auto, the default, is the CPUs that may be used (LOADERD_WORKERS)",
    )


def add_limits(parser: argparse.ArgumentParser) -> None:
    """What the daemon may use."""
    add_workers(parser)
    parser.add_argument(
        "--memory",
        metavar="SIZE",
        help="the most that all rings together may take: 512M, 2GiB, 50%% of the RAM; "
        "auto, the default, is a quarter of the RAM (LOADERD_MEMORY)",
    )


def add_nice(parser: argparse.ArgumentParser) -> None:
    """How much the daemon gives way."""
    parser.add_argument(
        "--nice",
        metavar="N",
        help="how much workers give way to other processes: 0 to 19, or auto (LOADERD_NICE)",
    )


def add_cache_dir(parser: argparse.ArgumentParser) -> None:
    """Where caches on disk lie."""
    parser.add_argument(
        "--cache-dir",
        metavar="DIR",
        help="the folder of the caches on disk; $XDG_CACHE_HOME/loaderd (LOADERD_CACHE_DIR)",
    )


def add_cache(parser: argparse.ArgumentParser) -> None:
    """Where decoded images are kept, and how many."""
    add_cache_dir(parser)
    parser.add_argument(
        "--cache-size",
        metavar="SIZE",
        help="the most that the caches on disk may take together, and those in memory: 20G; "
        "auto, the default, is half of the free disk, and a quarter of the RAM "
        "(LOADERD_CACHE_SIZE)",
    )


def add_trust(parser: argparse.ArgumentParser) -> None:
    """What the daemon may be asked to run."""
    parser.add_argument(
        "--no-user-code",
        dest="user_code",
        action="store_const",
        const="no",
        help="refuse every preprocessing_function that is not one of keras.applications "
        "(LOADERD_USER_CODE=no)",
    )


def add_samples(parser: argparse.ArgumentParser) -> None:
    """What one image may take."""
    parser.add_argument(
        "--sample-timeout",
        metavar="SEC",
        help="seconds that one sample may take before its worker is killed and it is tried "
        "again (30; LOADERD_SAMPLE_TIMEOUT)",
    )
    parser.add_argument(
        "--io-timeout",
        metavar="SEC",
        help="seconds that a disk may take to answer before the stream that waits for it ends "
        "(600; LOADERD_IO_TIMEOUT)",
    )
    parser.add_argument(
        "--max-pixels",
        metavar="N",
        help="larger pictures count as bad, and are not decoded: 100M is 100 million pixels "
        "(178956970; LOADERD_MAX_PIXELS)",
    )
    parser.add_argument(
        "--worker-memory",
        metavar="SIZE",
        help="the most that one worker may take for pictures and user code; auto, the default, "
        "is half of the RAM (LOADERD_WORKER_MEMORY)",
    )


def add_faults(parser: argparse.ArgumentParser) -> None:
    """What the daemon bears, and for how long."""
    add_samples(parser)
    parser.add_argument(
        "--max-bad",
        metavar="SHARE",
        help="the share of a dataset's images that a stream passes over before it ends, where "
        "its on_error is substitute or skip (1%%; LOADERD_MAX_BAD)",
    )
    parser.add_argument(
        "--grace",
        metavar="SEC",
        help="seconds within which a drain ends, whatever is still being filled (5; LOADERD_GRACE)",
    )


def seconds(value: str) -> float:
    """A time on the command line."""
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number <= MOST_SECONDS:  # also refuses nan
        raise argparse.ArgumentTypeError(f"{value!r} is no time: seconds, more than 0")
    return number


def flags(args: argparse.Namespace) -> Mapping[str, str | None]:
    """The options that decide settings; None where one was not given."""
    return {key: getattr(args, key, None) for key in SETTINGS}


def address(args: argparse.Namespace) -> Address:
    """The daemon that the options, the variables and the file mean."""
    return config.locate(flags(args), os.environ)
