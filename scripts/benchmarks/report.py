"""Write ``README.md`` and ``bars.svg`` beside ``results.json``."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path

from scripts.benchmarks import bars
from scripts.benchmarks.loops import LOOPS
from scripts.benchmarks.results import (
    Entry,
    LoopEntry,
    Measured,
    Ratio,
    Results,
    load,
    ratio,
    ratio_of,
    save,
    verdicts,
)
from scripts.benchmarks.sharers import SHARERS
from scripts.benchmarks.workloads import (
    FIRST_BATCH_FILES,
    FIRST_BATCH_S,
    PEERS,
    WORKLOADS,
    Workload,
)

_TOLD = ("numpy", "pillow", "pillow-simd", "simplejpeg", "opencv-python-headless", "jax", "numba")
_HEAD = """# Benchmarks

Written by `scripts/bench compare`; not by hand. loaderd and its peers side by side: every figure
is the median of alternating rounds in one run, every ratio is taken within a round, and in
brackets is the least and the greatest of them. Above 1, loaderd is faster.

![images per second](bars.svg)
"""
_HOW = """## How it is measured

Every peer is a program in an environment of its own, started once for a workload and warmed up
(where images are cached, by a whole epoch), then asked in turn, A B C A B C. In its turn it first
takes the batches that were made ahead while others were measured, for half a second at least,
and then counts images. While one is measured the others rest; one that does not come to rest by
itself is stopped until its turn. All deliver arrays of the same shape and type, images in the
last axis but two, and a program that does nothing takes them. `scripts/benchmarks/peers` has
each, and says which documentation it follows.
"""


def write(folder: Path, results: Results) -> None:
    """Writes both."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bars.svg").write_text(bars.drawing(results))
    (folder / "README.md").write_text(markdown(results))


def add(folder: Path, change: Callable[[Results], None]) -> None:
    """Changes the results in a folder, and writes all anew."""
    path = folder / "results.json"
    found = load(path)
    change(found)
    save(path, found)
    write(folder, found)


def markdown(results: Results) -> str:
    """The whole page."""
    parts = [_HEAD, _musts(results)]
    for name, workload in WORKLOADS.items():
        if name in results.entries:
            parts.append(_workload(name, workload, results))
    if results.loops:
        parts.append(_loops(results.loops))
    if results.shared:
        parts.append(_shared(results.shared))
    parts += [_HOW, _setting(results), _packages(results)]
    return "\n".join(parts)


def shown(found: Ratio | None) -> str:
    """A ratio and its spread."""
    if found is None:
        return "not measured"
    digits = 2 if found.median < 10 else 1
    low, high = (f"{value:.{digits}f}" for value in (found.low, found.high))
    return f"{found.median:.{digits}f} ({low} to {high})"


def _musts(results: Results) -> str:
    lines = ["## What must show", "", "| workload | loaderd against | at least | measured | met |"]
    lines.append("|---|---|---|---|---|")
    for verdict in verdicts(results):
        must = verdict.must
        title = PEERS[verdict.peer].title if verdict.peer in PEERS else verdict.peer
        met = "yes" if verdict.is_met else "**no**" if verdict.ratio else "-"
        lines.append(
            f"| {must.workload} | {title} | {must.least:g} | {shown(verdict.ratio)} | {met} |"
        )
    seconds = results.first_batch_s
    if seconds is not None:
        met = "yes" if seconds <= FIRST_BATCH_S else "**no**"
        lines.append(
            f"| first batch | {FIRST_BATCH_FILES} files, warm daemon | {FIRST_BATCH_S} s at most "
            f"| {seconds:.2f} s | {met} |"
        )
    return "\n".join([*lines, ""])


def _workload(name: str, workload: Workload, results: Results) -> str:
    lines = [f"## {name}", "", f"{workload.title}.", ""]
    lines += ["| | images/s | loaderd / it | date | remarks |", "|---|---|---|---|---|"]
    entries = results.entries[name]
    for peer in (workload.ours, *workload.others, *workload.left_out):
        if peer in entries:
            lines.append(_row(peer, entries[peer], is_ours=peer == workload.ours))
    return "\n".join([*lines, ""])


def _row(peer: str, entry: Entry, is_ours: bool) -> str:
    title = f"**{PEERS[peer].title}**" if is_ours else PEERS[peer].title
    if not entry.rates:
        return f"| {title} | - | - | {entry.date} | not measured: {entry.failed} |"
    rate = f"{statistics.median(entry.rates):,.0f}"
    against = "" if is_ours else shown(ratio(entry))
    return f"| {title} | {rate} | {against} | {entry.date} | {PEERS[peer].note} |"


LOOP_COLUMNS = ("", "images/s", "loaderd / it", "copies", "first batch, s", "date", "remarks")
_LOOPS = """## hand-over

Loops that do nothing but take batches, by `scripts/bench hand-over`: 224x224 of a random part of
the picture, antialiased bilinear, horizontal flip, ImageNet's mean and standard deviation, float32,
batches of 32. Copies: how often the pixels of a batch are copied in memory on their way from
finished images to the loop. First batch: from the call that makes the loader, with the libraries
imported and loaderd's daemon running.
"""


def _loops(entries: dict[str, LoopEntry]) -> str:
    lines = [_LOOPS, f"| {' | '.join(LOOP_COLUMNS)} |", "|---" * len(LOOP_COLUMNS) + "|"]
    lines += [f"| {' | '.join(loop_cells(name, entries))} |" for name in LOOPS if name in entries]
    return "\n".join([*lines, ""])


def loop_cells(name: str, entries: dict[str, LoopEntry]) -> list[str]:
    """The row of a loop."""
    loop, entry = LOOPS[name], entries[name]
    if not entry.rates:
        why = f"not measured: {entry.failed}"
        return [loop.peer.title, "-", "-", loop.copies, "-", entry.date, why]
    found = ratio_of(entries.get(loop.ours), entry)
    rate = f"{statistics.median(entry.rates):,.0f}"
    against, first = shown(found) if found else "", f"{entry.first_s:.2f}"
    return [loop.peer.title, rate, against, loop.copies, first, entry.date, loop.peer.note]


SHARED_COLUMNS = ("", "images/s together", "to one alone", "at least", "date", "remarks")
_SHARED = """## Shared streams

Trainers that read the same augmented images, by `scripts/bench share`: 150x150, bilinear, rotation,
shifts, shear, zoom, flip, float32, batches of 32, each decoded anew. Every program is started anew
for its turn.
"""


def _shared(entries: dict[str, Measured]) -> str:
    lines = [_SHARED, f"| {' | '.join(SHARED_COLUMNS)} |", "|---" * len(SHARED_COLUMNS) + "|"]
    lines += [
        f"| {' | '.join(shared_cells(name, entries))} |" for name in SHARERS if name in entries
    ]
    return "\n".join([*lines, ""])


def shared_cells(name: str, entries: dict[str, Measured]) -> list[str]:
    """The row of trainers that share."""
    sharer, entry = SHARERS[name], entries[name]
    least = f"{sharer.least:g}" if sharer.least else ""
    if not entry.rates:
        why = f"not measured: {entry.failed}"
        return [sharer.peer.title, "-", "-", least, entry.date, why]
    found = ratio_of(entry, entries[sharer.alone]) if sharer.alone in entries else None
    rate = f"{statistics.median(entry.rates):,.0f}"
    against = shown(found) if found else ""
    return [sharer.peer.title, rate, against, least, entry.date, sharer.peer.note]


def _setting(results: Results) -> str:
    machine = results.machine
    lines = [
        "## Where",
        "",
        f"- {machine['cpu']}, {machine['cpus']} CPUs, {machine['memory']} of memory, "
        f"Linux {machine['kernel']}, Python {machine['python']}",
    ]
    lines += [
        f"- {name} photos: {data['files']} JPEG files of {data['size']} pixels and "
        f"{data['average_kb']} KB on average in {data['classes']} classes"
        + (f", {data['distinct']} of them distinct" if data["distinct"] != data["files"] else "")
        + ", in the page cache"
        for name, data in sorted(results.datasets.items())
    ]
    commands = {entry.command for found in results.entries.values() for entry in found.values()}
    commands |= {one.command for one in [*results.loops.values(), *results.shared.values()]}
    lines += [f"- `{command}`" for command in sorted(commands)]
    return "\n".join([*lines, ""])


def _packages(results: Results) -> str:
    lines = ["## Versions", "", "`results.json` has those of all packages.", ""]
    lines += ["| | packages |", "|---|---|"]
    for environment, versions in sorted(results.packages.items()):
        asked = {
            word.split(">")[0].split("=")[0]
            for peer in PEERS.values()
            if peer.environment == environment
            for word in peer.requires
        } or {"loaderd", "keras", "tensorflow_cpu", "tensorflow-cpu"}
        told = [
            f"{name} {version}"
            for name, version in versions.items()
            if name.lower() in asked | set(_TOLD) and name != "setuptools"
        ]
        lines.append(f"| {environment or 'loaderd'} | {', '.join(told)} |")
    return "\n".join([*lines, ""])
