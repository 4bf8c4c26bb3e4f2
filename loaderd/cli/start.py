"""``loaderd start``: the daemon in the background.

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
from collections.abc import Iterator, Mapping

from loaderd import config
from loaderd.cli import extra, options, target, text
from loaderd.cli.errors import DONE, FAILED
from loaderd.cli.serve import READY
from loaderd.config import Settings
from loaderd.errors import DaemonError, DaemonRunning
from loaderd.wire import address

PATIENCE = 30.0
"""Seconds within which a daemon must answer."""
_LINES = 20
_LONGEST_TAIL = 64 * 1024

_EXAMPLES = """\
  loaderd start
  loaderd start --workers 8 --memory 4G
  loaderd start --name gpu0        a second one; trainers find it with LOADERD_NAME=gpu0
"""


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    parser = options.parser_of(verbs, "start", "start the daemon in the background", _EXAMPLES)
    options.add_address(parser)
    options.add_limits(parser)
    options.add_nice(parser)
    options.add_cache(parser)
    options.add_trust(parser)
    options.add_faults(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Starts a daemon and waits until it answers."""
    extra.require()
    settings = config.load(options.flags(args), os.environ)
    if target.answers(settings.socket):
        raise DaemonRunning(f"a daemon already answers at {settings.socket}")
    address.make_folder(settings.socket)
    log = log_path(settings.socket)
    with _opened(log) as fd:
        begin = os.fstat(fd).st_size
        child, ready = _spawn(settings, fd)
    if _came_up(child, ready):
        text.say(f'loaderd "{settings.name}" is up: pid {child.pid}, '
                 f"socket {settings.socket}, log {log}")  # fmt: skip
        return DONE
    _explain(settings, child, log, begin)
    return FAILED


def log_path(socket: str) -> str:
    """Where the daemon at ``socket`` logs to when it was started in the background."""
    return socket.removesuffix(".sock") + ".log"


@contextlib.contextmanager
def _opened(log: str) -> Iterator[int]:
    ask = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(log, ask, 0o600)
    except OSError as error:
        raise DaemonError(f"no log file: {error}") from error
    try:
        yield fd
    finally:
        os.close(fd)


def _spawn(settings: Settings, log: int) -> tuple[subprocess.Popen[bytes], int]:
    """The child, and the end of the pipe that tells when it answers."""
    ready, tell = os.pipe()
    try:
        child = subprocess.Popen(
            _command(settings, tell),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(tell,),
            start_new_session=True,  # it outlives our terminal
            cwd="/",  # and holds no folder, nor takes modules from the one we are in
            env=_environ(os.environ),
        )
    finally:
        os.close(tell)
    return child, ready


def _command(settings: Settings, tell: int) -> list[str]:
    """Everything that was decided here, so that the child decides nothing anew."""
    flags = {
        "--name": settings.name,
        "--socket": settings.socket,
        "--workers": settings.workers,
        "--memory": settings.memory,
        "--nice": settings.nice,
        "--cache-dir": settings.cache_dir,
        "--cache-size": settings.cache_size or "auto",
        "--sample-timeout": settings.sample_timeout,
        "--grace": settings.grace,
        "--max-bad": f"{settings.max_bad:.9%}",
        "--max-pixels": settings.max_pixels,
        "--worker-memory": settings.worker_memory,
        "--ready-fd": tell,
    }
    given = [f"{flag}={value}" for flag, value in flags.items()]
    if not settings.user_code:
        given.append("--no-user-code")
    return [sys.executable, "-m", "loaderd", "serve", *given]


def _environ(environ: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in environ.items() if k not in config.VARIABLES.values()}


def _came_up(child: subprocess.Popen[bytes], ready: int) -> bool:
    try:
        readable, _, _ = select.select([ready], [], [], PATIENCE)
        return bool(readable) and os.read(ready, 1) == READY
    except BaseException:
        _end(child)
        raise
    finally:
        os.close(ready)


def _explain(settings: Settings, child: subprocess.Popen[bytes], log: str, begin: int) -> None:
    how = _end(child)  # first, so that its last words are in the log
    for line in _last_lines(log, begin):
        text.tell(line.expandtabs())
    text.tell(f'loaderd "{settings.name}" did not start: it {how}; the log is {log}')


def _end(child: subprocess.Popen[bytes]) -> str:
    """Makes sure that nothing is left of a start that failed; says what it came to."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        return f"ended with {child.wait(1)}"  # closed its pipe, and may need a moment
    child.kill()
    child.wait()
    return f"did not answer within {PATIENCE:.0f} s and was killed"


def _last_lines(log: str, begin: int) -> list[str]:
    with open(log, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(begin, end - _LONGEST_TAIL))
        return file.read().decode(errors="backslashreplace").splitlines()[-_LINES:]
