"""``loaderd completion``: has a shell complete verbs and options."""

from __future__ import annotations

import argparse
import sys

import shtab

from loaderd.cli.exit_codes import DONE

_SHELLS = ("bash", "zsh", "fish")

DOES = "print what has a shell complete verbs and options"
EXAMPLES = """\
  eval "$(loaderd completion bash)"                          in ~/.bashrc
  loaderd completion zsh > ~/.zfunc/_loaderd                 a folder of $fpath
  loaderd completion fish > ~/.config/fish/completions/loaderd.fish
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    parser.add_argument("shell", choices=_SHELLS, help="the shell")


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    sys.stdout.write(shtab.complete(args.whole, args.shell))
    return DONE
