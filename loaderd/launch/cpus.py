"""The CPUs that a daemon of this program's own may use.

A process inherits the CPUs of the thread that starts it, and a trainer may have bound that
thread to one. What the program as a whole may use is what it was given at the beginning, and
what its threads use now.
"""

from __future__ import annotations

import contextlib
import os

_noted: set[int] = set()


def note() -> None:
    """Notes the CPUs that this thread may use now as those of the program."""
    _noted.update(os.sched_getaffinity(0))


def of_the_program() -> set[int]:
    """The CPUs of all threads of this process, and those that were noted."""
    found = set(_noted)
    with contextlib.suppress(OSError):
        for thread in os.listdir("/proc/self/task"):
            with contextlib.suppress(OSError):  # it has just ended
                found |= os.sched_getaffinity(int(thread))
    return found


def use(numbers: str) -> None:
    """Has this process use these CPUs, as far as its cgroup allows.

    Args:
        numbers: separated by commas.
    """
    with contextlib.suppress(OSError, ValueError):
        os.sched_setaffinity(0, {int(number) for number in numbers.split(",")})
