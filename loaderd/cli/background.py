"""``loaderd serve`` as a child of this process: it outlives it, or serves it alone.

The child writes one byte to a pipe once it answers, and its end closes the pipe: either
way the starter knows at once, and never polls.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import subprocess
import sys
from collections.abc import Sequence

from loaderd.cli import options
from loaderd.cli.serve import READY

PATIENCE = 30.0
"""Seconds within which a daemon must answer."""

_LINES = 20
_LONGEST_TAIL = 64 * 1024


def given(args: argparse.Namespace) -> list[str]:
    """The flags of this command line, which the child is to have too.

    Nothing else is decided for it: variables and the file are read there, and the file again
    later.
    """
    return [_word(key, value) for key, value in options.flags(args).items() if value is not None]


def _word(key: str, value: str) -> str:
    return "--no-user-code" if key == "user_code" else f"--{key.replace('_', '-')}={value}"


def command(words: Sequence[str], tell: int) -> list[str]:
    """``loaderd serve``, with the descriptor on which it says that it serves."""
    # It begins in our folder, for paths to mean the same; -P takes no modules from there.
    return [sys.executable, "-P", "-m", "loaderd", "serve", *words, f"--ready-fd={tell}"]


def spawn(words: Sequence[str], log: int) -> tuple[subprocess.Popen[bytes], int]:
    """The child, and the end of the pipe that tells when it answers."""
    ready, tell = os.pipe()
    try:
        child = subprocess.Popen(
            command(words, tell),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(tell,),
            start_new_session=True,  # the terminal's end and its Ctrl-C are not the child's
        )
    except BaseException:
        os.close(ready)
        raise
    finally:
        os.close(tell)
    return child, ready


def came_up(child: subprocess.Popen[bytes], ready: int) -> bool:
    """Waits until the child answers, or ends, or takes too long."""
    try:
        readable, _, _ = select.select([ready], [], [], PATIENCE)
        return bool(readable) and os.read(ready, 1) == READY
    except BaseException:
        end(child)
        raise
    finally:
        os.close(ready)


def end(child: subprocess.Popen[bytes]) -> str:
    """Makes sure that nothing is left of a start that failed; says what it came to."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        return f"ended with {child.wait(1)}"  # closed its pipe, and may need a moment
    child.kill()
    child.wait()
    return f"did not answer within {PATIENCE:.0f} s and was killed"


def last_lines(log: int, begin: int = 0) -> list[str]:
    """The end of a log, of what was written after its first ``begin`` bytes."""
    begin = max(begin, os.fstat(log).st_size - _LONGEST_TAIL)
    tail = os.pread(log, _LONGEST_TAIL, begin).decode(errors="backslashreplace")
    return tail.expandtabs().splitlines()[-_LINES:]
