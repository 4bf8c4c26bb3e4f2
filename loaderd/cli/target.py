"""Which daemon ``status``, ``stat`` and ``errors`` mean when none is named.

A trainer without a daemon starts a private one, and ``loaderd stat`` alone should find it.
``stop`` does not search like this.
"""

from __future__ import annotations

import glob
import os

from loaderd.config import Address
from loaderd.errors import DaemonError, LoaderdError, NoAnswer, NoDaemon
from loaderd.ipc import address, dial


def answers(path: str) -> bool:
    """Whether a daemon of any version answers at ``path``."""
    try:
        dial.dial(path, dial.SOON).close()
    except NoDaemon:
        return False
    except LoaderdError:
        pass  # it answers, though with another protocol or a refusal
    return True


def find(wanted: Address) -> Address:
    """``wanted`` if it was chosen or runs, else the only other daemon of this user.

    A daemon that does not answer counts as running, so this never waits.

    Raises:
        NoDaemon: several others run; the text lists their names.
    """
    if wanted.chosen or _runs(wanted.socket):
        return wanted
    others = alive()
    if len(others) > 1:
        names = ", ".join(found.name for found in others)
        raise NoDaemon(f"several daemons run, choose one with --name: {names}")
    return others[0] if others else wanted


def alive() -> list[Address]:
    """This user's daemons in the default folder, also those that do not answer."""
    pattern = f"{glob.escape(address.runtime_dir())}/*.sock"
    paths = sorted(glob.glob(pattern, include_hidden=True))
    found = [Address(os.path.basename(p).removesuffix(".sock"), p, False) for p in paths]
    return [one for one in found if _runs(one.socket)]


def _runs(path: str) -> bool:
    try:
        return dial.listener(path) is not None
    except NoAnswer:
        return True
    except DaemonError:  # another user's
        return False
