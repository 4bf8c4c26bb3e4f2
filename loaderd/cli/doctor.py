"""``loaderd doctor``: what is installed, and what the machine offers."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
from collections.abc import Callable

import psutil

from loaderd import __version__, config, formatting, machine, pillow
from loaderd.cli import cache, console, options, target
from loaderd.cli.decoders import DECODERS, SOMETIMES
from loaderd.cli.exit_codes import DONE, FAILED
from loaderd.ipc import address, segment

_EXAMPLES = """\
  loaderd doctor        exit code 1 if the decoders of loaderd[daemon] do not work
"""


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    does = "say what is installed and what the machine offers"
    parser = options.parser_of(verbs, "doctor", does, _EXAMPLES)
    options.add_address(parser)
    options.add(parser, "workers", "memory", "cache_dir", "cache_size")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the findings; 1 if a decoder is missing."""
    settings = config.load(options.flags(args), os.environ)
    findings = [_decoder(module) for module in DECODERS]
    _row("loaderd", f"{__version__}, Python {platform.python_version()}, {platform.machine()}")
    for module, (works, finding) in zip(DECODERS, findings, strict=True):
        _row(module, finding)
        if module == "PIL" and works:
            _tell_pillow()
    for module, use in SOMETIMES.items():
        works, finding = _decoder(module)
        _row(module, finding if works else f"{finding}; needed for {use}")
    _row("CPUs", f"{machine.cpus()} of {psutil.cpu_count()} may be used: "
                 f"{formatting.count(settings.workers, 'worker')}")  # fmt: skip
    _row(
        "memory",
        f"{formatting.size(machine.ram())} may be used, the rings may take "
        f"{formatting.size(settings.memory)}",
    )
    _row("cache", _cache(settings.cache_dir))
    _row(
        "/dev/shm", f"{formatting.size(segment.free())} of {formatting.size(segment.total())} free"
    )
    _row("socket", f"{settings.socket} ({_state(settings.socket)})")
    _row("sockets", f"{address.runtime_dir()}: {_alive()}{_runtime_dir()}")
    cache.tell_of_daemon(args, settings.cache_dir)
    return _judge([works for works, _ in findings])


def _row(what: str, finding: str) -> None:
    console.say(f"{what:<11} {finding}")


def _cache(folder: str) -> str:
    """The folder, and whether caches can be made there; it need not exist yet."""
    there = folder
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    if os.path.isdir(there) and os.access(there, os.W_OK | os.X_OK):
        return f"{folder} (`loaderd cache ls`)"
    return (
        f'{folder} cannot be written: for cache="disk" choose another --cache-dir '
        "(LOADERD_CACHE_DIR)"
    )


def _state(socket: str) -> str:
    return "a daemon answers" if target.answers(socket) else "no daemon answers"


def _alive() -> str:
    return ", ".join(found.name for found in target.alive()) or "no daemon"


def _runtime_dir() -> str:
    """What is wrong with XDG_RUNTIME_DIR; batch systems and sudo hand on that of another."""
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    reason = address.why_unusable(base) if base else ""
    return f"; XDG_RUNTIME_DIR={base} is not used: {reason}" if reason else ""


def _judge(works: list[bool]) -> int:
    if all(works):
        return DONE
    console.tell(
        'loaderd: decoders are missing, the daemon cannot run: pip install "loaderd[daemon]"'
    )
    return FAILED


def _decoder(module: str) -> tuple[bool, str]:
    """Whether a module works. Imports it: a library that it needs may be missing."""
    try:
        found = importlib.import_module(module)
        note = _NOTES.get(module, lambda: "")()
    except ImportError as error:
        return False, f"missing ({error})"
    version = str(getattr(found, "__version__", "?"))
    if module == "PIL":
        return True, _pillow(version)
    return True, f"{_distribution(module)} {version}{note}"


def _distribution(module: str) -> str:
    """The package that is really there."""
    from importlib import metadata  # slow to load, and no other verb needs it

    return ", ".join(metadata.packages_distributions().get(module, [module]))


def _pillow(version: str) -> str:
    """Pillow and pillow-simd share a module, and one may lie over the other."""
    features = importlib.import_module("PIL.features")
    jpeg = f"(libjpeg-turbo {features.version('libjpeg_turbo') or 'absent'})"
    return f"{pillow.installed().owner or f'of an unknown package {version}'} {jpeg}"


def _tell_pillow() -> None:
    """What the PIL that is there decodes, and what it lacks, with the command for it."""
    there = ["JPEG, PNG, GIF, BMP, PPM, plain TIFF"]
    there += [codec.formats for codec in pillow.CODECS if not pillow.lacks(codec)]
    _row("", f"decodes {', '.join(there)}")
    for codec in pillow.CODECS:
        if pillow.lacks(codec):
            _row("", f"lacks {codec.library} for {codec.formats}: {pillow.advice(codec)}")
    for line in pillow.remarks(pillow.installed()):
        _row("", line)


_NOTES: dict[str, Callable[[], str]] = {
    "simplejpeg": lambda: " (with its own libjpeg-turbo)",
}
