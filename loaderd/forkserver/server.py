"""The process from which the daemon's children are forked: small, and with the decoders loaded.

::

    supervisor ── Fork, Signal ──► fork server ── fork ──► child: worker or opener
        ▲                               │                    │
        └────────── Ended ◄─────────────┴──────── Forked ◄───┘

It runs one thread, holds no descriptor that a child must not inherit, and does nothing that
could fail. :mod:`loaderd.supervisor.children` is the supervisor's side.
"""

from __future__ import annotations

import contextlib
import importlib
import mmap
import os
import pickle
import select
import signal
import socket
import sys
import traceback
from typing import NoReturn

from loaderd.child import init
from loaderd.ipc import descriptors
from loaderd.ipc.channel import Channel, Closed
from loaderd.ipc.messages import Ended, Fork, Forked, Message, Signal
from loaderd.ipc.process import JOB_SIGNALS

PRELOAD = ("loaderd.worker.loop", "loaderd.opener.opener")
"""What is imported before the first child is forked."""


def main() -> NoReturn:
    """Serves until the supervisor ends: ``loaderd-forks CONTROL_FD SUPERVISOR_PID``."""
    control, supervisor = map(int, sys.argv[2:])
    init.die_with_parent(supervisor)
    init.ignore(JOB_SIGNALS)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    # OpenCV takes the first folder of sys.path for the script's, which we have none of, and puts
    # its own behind it: if OpenCV lies in the first, it would find itself again and again.
    vars(sys)["OpenCV_REPLACE_SYS_PATH_0"] = True
    for module in PRELOAD:
        with contextlib.suppress(Exception):  # the child that needs it reports the error
            importlib.import_module(module)
    _Children(Channel(socket.socket(fileno=control))).run()


class _Children:
    """Forks, signals and reaps children.

    Args:
        channel: the supervisor's.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._pid = os.getpid()
        self._children: dict[int, int] = {}  # number → pid
        self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wake)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only to wake the poll

    def run(self) -> NoReturn:
        poll = select.poll()
        poll.register(self._channel.fileno(), select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        try:
            while True:
                ready = {fd for fd, _ in poll.poll()}
                if self._woken in ready:
                    os.read(self._woken, 512)
                    self._reap()
                if self._channel.fileno() in ready:
                    self._serve(*self._channel.receive_with_fds())
        except Closed:  # the kernel kills our children when we end
            os._exit(0)

    def _serve(self, message: Message, fds: list[int]) -> None:
        match message:
            case Fork(number):
                self._fork(number, *fds)
                descriptors.close_all(fds)
            case Signal(number, what) if number in self._children:
                os.kill(self._children[number], what)  # not reaped yet, so the number is its own

    def _fork(self, number: int, work: int, sock: int) -> None:
        try:
            pid = os.fork()
        except OSError as error:
            trouble = f"no process could be started: {error.strerror}"
            self._channel.send(Ended(number, None, trouble))
            return
        if not pid:
            self._become(number, work, sock)
        self._children[number] = pid

    def _become(self, number: int, work: int, sock: int) -> NoReturn:
        """Runs the child's part after the fork; never returns."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.close(self._woken)
            os.close(self._wake)
            init.die_with_parent(self._pid)
            self._channel.send(Forked(number, os.getpid()))
            self._channel.close()
            code = _run(work, sock)
        finally:
            os._exit(code)

    def _reap(self) -> None:
        """Reports children that have ended, before the kernel may reuse their process ids."""
        numbers = {pid: number for number, pid in self._children.items()}
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        while numbers and (found := os.waitid(os.P_ALL, 0, options)) is not None:
            pid = found.si_pid
            code = found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
            number = numbers.pop(pid, None)  # None: somebody has made a child of its own here
            if number is not None:
                self._channel.send(Ended(number, code))
                del self._children[number]
            os.waitpid(pid, 0)


def _run(work: int, sock: int) -> int:
    """Runs what a child is for; returns its exit code."""
    try:
        with mmap.mmap(work, 0, access=mmap.ACCESS_READ) as pickled:
            run, args = pickle.loads(pickled)
        os.close(work)
        run(socket.socket(fileno=sock), *args)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
    return 0
