"""The process that serves the live page, beside the daemon that it shows."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess

from loaderd.config import Settings
from loaderd.ipc.process import Process
from loaderd.launch import interpreter, search_path
from loaderd.launch.page_token import TOKEN_VARIABLE, new_token

log = logging.getLogger("loaderd")

_SERVE = "from loaderd.cli.main import main; sys.exit(main())"
_PAUSES = (1.0, 5.0, 30.0, 60.0)
"""Seconds before the process is started again, by how often it has ended."""


class WebPage:
    """Starts ``loaderd web`` for this daemon, and again if it ends.

    Args:
        settings: where it listens; None starts nothing.
        socket: the daemon's.

    Raises:
        InvalidArgument: the token of the environment is too short.
    """

    def __init__(self, settings: Settings, socket: str) -> None:
        self._settings = settings
        self._socket = socket
        self._token = new_token() if settings.http is not None else ""
        self._process: Process | None = None
        self._ended = 0
        self._due = self._began_at = 0.0

    def check(self, now: float) -> None:
        """Starts it if it does not run; to be called about once a second."""
        if self._settings.http is None or now < self._due:
            return
        if self._process is not None and self._process.alive:
            if now - self._began_at > _PAUSES[-1]:
                self._ended = 0
            return
        if self._process is not None:
            pause = _PAUSES[min(self._ended, len(_PAUSES) - 1)]
            log.error("the page's process has ended; it is started again in %g s", pause)
            self._process, self._due = None, now + pause
            self._ended += 1
            return
        try:
            self._process, self._began_at = Process(self._start()), now
        except OSError as error:
            log.error("the page cannot be served: %s", error)
            self._due = now + _PAUSES[-1]

    def _start(self) -> int:
        assert self._settings.http is not None
        host, port = self._settings.http
        shown = f"[{host}]" if ":" in host else host
        arguments = [
            f"--socket={self._socket}",
            f"--http={shown}:{port}",
            f"--parent={os.getpid()}",
        ]
        if self._settings.metrics_open:
            arguments.append("--metrics-open")
        environment = interpreter.environment(search_path.folders(), _SERVE)
        # Not on the command line, which every user of the host can read.
        environment[TOKEN_VARIABLE] = self._token
        started = subprocess.Popen(
            [*interpreter.command(), "web", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
        # Its end is seen as that of every child of the daemon: see ``ForkServer.reap``.
        started.returncode = 0
        return started.pid

    def stop(self) -> None:
        """Ends it."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send(signal.SIGTERM)
