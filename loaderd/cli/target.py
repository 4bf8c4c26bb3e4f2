"""Which daemon a question goes to when nobody named one.

A trainer without a daemon starts a private one, so ``loaderd-stat`` alone should find it.
Only questions search like this: nothing is ever stopped that was not named.
"""

from __future__ import annotations

import os

from loaderd.config import Address
from loaderd.errors import DaemonError, LoaderdError, NoAnswer, NoDaemon
from loaderd.ipc import address, dial

_ENDING = ".sock"


def answers(path: str) -> bool:
    """Whether a daemon is at ``path``, of whatever version."""
    try:
        dial.dial(path, dial.SOON).close()
    except NoDaemon:
        return False
    except LoaderdError:
        pass  # a daemon that cannot be understood is one all the same
    return True


def find(wanted: Address) -> Address:
    """``wanted`` if it was chosen or is there, else the only other daemon of this user.

    Nobody is waited for here: one that is there and does not answer is found all the same.

    Raises:
        NoDaemon: several others are there; the text says their names.
    """
    if wanted.chosen or _there(wanted.socket):
        return wanted
    others = alive()
    if len(others) > 1:
        names = ", ".join(found.name for found in others)
        raise NoDaemon(f"several daemons run, choose one with --name: {names}")
    return others[0] if others else wanted


def alive() -> list[Address]:
    """The daemons of this user in the usual folder, also those that do not answer."""
    return [found for found in _neighbours() if _there(found.socket)]


def _there(path: str) -> bool:
    try:
        return dial.listener(path) is not None
    except NoAnswer:
        return True
    except DaemonError:  # somebody else's
        return False


def _neighbours() -> list[Address]:
    folder = address.runtime_dir()
    try:
        files = sorted(os.listdir(folder))
    except OSError:
        return []
    return [
        Address(file.removesuffix(_ENDING), os.path.join(folder, file), False)
        for file in files
        if file.endswith(_ENDING)
    ]
