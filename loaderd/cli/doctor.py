"""``loaderd doctor``: what is installed, and what the machine offers."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import platform

import psutil

from loaderd import __version__, config, formatting, machine, pillow
from loaderd.cli import cache, console, options, target
from loaderd.cli.decoders import DECODERS, EXTRAS, JPEG, KERNELS, OPTIONAL, TRAINERS
from loaderd.cli.exit_codes import DONE, FAILED
from loaderd.errors import MissingDependency
from loaderd.ipc import address, segment

DOES = "say what is installed and what the machine offers"
EXAMPLES = """\
  loaderd doctor        exit code 1 if decoders or kernels do not work
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    options.add_address(parser)
    options.add(parser, "workers", "memory", "cache_dir", "cache_size")


def run(args: argparse.Namespace) -> int:
    """Print the findings; return 1 if a decoder or the kernels are missing."""
    settings = config.load(options.flags(args), os.environ)
    findings = [_decoder(module) for module in DECODERS]
    kernels = _kernels()
    _row("loaderd", f"{__version__}, Python {platform.python_version()}, {platform.machine()}")
    for module, (works, finding) in zip(DECODERS, findings, strict=True):
        _row(module, finding)
        if module == "PIL" and works:
            _print_pillow()
    _row("kernels", kernels[1])
    if kernels[0]:
        _row("", _jpeg_kernel())
    for module, use in OPTIONAL.items():
        works, finding = _decoder(module)
        _row(module, finding if works else f"{finding}; needed for {use}")
    _print_extras()
    _row("trainers", _trainers())
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
    answers = "a daemon answers" if target.answers(settings.socket) else "no daemon answers"
    _row("socket", f"{settings.socket} ({answers})")
    alive = ", ".join(found.name for found in target.alive()) or "no daemon"
    _row("sockets", f"{address.runtime_dir()}: {alive}{_runtime_dir()}")
    cache.warn_of_other_folder(args, settings.cache_dir)
    if not all(works for works, _ in findings):
        console.err(
            'loaderd: decoders are missing, the daemon cannot run: pip install "loaderd[daemon]"'
        )
        return FAILED
    return DONE if kernels[0] else FAILED


def _row(what: str, finding: str) -> None:
    console.out(f"{what:<11} {finding}")


def _cache(folder: str) -> str:
    """The folder, and whether caches can be written there; it need not exist yet."""
    existing = folder
    while not os.path.lexists(existing):
        existing = os.path.dirname(existing)
    if os.path.isdir(existing) and os.access(existing, os.W_OK | os.X_OK):
        return f"{folder} (`loaderd cache ls`)"
    return (
        f'{folder} cannot be written: for cache="disk" choose another --cache-dir '
        "(LOADERD_CACHE_DIR)"
    )


def _runtime_dir() -> str:
    """Why XDG_RUNTIME_DIR is not used; batch systems and sudo pass on another user's."""
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    reason = address.why_unusable(base) if base else ""
    return f"; XDG_RUNTIME_DIR={base} is not used: {reason}" if reason else ""


def _decoder(module: str) -> tuple[bool, str]:
    """Whether a module can be imported, and its package and version, or the error."""
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        return False, f"missing ({error})"
    version = str(getattr(found, "__version__", "?"))
    if module == "PIL":
        return True, _pillow(version)
    from importlib import metadata  # slow to load, and no other verb needs it

    packages = ", ".join(metadata.packages_distributions().get(module, [module]))
    note = " (with its own libjpeg-turbo)" if module == "simplejpeg" else ""
    return True, f"{packages} {version}{note}"


def _print_extras() -> None:
    """Print which extras are installed, and what the others would add; imports none."""
    from importlib import metadata  # slow to load, and no other verb needs it

    for number, (package, (extra, use)) in enumerate(EXTRAS.items()):
        try:
            finding = f"{package} {metadata.version(package)}: {use}"
        except metadata.PackageNotFoundError:
            finding = f'{package} is missing; for {use}: pip install "loaderd[{extra}]"'
        _row("" if number else "extras", finding)


def _trainers() -> str:
    """The packages of trainers in this environment; importing them would take seconds."""
    from importlib import metadata  # slow to load, and no other verb needs it

    found = []
    for package in TRAINERS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found.append(f"{package} {metadata.version(package)}")
    return ", ".join(found) or "no Keras here; the daemon needs none"


def _kernels() -> tuple[bool, str]:
    """Whether the kernels in C can be loaded, and which this processor runs, or the error."""
    try:
        found = importlib.import_module(KERNELS).KERNELS
    except MissingDependency as error:
        return False, f"missing: {error}"
    return True, f"in C, {'for any processor' if found == 'plain' else f'with {found}'}"


def _jpeg_kernel() -> str:
    """Whether few pixels of a JPEG can be decoded alone, and how to add what that lacks."""
    found = importlib.import_module(JPEG)
    if found.VERSION:
        return f"few pixels of a JPEG are decoded alone, built with libjpeg-turbo {found.VERSION}"
    return (
        f"lack the part with libjpeg-turbo ({found.LACK}), so that JPEGs take longer where they "
        "are resized to nearest neighbours: install its headers (libjpeg-dev), then loaderd from "
        "source (pip install --force-reinstall --no-deps --no-cache-dir --no-binary loaderd "
        "loaderd; in a checkout: scripts/setup)"
    )


def _pillow(version: str) -> str:
    """Package and JPEG library of PIL; pillow-simd may be overwritten by stock Pillow."""
    features = importlib.import_module("PIL.features")
    jpeg = f"(libjpeg-turbo {features.version('libjpeg_turbo') or 'absent'})"
    return f"{pillow.installed().owner or f'of an unknown package {version}'} {jpeg}"


def _print_pillow() -> None:
    """Print what the installed PIL decodes, what it lacks, and how to add it."""
    formats = ["JPEG, PNG, GIF, BMP, PPM, plain TIFF"]
    lacking = [codec for codec in pillow.CODECS if pillow.lacks(codec)]
    formats += [codec.formats for codec in pillow.CODECS if codec not in lacking]
    _row("", f"decodes {', '.join(formats)}")
    for codec in lacking:
        _row("", f"lacks {codec.library} for {codec.formats}: {pillow.advice(codec)}")
    for line in pillow.remarks(pillow.installed()):
        _row("", line)
