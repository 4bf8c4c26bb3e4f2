"""The options of this command line, for a daemon that shall have them too."""

from __future__ import annotations

import argparse

from loaderd.cli import options


def words(args: argparse.Namespace) -> list[str]:
    """The flags of this command line, which the daemon is to have too.

    Nothing else is decided for it: variables and the file are read there, and the file again
    later.
    """
    return [_word(key, value) for key, value in options.flags(args).items() if value is not None]


def _word(key: str, value: str) -> str:
    return "--no-user-code" if key == "user_code" else f"--{key.replace('_', '-')}={value}"
