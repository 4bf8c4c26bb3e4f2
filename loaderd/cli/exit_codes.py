"""Run a command, and turn its errors into exit codes; nothing else does.

Any other exception is a bug in loaderd, and keeps its traceback.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable

from loaderd.cli import console
from loaderd.errors import InvalidArgument, LoaderdError

DONE = 0
FAILED = 1  # an error of loaderd's own: one line on stderr, no traceback; or a bad image
MISUSED = 2  # an argument that is not allowed
NOT_RUNNING = 3  # ``loaderd status``: no daemon runs
INTERRUPTED = 130  # Ctrl-C
PIPE_CLOSED = 141  # the reader of our output is gone: what a shell reports for SIGPIPE


def guarded(program: str, command: Callable[[], int]) -> int:
    """Run a command; print an error of loaderd's own as one line, and return the exit code."""
    console.escape_unencodable()
    try:
        code = command()
        sys.stdout.flush()  # a broken pipe shows here and not when Python ends
        return code
    except LoaderdError as error:
        console.err(f"{program}: {error}")
        return MISUSED if isinstance(error, InvalidArgument) else FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        if not _reader_gone():
            raise
        # Python flushes stdout again at exit, and would raise again.
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return PIPE_CLOSED


def _reader_gone() -> bool:
    """Whether the broken pipe is stdout, and not a socket, which would be a bug."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # the kernel reports errors unasked
    return bool(poll.poll(0))
