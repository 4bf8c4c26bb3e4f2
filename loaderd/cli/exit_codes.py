"""Errors become exit codes here, and nowhere else.

===  =======================================================================
0    done
1    an error of loaderd's own: one line on stderr, no traceback; or a finding
2    an argument that is not allowed
3    ``loaderd status``: no daemon runs
130  Ctrl-C
141  whoever read our output is gone, as a shell reports death by SIGPIPE
===  =======================================================================

Anything else is a fault in loaderd, and its traceback is wanted.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable

from loaderd.cli import console
from loaderd.errors import InvalidArgument, LoaderdError

DONE = 0
FAILED = 1
MISUSED = 2
NOT_RUNNING = 3
INTERRUPTED = 130
PIPE_CLOSED = 141


def guarded(program: str, command: Callable[[], int]) -> int:
    """Runs a command; its errors become one line on stderr and an exit code."""
    try:
        code = command()
        sys.stdout.flush()  # a broken pipe shows here and not when Python ends
        return code
    except LoaderdError as error:
        console.tell(f"{program}: {error}")
        return MISUSED if isinstance(error, InvalidArgument) else FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        if not _reader_gone():
            raise
        _silence_stdout()
        return PIPE_CLOSED


def _reader_gone() -> bool:
    """Whether it was stdout that broke, and not a socket, which would be a fault."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # the kernel reports errors unasked
    return bool(poll.poll(0))


def _silence_stdout() -> None:
    """Python flushes stdout once more at its end, and would complain again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
