"""What every child of the supervisor does first, and the kernel's help with its end."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import threading
from collections.abc import Iterable

from loaderd.ipc.process import JOB_SIGNALS

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38

_SIGNAL_STACK = ctypes.create_string_buffer(256 * 1024)

MAX_DESCRIPTORS = 8192
"""Descriptors of a worker: some for each stream, and what the user's code may need."""


def die_with_parent(parent: int) -> None:
    """Lets the kernel kill this process when its parent ends, however that ends.

    Args:
        parent: its process id; if it has ended already, so does this process.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit


def adopt_orphans(adopt: bool) -> None:
    """Whether this process becomes the parent of its descendants whose parents end."""
    _prctl(_PR_SET_CHILD_SUBREAPER, adopt)


def _prctl(option: int, value: int) -> None:
    _call("prctl", option, value, 0, 0, 0)


def _call(name: str, *args: object) -> None:
    """Calls a function of the C library that returns 0 unless it fails."""
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*args) != 0:
        raise OSError(ctypes.get_errno(), f"{name}{args}")


def ignore(signals: Iterable[signal.Signals]) -> None:
    """Ignores signals, as those that are sent to a whole job and meant for the trainer."""
    for number in signals:
        signal.signal(number, signal.SIG_IGN)


def init_child() -> None:
    """Takes rights away from this process; every child calls it first.

    Job signals, such as Ctrl-C, are left to the supervisor. Children read files of unknown
    origin: they can gain no privileges, leave no core dump behind, and are the first to be killed
    when memory is short.
    """
    _pass_over_job_signals()
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    limit(resource.RLIMIT_CORE, 0)
    limit(resource.RLIMIT_NOFILE, MAX_DESCRIPTORS)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


def _pass_over_job_signals() -> None:
    """Handles job signals by doing nothing; programs that the user's code starts have the defaults.

    Signals that are ignored would be ignored by every program that it starts, and by the children
    of its own pools, which are ended by SIGTERM. One that comes right after a fork waits until the
    child has the usual handlers.
    """
    for number in JOB_SIGNALS:
        signal.signal(number, _do_nothing)
        signal.siginterrupt(number, False)
    fork = _ForkGuard()
    os.register_at_fork(
        before=fork.begin, after_in_parent=fork.end, after_in_child=fork.end_in_child
    )


class _ForkGuard(threading.local):
    """Blocks job signals around a fork in the user's code until the child has the defaults."""

    mask: Iterable[int] = ()

    def begin(self) -> None:
        self.mask = signal.pthread_sigmask(signal.SIG_BLOCK, JOB_SIGNALS)

    def end_in_child(self) -> None:
        ours = [number for number in JOB_SIGNALS if signal.getsignal(number) is _do_nothing]
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
        self.end()
        if signal.SIGINT in ours:  # not before: Python drops what is raised in here
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def end(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)


def _do_nothing(*_: object) -> None:
    """Handles a signal."""


class _Stack(ctypes.Structure):
    """``stack_t`` of sigaltstack(2)."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def enlarge_signal_stack() -> None:
    """Gives the handlers of this thread a stack that holds all of them at once.

    To be called after ``faulthandler.enable``, whose stack Python's own handlers run on too. CPUs
    with wide registers lay several KiB on it for each, and the kernel kills a process whose stack
    is full: job signals may come all at the same moment.
    """
    stack = _Stack(ctypes.addressof(_SIGNAL_STACK), 0, len(_SIGNAL_STACK))
    _call("sigaltstack", ctypes.byref(stack), None)


def limit(what: int, maximum: int) -> None:
    """Lowers a limit of this process; one that is lower already stays."""
    soft, hard = resource.getrlimit(what)
    known = [value for value in (soft, hard, maximum) if value != resource.RLIM_INFINITY]
    resource.setrlimit(what, (min(known), min(known)))
