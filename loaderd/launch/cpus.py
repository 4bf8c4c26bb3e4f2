"""The CPUs that a private daemon of this program may use.

A process inherits the CPUs of the thread that starts it, and a trainer may have bound that
thread to one. The program as a whole may use the CPUs that it had at its start, and those that
its threads have now.
"""

from __future__ import annotations

import contextlib
import os

_noted: set[int] = set()


def note() -> None:
    """Remember the CPUs that this thread may use now as CPUs of the program."""
    _noted.update(os.sched_getaffinity(0))


def of_the_program() -> set[int]:
    """The CPUs of all threads of this process, and those that ``note`` remembered."""
    found = set(_noted)
    with contextlib.suppress(OSError):
        for thread in os.listdir("/proc/self/task"):
            with contextlib.suppress(OSError):  # the thread has ended
                found |= os.sched_getaffinity(int(thread))
    return found


def use(numbers: str) -> None:
    """Bind this process to CPUs, numbers separated by commas, as far as its cgroup allows."""
    with contextlib.suppress(OSError, ValueError):
        os.sched_setaffinity(0, {int(number) for number in numbers.split(",")})
