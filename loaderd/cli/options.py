"""Options that several verbs share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from typing import Any

from loaderd import config
from loaderd import setting_types as types
from loaderd.config import Address, Setting

MAX_SECONDS = 86400.0
_ADDRESS = ("name", "socket", "config")


def texts_of(does: str, examples: str) -> dict[str, Any]:
    """The arguments of a parser that make its help: what it does, and examples."""
    return {
        "description": f"{does[0].upper()}{does[1:]}.",
        "epilog": f"examples:\n{examples}",
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }


def add_all(parser: argparse.ArgumentParser) -> None:
    """Add the flags of all settings, for verbs that start a daemon."""
    add_address(parser)
    add(parser, *(name for name in config.VARIABLES if name not in _ADDRESS))


def add_address(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say which daemon is meant."""
    name, socket, file = _ADDRESS
    add(parser.add_mutually_exclusive_group(), name, socket)
    add(parser, file)


def add(parser: argparse._ActionsContainer, *names: str) -> None:
    """Add the flags of these settings."""
    for name in names:
        setting = config.SETTINGS[name]
        how: dict[str, Any] = {"metavar": setting.metavar}
        if setting.is_flag:
            const = "no" if setting.type is types.switch else "yes"
            how = {"dest": name, "action": "store_const", "const": const}
        parser.add_argument(setting.flag, help=_help(setting), **how)


def _help(setting: Setting) -> str:
    if not setting.help:
        return argparse.SUPPRESS
    default = "" if setting.default is None else f"default: {setting.default}; "
    where = f"{setting.variable}=no" if setting.type is types.switch else default + setting.variable
    return f"{setting.help} ({where})".replace("%", "%%")


def seconds(value: str) -> float:
    """Parse a number of seconds, more than 0 and at most a day."""
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number <= MAX_SECONDS:  # also refuses nan
        raise argparse.ArgumentTypeError(f"{value!r} is no time: seconds, more than 0")
    return number


def flags(args: argparse.Namespace) -> Mapping[str, str | None]:
    """The flags of settings on this command line; None where one is absent."""
    return {key: getattr(args, key, None) for key in config.SETTINGS}


def forwarded(args: argparse.Namespace) -> list[str]:
    """The flags of settings on this command line, as arguments for the daemon that it starts.

    Variables and the file are left to the daemon, which reads the file again on SIGHUP.
    """
    return [_argument(key, value) for key, value in flags(args).items() if value is not None]


def _argument(key: str, value: str) -> str:
    setting = config.SETTINGS[key]
    return setting.flag if setting.is_flag else f"{setting.flag}={value}"


def address(args: argparse.Namespace) -> Address:
    """Which daemon the flags, the variables and the file mean."""
    return config.locate(flags(args), os.environ)
